"""The setting of a sweep: what runs on which timelines, for which seeds and numbers."""

import dataclasses
import difflib
import functools
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from async_optax.engine import Problem, WorkerProgram
from async_optax.optimizers import registry
from async_optax.sweeps.signatures import Signature, read_signature
from async_optax.timelines import Timeline
from async_optax.validation import require_count, require_number, require_seed

Factory = Callable[..., optax.GradientTransformation]
Number = int | float

RESERVED = (
    *("optimizer", "timeline", "seed", "evaluation", "version", "time", "status", "message"),
    *("diverged_version", "diverged_time", "optimizer_digest", "problem_digest", "timeline_digest"),
)
"""Names of the dataset that neither the grid nor a metric may use."""


class Cell(NamedTuple):
    """One run of a sweep.

    Attributes:
      optimizer: its label.
      timeline: its label.
      seed: of the key, and of the timeline where that is made from a seed.
      numbers: the grid's values, in the order of its names.
    """

    optimizer: str
    timeline: str
    seed: int
    numbers: tuple[Number, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Setting:
    """The checked arguments of a sweep.

    Attributes:
      problem: a problem, or a function of the numbers named in ``problem_names``.
      problem_names: names of the grid that the problem takes.
      optimizers: factories by label.
      optimizer_names: names of the grid that each takes, by label.
      timelines: timelines, or functions of the seed, by label.
      seeds: of the runs.
      grid: values by name.
      worker: the worker program, or ``None``.
      evaluate_every: commits between evaluations, or ``None``.
      evaluate_at: simulated times of evaluations, or ``None``.
    """

    problem: Problem | Callable[..., Problem]
    problem_names: tuple[str, ...]
    optimizers: Mapping[str, Factory]
    optimizer_names: Mapping[str, tuple[str, ...]]
    timelines: Mapping[str, Timeline | Callable[[int], Timeline]]
    seeds: tuple[int, ...]
    grid: Mapping[str, tuple[Number, ...]]
    worker: WorkerProgram | None
    evaluate_every: int | None
    evaluate_at: tuple[float, ...] | None

    @property
    def axes(self) -> dict[str, tuple]:
        """The dataset's dimensions but the last, with their coordinates."""
        return {
            "optimizer": tuple(self.optimizers),
            "timeline": tuple(self.timelines),
            "seed": self.seeds,
            **self.grid,
        }

    def cells(self) -> Iterator[Cell]:
        """Yields all cells, in the order of the axes."""
        for optimizer, timeline, seed, *numbers in itertools.product(*self.axes.values()):
            yield Cell(optimizer, timeline, seed, tuple(numbers))

    def chosen(self, names: Sequence[str], cell: Cell) -> dict[str, Number]:
        """Returns a cell's numbers of these names."""
        numbers = dict(zip(self.grid, cell.numbers, strict=True))
        return {name: numbers[name] for name in names}


def read_setting(
    problem: Any,
    optimizers: Any,
    timelines: Any,
    seeds: Any,
    grid: Any,
    worker: Any,
    evaluate_every: Any,
    evaluate_at: Any,
) -> Setting:
    """Checks the arguments of a sweep against each other, before anything is built.

    Args:
      problem: see :func:`async_optax.sweep`, like all others.
      optimizers: labels are the names of factories where none are given.
      timelines: likewise.
      seeds: integers.
      grid: values by name, or ``None``.
      worker: a worker program, or ``None``.
      evaluate_every: commits, or ``None``.
      evaluate_at: times, or ``None``.

    Returns:
      The setting.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if a value is not allowed; the message names it.
    """
    values = _read_grid(grid)
    factories = _labelled("optimizers", optimizers, _read_optimizer, "optimizer")
    signatures = {
        label: read_signature(f, f"optimizer {label!r}") for label, f in factories.items()
    }
    takes = _read_problem(problem)
    _require_taken(values, takes, signatures.values())
    for label, signature in signatures.items():
        signature.check_fixed(values)
        for name in values:
            if name not in signature.names(values) and name not in takes.names(values):
                raise ValueError(
                    f"grid[{name!r}] is taken neither by the problem nor by optimizer {label!r}: "
                    "fix it in the other optimizers by functools.partial, or sweep that one on its "
                    "own"
                )
        signature.check_required(values)
    takes.check_fixed(values)
    takes.check_required(values)
    if worker is not None and not callable(worker):
        raise TypeError(f"worker must be a worker program such as gradient(), got {worker!r}")
    if evaluate_every is not None and evaluate_at is not None:
        raise ValueError("give evaluate_every or evaluate_at, not both")
    if evaluate_every is not None:
        require_count("evaluate_every", evaluate_every)
    return Setting(
        problem=problem,
        problem_names=takes.names(values),
        optimizers=factories,
        optimizer_names={label: signature.names(values) for label, signature in signatures.items()},
        timelines=_labelled("timelines", timelines, _read_timeline, "timeline"),
        seeds=_read_seeds(seeds),
        grid=values,
        worker=worker,
        evaluate_every=evaluate_every,
        evaluate_at=None if evaluate_at is None else _read_times(evaluate_at),
    )


def _require_taken(
    grid: Mapping[str, Any], problem: Signature, optimizers: Collection[Signature]
) -> None:
    """Raises ``ValueError`` for a name that neither the problem nor any optimizer takes."""
    for name in grid:
        if any(signature.names([name]) for signature in (problem, *optimizers)):
            continue
        by_problem = problem.accepted - problem.fixed
        by_optimizers = {a for one in optimizers for a in one.accepted - one.fixed}
        taken = sorted(by_problem | by_optimizers)
        nearest = difflib.get_close_matches(name, taken, n=1)
        raise ValueError(
            f"grid[{name!r}] is taken neither by the problem nor by any optimizer"
            + (f"; nearest: {nearest[0]}" if nearest else "")
            + f"; the problem takes {', '.join(sorted(by_problem)) or 'nothing'}, the optimizers "
            f"{', '.join(sorted(by_optimizers)) or 'nothing'}"
        )


def _read_problem(problem: Any) -> Signature:
    if isinstance(problem, Problem):
        return Signature("the problem", frozenset(), frozenset(), frozenset(), False)
    if not callable(problem):
        raise TypeError(
            "problem must be an async_optax.Problem or a function of the grid's names that returns "
            f"one, got {type(problem).__name__}"
        )
    return read_signature(problem, "the problem")


def _read_grid(grid: Any) -> dict[str, tuple[Number, ...]]:
    if grid is None:
        return {}
    if not isinstance(grid, Mapping):
        raise TypeError(f"grid must map names to sequences of numbers, got {type(grid).__name__}")
    values = {}
    for name, numbers in grid.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"grid must be keyed by names of arguments, got {name!r}")
        if name in RESERVED:
            raise ValueError(f"grid must not use the name {name!r}: the dataset uses it")
        if isinstance(numbers, str):
            raise _not_a_number(name, numbers)
        items = _items(f"grid[{name!r}]", numbers, _listed(numbers, "[0.1]"))
        for item in items:
            if isinstance(item, str | bool):
                raise _not_a_number(name, item)
            require_number(f"grid[{name!r}]", item)
        # One coordinate has one type, and an integer may decide a shape.
        whole = all(_is_whole(item) for item in items)
        values[name] = tuple(int(item) if whole else float(item) for item in items)
        _require_different(f"grid[{name!r}]", values[name])
    return values


