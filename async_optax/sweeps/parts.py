"""What the cells of a sweep are made of: each part is built once, and shared."""

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any

import jax
import numpy as np
import optax

from async_optax.engine import Problem, compile_timeline
from async_optax.engine.chunks import schedule_evaluations
from async_optax.sweeps.setting import Cell, Setting
from async_optax.timelines import Timeline
from async_optax.validation import first_line

CheckFailed = (ValueError, TypeError)
"""What bad input raises: it fails its cells only. Anything else ends the sweep, but for what the
user's own functions raise, which becomes a ``ValueError``."""


@dataclasses.dataclass(frozen=True, eq=False)
class Course:
    """A timeline, and where runs on it are evaluated.

    Attributes:
      timeline: the timeline.
      version: int ``[num_evaluations]``.
      time: float64, simulated times.
      num_arrivals: accepted arrivals.
    """

    timeline: Timeline
    version: np.ndarray
    time: np.ndarray
    num_arrivals: int


@dataclasses.dataclass(frozen=True, eq=False)
class CellParts:
    """A cell, and all it takes to run it."""

    cell: Cell
    problem: Problem
    optimizer: optax.GradientTransformation
    course: Course


class Parts:
    """Builds problems, optimizers and courses, each once for equal arguments.

    A part that cannot be built raises the same error each time it is asked for.
    """

    def __init__(self, setting: Setting):
        self._setting = setting
        self._built: dict[Hashable, tuple[Any, Exception | None]] = {}

    def of(self, cell: Cell) -> CellParts:
        """Returns a cell's parts; raises ``ValueError`` or ``TypeError`` if a part fails."""
        return CellParts(
            cell,
            self.problem(cell),
            self.optimizer(cell),
            self.course(cell.timeline, cell.seed),
        )

    def problem(self, cell: Cell) -> Problem:
        """Returns the problem at a cell's numbers, checked."""
        numbers = self._setting.chosen(self._setting.problem_names, cell)

        def build() -> Problem:
            problem = self._setting.problem
            if not isinstance(problem, Problem):
                problem = _called("the problem function", problem, **numbers)
            if not isinstance(problem, Problem):
                raise TypeError(
                    "the problem function must return an async_optax.Problem, got "
                    f"{type(problem).__name__}"
                )
            problem.check()
            if problem.evaluate is None:
                raise ValueError("problem.evaluate is None: a sweep keeps evaluations")
            return problem

        return self._once(("problem", *numbers.values()), build)

    def metrics(self, cell: Cell) -> tuple[str, ...]:
        """Returns the names of what a cell's problem evaluates, sorted."""
        numbers = self._setting.chosen(self._setting.problem_names, cell)

        def build() -> tuple[str, ...]:
            problem = self.problem(cell)
            assert problem.evaluate is not None
            params = jax.eval_shape(problem.init, jax.random.key(0))
            return tuple(sorted(jax.eval_shape(problem.evaluate, params)))

        return self._once(("metrics", *numbers.values()), build)

    def optimizer(self, cell: Cell) -> optax.GradientTransformation:
        """Returns the optimizer at a cell's numbers: the same object for all seeds."""
        numbers = self._setting.chosen(self._setting.optimizer_names[cell.optimizer], cell)
        factory = self._setting.optimizers[cell.optimizer]

        def build() -> optax.GradientTransformation:
            optimizer = _called(f"optimizer {cell.optimizer!r}", factory, **numbers)
            if not isinstance(optimizer, optax.GradientTransformation):
                raise TypeError(
                    f"optimizer {cell.optimizer!r} must return a gradient transformation, got "
                    f"{type(optimizer).__name__}"
                )
            return optimizer

        return self._once(("optimizer", cell.optimizer, *numbers.values()), build)

    def course(self, label: str, seed: int) -> Course:
        """Returns the course of a timeline's label at a seed."""
        given = self._setting.timelines[label]
        if isinstance(given, Timeline):
            return self._once(("course", label), lambda: self._course(given))

        def build() -> Course:
            return self._course(_called(f"timeline {label!r} at seed {seed}", given, seed))

        return self._once(("course", label, seed), build)

    def _course(self, timeline: Timeline) -> Course:
        if not isinstance(timeline, Timeline):
            raise TypeError(
                "the timeline function must return an async_optax.Timeline, got "
                f"{type(timeline).__name__}"
            )
        plan = compile_timeline(timeline)
        setting = self._setting
        schedule = schedule_evaluations(
            plan, timeline.end_time, setting.evaluate_every, setting.evaluate_at
        )
        return Course(timeline, schedule.version, schedule.time, plan.num_arrivals)

    def _once(self, key: Hashable, build: Callable[[], Any]) -> Any:
        if key not in self._built:
            try:
                self._built[key] = build(), None
            except CheckFailed as error:
                self._built[key] = None, error
        value, failure = self._built[key]
        if failure is not None:
            raise failure
        return value


def _called(owner: str, function: Callable, *args: Any, **numbers: Any) -> Any:
    """What a user's function returns; whatever it raises fails its cells, and says whose it is."""
    try:
        return function(*args, **numbers)
    except CheckFailed:
        raise  # it names the argument
    except Exception as error:  # a user's function may raise anything
        raised = type(error).__name__
        reason = f"{raised}: {first_line(error)}" if str(error).strip() else raised
        raise ValueError(f"{owner} raises {reason}") from error
