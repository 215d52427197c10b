"""The runs: every method at every learning rate, number of workers and seed."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

import async_optax as ao
from experiments.dana_gap_aware import config
from experiments.dana_gap_aware.config import NAG, SAME, Preset
from experiments.ledger import Ledger

NUM_BINS = 20  # over which the gap is averaged along a run
Done = Callable[[str], None]


def measure(preset: Preset, ledger: Ledger, done: Done) -> dict[str, Any]:
    """Runs a preset.

    Args:
      preset: how much is computed.
      ledger: where runs are stored as they end.
      done: told what has been measured.

    Returns:
      ``alone``: one worker with Nesterov momentum, and ``settings``: for each kind of machines,
      number of workers and method, ``accuracy[num_rates, num_seeds]`` (0 for a run that diverged),
      ``diverged`` runs, mean ``staleness``, and ``gap[num_rates][num_bins]`` along the run, the
      mean over seeds (``None`` for rates at which a run diverged); rates are :meth:`Preset.rates`.
    """
    problem = config.make_problem(preset, config.load(preset))
    alone = _measured(preset, problem, ledger, SAME, NAG, 1)
    done(f"one worker: {_best(alone)}")
    settings: dict[str, Any] = {}
    for machines in preset.machines:
        for num_workers in preset.num_workers:
            found = {}
            for method in preset.methods:
                found[method] = _measured(preset, problem, ledger, machines, method, num_workers)
                done(f"{machines}, {num_workers}, {method}: {_best(found[method])}")
            settings.setdefault(machines, {})[str(num_workers)] = found
    return {"alone": alone, "settings": settings}


def _best(found: Mapping[str, Any]) -> str:
    return f"{np.mean(found['accuracy'], axis=1).max():.3f}"


def _measured(
    preset: Preset,
    problem: ao.Problem,
    ledger: Ledger,
    machines: str,
    method: str,
    num_workers: int,
) -> dict[str, Any]:
    decides = dataclasses.asdict(preset)
    for grid in ("num_workers", "machines", "learning_rates", "more_rates", "methods", "seeds"):
        decides.pop(grid)
    runs = [
        [
            ledger.run(
                decides
                | {
                    "machines": machines,
                    "method": method,
                    "num_workers": num_workers,
                    "learning_rate": rate,
                    "seed": seed,
                },
                functools.partial(_run, preset, problem, machines, method, num_workers, rate, seed),
            )
            for seed in preset.seeds
        ]
        for rate in preset.rates(method)
    ]
    gaps = [
        None
        if any(run["gap"] is None for run in of_rate)
        else [float(f"{gap:.4g}") for gap in np.mean([run["gap"] for run in of_rate], axis=0)]
        for of_rate in runs
    ]
    return {
        "accuracy": [[run["values"][-1] or 0.0 for run in of_rate] for of_rate in runs],
        "diverged": sum(run["diverged"] for of_rate in runs for run in of_rate),
        "staleness": float(np.mean([run["staleness"] for run in runs[0]])),
        "gap": gaps,
        "seconds": float(np.median([run["seconds"] for of_rate in runs for run in of_rate])),
    }


def _run(
    preset: Preset,
    problem: ao.Problem,
    machines: str,
    method: str,
    num_workers: int,
    rate: float,
    seed: int,
) -> dict[str, Any]:
    started = time.perf_counter()
    timeline = _timeline(machines, preset.num_gradients, num_workers, seed)
    result = ao.simulate(
        problem,
        config.make_optimizer(preset, method, rate, num_workers),
        timeline,
        key=jax.random.key(seed),
        lanes=preset.lanes,
        record=["gap"],
        evaluate_every=preset.num_gradients // preset.num_evaluations,
    )
    values = [round(value, 4) for value in result.evaluations["accuracy"].tolist()]
    missing = preset.num_evaluations + 1 - len(values)
    gap = None
    if result.diverged is None:
        parts = np.array_split(result.arrivals["gap"], NUM_BINS)
        gap = [float(f"{part.mean():.4g}") for part in parts]
    return {
        "values": values + [None] * missing,
        "diverged": result.diverged is not None,
        "staleness": float(timeline.staleness.mean()),
        "gap": gap,
        "seconds": round(time.perf_counter() - started, 2),
    }


@functools.lru_cache(maxsize=16)
def _timeline(machines: str, num_gradients: int, num_workers: int, seed: int) -> ao.Timeline:
    return config.make_timeline(machines, num_gradients, num_workers, seed)
