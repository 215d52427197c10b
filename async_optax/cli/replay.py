"""The command ``replay``: a recorded run again, or what another choice would have made of it."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console

from async_optax.cli.protocols import parse_protocol
from async_optax.cli.saved_params import PARAMS_NAME, SavedParams, read_params
from async_optax.cli.training import Method, Setting, from_note
from async_optax.distributed import Recording, replay, what_if_timeline
from async_optax.engine import simulate
from async_optax.validation import first_line

_LARGEST_DIFFERENCE = 1e-3  # of parameters, relative to the largest, in single precision


@dataclasses.dataclass(frozen=True)
class Replay:
    """Computes a run of `async-optax train` again, exactly, on one device.

    With --method, --learning-rate, --arguments or --protocol it tells what that would have made of
    the same recorded times.
    """

    folder: tyro.conf.Positional[Path]
    """Of the run, its --output."""
    method: str | None = None
    """Instead of the run's."""
    learning_rate: float | None = None
    """Instead of the run's."""
    arguments: dict[str, str] = dataclasses.field(default_factory=dict)
    """Of the method, as name value pairs; they are added to the run's if the method is the same."""
    protocol: str | None = None
    """Instead of the run's: simulated on workers as fast as those recorded."""
    seed: int = 0
    """Of the simulated times, with --protocol."""


def replay_run(command: Replay, console: Console) -> None:
    """Replays, and prints what came of it."""
    recording = Recording.load(command.folder)
    method, setting, evaluate_every = of_the_run(recording, command.folder)
    other = dataclasses.replace(
        method,
        method=method.method if command.method is None else command.method,
        learning_rate=method.learning_rate
        if command.learning_rate is None
        else command.learning_rate,
        arguments=(method.arguments if command.method in (None, method.method) else {})
        | command.arguments,
    )
    problem, optimizer = setting.problem(), other.make(recording.num_workers)
    arguments: dict[str, Any] = {"evaluate_every": evaluate_every, "progress": True}
    if command.protocol is not None:
        protocol = parse_protocol(command.protocol)
        timeline = what_if_timeline(recording, protocol, seed=command.seed)
        arguments |= {"key": recording.key(), "worker": setting.program()}
        arguments["slot_dtype"] = recording.header["slot_dtype"]
        result = simulate(problem, optimizer, timeline, **arguments)
        shown = f"{protocol.name}, simulated"
    else:
        result = replay(problem, optimizer, recording, worker=setting.program(), **arguments)
        timeline, shown = recording.timeline, "replayed"
    measured = recording.evaluations["accuracy"]
    console.print(f"the run: {_row(method, measured)}", highlight=False)
    console.print(f"{shown}: {_row(other, result.evaluations['accuracy'])}", highlight=False)
    console.print(
        f"staleness: mean {timeline.staleness.mean():.3f}; {timeline.num_commits} commits in "
        f"{timeline.end_time:.2f} s",
        highlight=False,
    )
    if result.diverged is not None:
        console.print(f"{shown}: {result.diverged}", highlight=False)
    if command.protocol is None and other == method:
        saved = read_params(command.folder)
        if saved is None:
            return
        if not saved.is_end_of(recording):
            console.print(
                f"{PARAMS_NAME} is of commit {saved.version}, before the run went on: not compared",
                highlight=False,
            )
            return
        _compare(saved, result.params, console)


def of_the_run(recording: Recording, folder: Path) -> tuple[Method, Setting, int]:
    """Returns what a run was made of, by the note that the command ``train`` has left.

    Raises:
      ValueError: if there is none, or it is damaged.
    """
    note = recording.header["note"].get("command")
    if note is None:
        raise ValueError(
            f"{folder} is not a run of `async-optax train`: replay it in Python, by "
            "async_optax.distributed.replay"
        )
    try:
        return from_note(note)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ValueError(f"{folder}: the note of the run is damaged ({reason})") from error


def _row(method: Method, accuracy: np.ndarray) -> str:
    arguments = "".join(f", {name}={value}" for name, value in method.arguments.items())
    return (
        f"{method.method}({method.learning_rate:g}{arguments}): accuracy {accuracy[-1]:.3f} at the "
        f"end, {accuracy.max():.3f} at best"
    )


def _compare(saved: SavedParams, params: Any, console: Console) -> None:
    """Says how far the replay is from the run.

    Raises:
      ValueError: if it is too far.
    """
    differs, largest = saved.differences(params)
    console.print(
        f"largest difference of a parameter: {differs:.3g}, of parameters up to {largest:.3g}",
        highlight=False,
    )
    if not differs <= _LARGEST_DIFFERENCE * largest:
        raise ValueError(
            f"the replay is not the run: parameters differ by {differs:.3g}. Do the versions of "
            "async_optax and jax agree?"
        )
