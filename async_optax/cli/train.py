"""The command ``train``: worker processes that really compute."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import optax
from rich.console import Console

from async_optax import optimizers, report
from async_optax.cli.arguments import method_arguments
from async_optax.cli.interruption import stop_if_interrupted
from async_optax.cli.protocols import parse_protocol
from async_optax.cli.run import DigitsProblem
from async_optax.cli.setting import Noise, naming
from async_optax.distributed import Recording, compressed, train, what_if_timeline
from async_optax.engine import Problem, WorkerProgram, gradient
from async_optax.problems import digits
from async_optax.validation import require_number

_PARAMS = "params.npz"


@dataclasses.dataclass(frozen=True)
class Method:
    """What the server does with gradients, and what workers send."""

    method: str = "async_heavy_tailed"
    """A name; `async-optax methods` lists them."""
    learning_rate: float = 0.25
    arguments: dict[str, str] = dataclasses.field(default_factory=dict)
    """Of the method, as name value pairs, such as `threshold 0.05 weight_fn concurrency`."""

    def make(self, num_workers: int) -> optax.GradientTransformation:
        """Builds the optimizer."""
        factory = optimizers.get(self.method)
        arguments = method_arguments(factory, self.arguments, num_workers)
        unused = self.arguments.keys() - arguments.keys()
        if unused:
            raise ValueError(f"arguments: {self.method} does not take {', '.join(sorted(unused))}")
        return optimizers.make(self.method, learning_rate=self.learning_rate, **arguments)


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is trained: the same for a run and its replay."""

    digits: DigitsProblem = DigitsProblem()
    noise: Noise = Noise()
    compression: Literal["none", "bfloat16", "top", "threshold"] = "none"
    """Of what workers send, with error feedback."""
    amount: float | None = None
    """Of the compression: the share of entries for top, the least magnitude for threshold."""

    def problem(self) -> Problem:
        """Builds the problem."""
        with naming("--setting.digits"):
            problem = digits(self.digits.hidden, self.digits.batch_size)
        with naming("--setting.noise"):
            return problem.with_noise(self.noise.make())

    def program(self) -> WorkerProgram:
        """Builds the worker program."""
        if self.compression == "none":
            if self.amount is not None:
                raise ValueError(f"amount={self.amount} needs a --setting.compression")
            return gradient()
        return compressed(kind=self.compression, amount=self.amount)


@dataclasses.dataclass(frozen=True)
class Train:
    """Trains digits with worker processes that really compute, on Ray."""

    method: Method = Method()
    setting: Setting = Setting()
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
    """How much longer that is for the slower half of the workers."""
    address: str | None = None
    """Of a running Ray cluster; by default a session of its own, on the loopback interface."""
    metrics: bool = True
    """Write files for TensorBoard."""
    output: Path = Path("results/train")
    """Folder of the run: trace, checkpoints, metrics, params.npz. A run that was cut off goes
    on."""


@dataclasses.dataclass(frozen=True)
class ExtraTime:
    """Exponential waiting times, drawn by the number of the job.

    Attributes:
      mean: in seconds.
      slow_factor: of workers from ``num_fast`` on.
      num_fast: number of fast workers.
    """

    mean: float
    slow_factor: float
    num_fast: int

    def __call__(self, worker: int, job: int) -> float:
        """Returns the seconds that a worker waits in a job."""
        factor = self.slow_factor if worker >= self.num_fast else 1.0
        return factor * float(np.random.default_rng((17, job)).exponential(self.mean))


def train_for_real(command: Train, console: Console) -> None:
    """Runs the command, and prints what came of it."""
    require_number("extra_time", command.extra_time, at_least=0)
    require_number("slow_factor", command.slow_factor, at_least=1)
    report.require_writable(command.output)
    extra_time = None
    if command.extra_time:
        num_fast = math.ceil(command.num_workers / 2)
        extra_time = ExtraTime(command.extra_time, command.slow_factor, num_fast)
    protocol = parse_protocol(command.protocol)
    try:
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
            address=command.address,
            progress=True,
            metrics=command.metrics,
            note={"command": as_note(command)},
        )
    except RuntimeError as error:  # the run has failed: say why, in one line
        raise ValueError(str(error)) from error
    stop_if_interrupted()
    leaves = {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(result.params))}
    with report.all_or_nothing(command.output) as staging:
        np.savez(staging / _PARAMS, allow_pickle=False, **leaves)
    recording = result.recording
    for line in describe(recording, what_if_timeline(recording, protocol).staleness.mean()):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"wrote {command.output}/trace.jsonl, {_PARAMS}", highlight=False)
    accuracy = recording.evaluations["accuracy"]
    if not (accuracy >= command.target).any():
        raise ValueError(
            f"the run did not reach the target accuracy {command.target:g} (best: "
            f"{accuracy.max():.3f}); lower --target or raise --num-commits"
        )
    first = int(np.argmax(accuracy >= command.target))
    version, time = (recording.evaluations[name][first] for name in ("version", "time"))
    console.print(
        f"accuracy {command.target:g} reached at commit {version}, {time:.2f} s", highlight=False
    )


def describe(recording: Recording, predicted: float) -> list[str]:
    """Returns what a run did, in lines.

    Args:
      recording: the run.
      predicted: mean staleness that the simulation predicts from the measured times.
    """
    timeline = recording.timeline
    began = float(timeline.start_time.min())
    seconds = timeline.end_time - began
    lines = [
        f"{recording.header['protocol']}, {timeline.num_workers} workers: {timeline.num_commits} "
        f"commits in {seconds:.2f} s, {timeline.num_commits / seconds:.1f} per second",
        f"staleness: mean {timeline.staleness.mean():.3f} (simulated from the measured times "
        f"{predicted:.3f}), largest {timeline.staleness.max()}",
    ]
    if "accuracy" in recording.evaluations:
        lines.append(f"accuracy at the end: {recording.evaluations['accuracy'][-1]:.3f}")
    return lines + [f"incident at {incident}" for incident in recording.incidents]


def as_note(command: Train) -> dict[str, Any]:
    """Returns the settings that a replay needs, as JSON."""
    fields = dataclasses.asdict(command)
    kept = {name: fields[name] for name in ("method", "setting", "evaluate_every")}
    return json.loads(json.dumps(kept))


def saved_params(folder: Path) -> list[np.ndarray] | None:
    """Returns the leaves of the parameters at the end of a run, or ``None`` if it has not ended."""
    path = folder / _PARAMS
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        return [arrays[str(i)] for i in range(len(arrays.files))]