def _is_whole(number: Any) -> bool:
    """Whether a number is of an integer type; all arrays of no dimensions have ``__index__``."""
    return isinstance(number, int) or np.asarray(number).dtype.kind in "iu"


def _not_a_number(name: str, choice: str | bool) -> TypeError:
    return TypeError(
        f"grid[{name!r}] must hold numbers, got {choice!r}: label one optimizer per choice, "
        f"functools.partial(factory, {name}={choice!r})"
    )


def _read_seeds(seeds: Any) -> tuple[int, ...]:
    is_count = type(seeds) is int and seeds > 0
    items = _items("seeds", seeds, f"range({seeds if is_count else 3})")
    # What iterates over an array of JAX is arrays of no dimensions, not numbers.
    items = [np.asarray(seed)[()] if _is_jax_number(seed) else seed for seed in items]
    for seed in items:
        require_seed(seed)
    _require_different("seeds", items)
    return tuple(int(seed) for seed in items)


def _is_jax_number(value: Any) -> bool:
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.number)


def _read_times(evaluate_at: Any) -> tuple[float, ...]:
    items = _items("evaluate_at", evaluate_at, _listed(evaluate_at, "[0.0, 1.0]"))
    for item in items:
        require_number("evaluate_at", item, at_least=0)
    return tuple(float(item) for item in items)


def _listed(value: Any, otherwise: str) -> str:
    """The list that a lone number was to be."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"[{value}]" if is_number else otherwise


def _items(name: str, values: Any, example: str) -> list:
    message = f"{name} must be a sequence of numbers such as {example}, got {values!r}"
    if isinstance(values, str | Mapping):
        raise TypeError(message)
    try:
        items = list(values)
    except TypeError as error:
        raise TypeError(message) from error
    if not items:
        raise ValueError(f"{name} must not be empty")
    return items


def _require_different(name: str, values: Sequence) -> None:
    if len(set(values)) < len(values):
        raise ValueError(f"{name} must hold different values, got {list(values)}")


def _labelled(name: str, value: Any, read: Callable[[str, Any], Any], fallback: str) -> dict:
    if not isinstance(value, Mapping):
        inner = value.func if isinstance(value, functools.partial) else value
        label = value if isinstance(value, str) else getattr(inner, "__name__", fallback)
        return {fallback if label == "<lambda>" else label: read(name, value)}
    if not value:
        raise ValueError(f"{name} must not be empty")
    for label in value:
        if not isinstance(label, str) or not label:
            raise TypeError(f"{name} must be labelled by strings, got {label!r}")
    return {label: read(f"{name}[{label!r}]", item) for label, item in value.items()}


def _read_optimizer(name: str, value: Any) -> Factory:
    if isinstance(value, str):
        return registry.get(value)
    if not callable(value):
        raise TypeError(
            f"{name} must be a registered name or a factory such as ao.optimizers.sgd, got "
            f"{type(value).__name__}{_advice(value)}"
        )
    return value


def _advice(value: Any) -> str:
    if isinstance(value, optax.GradientTransformation):
        return ": pass the factory itself, and its numbers in grid"
    return ": for several, a dictionary by label" if isinstance(value, list | tuple | set) else ""


def _read_timeline(name: str, value: Any) -> Timeline | Callable[[int], Timeline]:
    if not isinstance(value, Timeline) and not callable(value):
        raise TypeError(
            f"{name} must be a Timeline or a function of a seed that returns one, got "
            f"{type(value).__name__}{_advice(value)}"
        )
    return value
