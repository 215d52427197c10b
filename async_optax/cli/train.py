"""The command ``train``: worker processes that really compute."""

import dataclasses
import math
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from async_optax import report
from async_optax.cli.interruption import stop_if_interrupted
from async_optax.cli.log_lines import plain_log
from async_optax.cli.protocols import parse_protocol
from async_optax.cli.saved_params import PARAMS_NAME, save_params
from async_optax.cli.training import Method, Setting, as_note
from async_optax.distributed import Recording, train, what_if_timeline
from async_optax.distributed.staleness_summary import (
    SHARES,
    StalenessSummary,
    staleness_by_worker,
)
from async_optax.timelines import Timeline
from async_optax.timelines.protocols import Protocol
from async_optax.validation import require_count, require_number

_LOGGER = "async_optax.distributed"
_MOST_ROWS = 16  # workers that the table shows


@dataclasses.dataclass(frozen=True)
class Train:
    """Trains digits with worker processes that really compute, on Ray."""

    method: Annotated[Method, tyro.conf.arg(name="")] = Method()
    setting: Annotated[Setting, tyro.conf.arg(name="")] = Setting()
    protocol: str = "asynchronous"
    """Such as buffered:8:wait or ringmaster:4:stop; `async-optax protocols` lists them."""
    num_workers: int = 2
    num_commits: int = 1000
    seed: int = 0
    target: float = 0.8
    """Test accuracy to reach."""
    evaluate_every: int = 50
    """Commits between evaluations."""
    extra_time: float = 0.0
    """Seconds that a job takes beside computing, exponential with this mean."""
    slow_factor: float = 1.0
    """How much longer that is for the slow workers, which are the last ones."""
    num_slow: int | None = None
    """How many are slow; by default half of the workers."""
    checkpoint_every: float = 5.0
    """Seconds between checkpoints, from which a run that was cut off goes on."""
    address: str | None = None
    """Of a running Ray cluster; by default a session of its own, on the loopback interface."""
    metrics: bool = True
    """Write files for TensorBoard."""
    output: Path = Path("results/train")
    """Folder of the run: trace, checkpoints, metrics, params.npz. The same command goes on with a
    run that was cut off."""

    def waiting(self) -> "ExtraTime | None":
        """Builds what jobs wait for beside computing."""
        require_count("num_workers", self.num_workers)
        require_number("extra_time", self.extra_time, at_least=0)
        require_number("slow_factor", self.slow_factor, at_least=1)
        num_fast = math.ceil(self.num_workers / 2)
        if self.num_slow is not None:
            require_count("num_slow", self.num_slow, at_least=0)
            if self.num_slow > self.num_workers:
                raise ValueError(
                    f"num_slow must be at most {self.num_workers}, the number of workers, got "
                    f"{self.num_slow}"
                )
            num_fast = self.num_workers - self.num_slow
        if not self.extra_time:
            return None
        return ExtraTime(self.extra_time, self.slow_factor, num_fast, self.seed)


@dataclasses.dataclass(frozen=True)
class ExtraTime:
    """Exponential waiting times, drawn by seed and number of the job.

    Attributes:
      mean: in seconds.
      slow_factor: of workers from ``num_fast`` on.
      num_fast: number of fast workers.
      seed: of the run.
    """

    mean: float
    slow_factor: float
    num_fast: int
    seed: int

    def __call__(self, worker: int, job: int) -> float:
        """Returns the seconds that a worker waits in a job."""
        factor = self.slow_factor if worker >= self.num_fast else 1.0
        return factor * float(np.random.default_rng((17, self.seed, job)).exponential(self.mean))


def train_for_real(command: Train, console: Console) -> None:
    """Runs the command, and prints what came of it."""
    extra_time = command.waiting()
    report.require_writable(command.output)
    protocol = parse_protocol(command.protocol)
    try:
        with plain_log(_LOGGER):
            result = train(
                command.setting.problem(),
                command.method.make(command.num_workers),
                protocol,
                command.num_workers,
                key=jax.random.key(command.seed),
                directory=command.output,
                num_commits=command.num_commits,
                worker=command.setting.program(),
                evaluate_every=command.evaluate_every,
                extra_time=extra_time,
                checkpoint_every=command.checkpoint_every,
                address=command.address,
                progress=True,
                metrics=command.metrics,
                note={"command": as_note(command.method, command.setting, command.evaluate_every)},
            )
    except RuntimeError as error:  # the run has failed: say why, in one line
        raise ValueError(str(error)) from error
    stop_if_interrupted()
    recording = result.recording
    save_params(command.output, result.params, recording)
    for line in describe(recording):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(staleness_table(recording.timeline, predicted_timeline(recording, protocol)))
    console.print(f"wrote {command.output}/trace.jsonl, {PARAMS_NAME}", highlight=False)
    accuracy = recording.evaluations["accuracy"]
    if not (accuracy >= command.target).any():
        raise ValueError(
            f"the run did not reach the target accuracy {command.target:g} (best: "
            f"{accuracy.max():.3f}); lower --target or raise --num-commits"
        )
    first = int(np.argmax(accuracy >= command.target))
    version, time = (recording.evaluations[name][first] for name in ("version", "time"))
    seconds = time - float(recording.timeline.start_time.min())  # as of the whole run, above
    console.print(
        f"accuracy {command.target:g} reached at commit {version}, {seconds:.2f} s", highlight=False
    )


def describe(recording: Recording) -> list[str]:
    """Returns what a run did, in lines."""
    timeline = recording.timeline
    began = float(timeline.start_time.min())
    seconds = timeline.end_time - began
    lines = [
        f"{recording.header['protocol']}, {timeline.num_workers} workers: {timeline.num_commits} "
        f"commits in {seconds:.2f} s, {timeline.num_commits / seconds:.1f} per second",
    ]
    if "accuracy" in recording.evaluations:
        lines.append(f"accuracy at the end: {recording.evaluations['accuracy'][-1]:.3f}")
    return lines + [f"incident at {incident}" for incident in recording.incidents]


def predicted_timeline(recording: Recording, protocol: Protocol) -> Timeline | None:
    """Returns what the simulation makes of the measured times; ``None`` if some are not known."""
    if len(recording.job_times()) < recording.num_workers:  # a worker has never delivered
        return None
    return what_if_timeline(recording, protocol)


def staleness_table(measured: Timeline, predicted: Timeline | None) -> Table:
    """Returns a table of staleness, measured / simulated from the measured times of jobs."""
    table = Table(title="staleness: measured / simulated from the measured times")
    for column in ("worker", "arrivals", "mean", *(f"{share:.0%}" for share in SHARES), "largest"):
        table.add_column(column, justify="right")
    simulated = {} if predicted is None else staleness_by_worker(predicted)
    found = staleness_by_worker(measured)
    for worker, one in list(found.items())[: 1 + _MOST_ROWS]:
        name = "all" if worker is None else str(worker)
        pairs = zip(_cells(one), _cells(simulated.get(worker)), strict=True)
        table.add_row(name, *(f"{cell} / {other}" for cell, other in pairs))
    if len(found) > 1 + _MOST_ROWS:
        table.add_row(f"{len(found) - 1 - _MOST_ROWS} more")
    return table


def _cells(found: StalenessSummary | None) -> list[str]:
    if found is None:
        return ["-"] * (len(SHARES) + 3)
    numbers = [*found.quantiles, found.largest]
    return [str(found.num_arrivals), f"{found.mean:.2f}", *map(str, numbers)]
