"""Runs the command, and reads from its folder how stale arrivals were, and what a replay gives."""

import functools
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from async_optax.cli.replay import of_the_run
from async_optax.cli.saved_params import read_params
from async_optax.distributed import Recording, replay, what_if_timeline
from async_optax.distributed.staleness_summary import SHARES, staleness_by_worker
from async_optax.timelines import Timeline, protocols
from experiments.ledger import Ledger
from experiments.real_workers.config import Preset

RUNS = Path("results/real_workers")


def measure(preset: Preset, ledger: Ledger, done: Callable[[str], None]) -> dict[str, Any]:
    """Runs a preset, one run after another, each in processes of its own."""
    rows = []
    for num_workers in preset.num_workers:
        for seed in preset.seeds:
            folder = RUNS / f"{num_workers}-workers-{preset.num_commits[num_workers]}-seed-{seed}"
            command = preset.command(num_workers, seed, str(folder))
            run = functools.partial(_run, command, folder, preset)
            rows.append(ledger.run({"command": command}, run))
            done(" ".join(command))
    return {"rows": rows}


def _run(command: list[str], folder: Path, preset: Preset) -> dict[str, Any]:
    program = [sys.executable, "-m", "async_optax.cli", *command]
    ran = subprocess.run(program, capture_output=True, text=True)
    if ran.returncode:
        said = (ran.stderr.strip().splitlines() or ["nothing"])[-1]
        raise ValueError(f"async-optax {' '.join(command)} failed: {said}")
    return row_of(folder, preset.target, preset.num_predictions)


def row_of(folder: Path, target: float, num_predictions: int) -> dict[str, Any]:
    """Returns what the folder of a run tells, as plain data.

    Args:
      folder: the ``--output`` of a run under the asynchronous protocol.
      target: accuracy.
      num_predictions: simulations from the measured times.
    """
    recording = Recording.load(folder)
    timeline = recording.timeline
    began = float(timeline.start_time.min())
    method, setting, _ = of_the_run(recording, folder)
    optimizer = method.make(recording.num_workers)
    again = replay(setting.problem(), optimizer, recording, worker=setting.program(), lanes=1)
    saved = read_params(folder)
    if saved is None or not saved.is_end_of(recording):
        raise ValueError(f"{folder} holds no run that has ended")
    differs, largest = saved.differences(again.params)
    asynchronous = protocols.asynchronous()
    seeds = range(num_predictions)
    predictions = [what_if_timeline(recording, asynchronous, seed=seed) for seed in seeds]
    evaluated, accuracy = (recording.evaluations[name] for name in ("version", "accuracy"))
    reached = accuracy >= target
    first = int(np.argmax(reached))
    evaluated_at = recording.evaluations["time"] - began
    return {
        "num_workers": recording.num_workers,
        "seed": recording.header["key"]["data"][-1],
        "commits": timeline.num_commits,
        "seconds": timeline.end_time - began,
        "reached_at_commit": int(evaluated[first]) if reached.any() else None,
        "reached_at_time": float(evaluated_at[first]) if reached.any() else None,
        "evaluations": {"time": evaluated_at.tolist(), "accuracy": accuracy.tolist()},
        "replay_difference": differs,
        "largest_parameter": largest,
        "incidents": list(recording.incidents),
        "job_times": {
            str(worker): {
                "mean": float(own.mean()),
                "quantiles": np.quantile(own, SHARES).tolist(),
            }
            for worker, own in recording.job_times().items()
        },
        "measured": staleness_of([timeline]),
        "predicted": staleness_of(predictions),
    }


def staleness_of(timelines: Iterable[Timeline]) -> dict[str, dict[str, Any]]:
    """Returns what is known of the staleness of all arrivals, and of each worker's.

    Args:
      timelines: their arrivals are pooled.

    Returns:
      By worker, ``"all"`` first: the number of arrivals per timeline, the mean, and how many had
      staleness 0, 1, 2, ...
    """
    pooled: dict[str, list[np.ndarray]] = {}
    timelines = list(timelines)
    for timeline in timelines:
        for worker in staleness_by_worker(timeline):
            chosen = timeline.accepted.copy()
            if worker is not None:
                chosen &= timeline.worker == worker
            name = "all" if worker is None else str(worker)
            pooled.setdefault(name, []).append(timeline.staleness[chosen])
    found = {}
    for name, parts in pooled.items():
        staleness = np.concatenate(parts)
        found[name] = {
            "arrivals": len(staleness) / len(timelines),
            "mean": float(staleness.mean()),
            "counts": np.bincount(staleness).tolist(),
        }
    return found
