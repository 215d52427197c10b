"""Jobs of a sweep: single runs, each by ``simulate``, that compile each program once."""

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence

import jax
import jax.numpy as jnp

from async_optax.engine import Result, simulate
from async_optax.sweeps.parts import CellParts, CheckFailed
from async_optax.sweeps.pool import Advance
from async_optax.sweeps.setting import Cell, Setting
from async_optax.sweeps.table import Outcome
from async_optax.transforms import split_numbers

Ended = list[tuple[Cell, Outcome | Exception]]
Job = Callable[[Advance], Ended]


def outcome_of(result: Result) -> Outcome:
    """Returns what a sweep keeps of a run."""
    return Outcome(result.evaluations, result.diverged)


def structure_of(parts: CellParts) -> Hashable:
    """Returns what cells share whose program is the same; ``None`` if that cannot be told."""
    try:
        split = [split_numbers(parts.problem), split_numbers(parts.optimizer)]
    except TypeError:
        return None
    shapes = [(jnp.shape(x), str(jnp.result_type(x))) for numbers, _ in split for x in numbers]
    timeline = parts.course.timeline
    in_full = bool((~timeline.accepted | (timeline.commit & (timeline.weight == 1))).all())
    structures = tuple(structure for _, structure in split)
    return structures, tuple(shapes), timeline.num_workers, in_full


def single_jobs(cells: Sequence[CellParts], setting: Setting, lanes: int) -> Iterator[Job]:
    """Yields a job for each cell, in an order in which different programs are compiled first.

    Args:
      cells: what to run.
      setting: of the sweep.
      lanes: width of a wave.

    Yields:
      Functions that return the cell's outcome, or the error that its checks raised.
    """
    gates: dict[Hashable, _Gate] = {}
    first: list[tuple[CellParts, Hashable]] = []
    later: list[tuple[CellParts, Hashable]] = []
    for parts in cells:
        structure = structure_of(parts)
        (later if structure in gates else first).append((parts, structure))
        gates.setdefault(structure, _Gate())
    for parts, structure in first + later:
        yield _single_job(parts, setting, lanes, gates[structure])


def _single_job(parts: CellParts, setting: Setting, lanes: int, gate: "_Gate") -> Job:
    def job(advance: Advance) -> Ended:
        def progress(done: int, total: int) -> None:
            del total
            gate.open()  # the first chunk has run: the program is compiled
            advance(done)

        gate.enter()
        try:
            result = simulate(
                parts.problem,
                parts.optimizer,
                parts.course.timeline,
                key=jax.random.key(parts.cell.seed),
                worker=setting.worker,
                lanes=lanes,
                evaluate_every=setting.evaluate_every,
                evaluate_at=setting.evaluate_at,
                progress=progress,
            )
        except CheckFailed as error:
            return [(parts.cell, error)]
        finally:
            gate.open()
        advance(parts.course.num_arrivals)
        return [(parts.cell, outcome_of(result))]

    return job


class _Gate:
    """Lets one run through until it has compiled; then all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = False
        self._opened = threading.Event()

    def enter(self) -> None:
        """Waits unless this is the first run, or the gate is open."""
        with self._lock:
            is_first, self._taken = not self._taken, True
        if not is_first:
            self._opened.wait()

    def open(self) -> None:
        """Lets all others through."""
        self._opened.set()
