"""The result of a run: tables on both axes, version and simulated time."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import optax

from async_optax.engine.memory import MemoryUse

Table = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Divergence:
    """Where a run stopped being finite.

    Attributes:
      version: the version at which it was seen.
      time: the simulated time.
      sign: what was not finite, such as ``"loss"``.
    """

    version: int
    time: float
    sign: str

    def __str__(self) -> str:
        return f"diverged at version {self.version}, time {self.time:.4g} ({self.sign} not finite)"


@dataclasses.dataclass(frozen=True)
class LaneChoice:
    """How wide the waves of a run were, and why.

    Attributes:
      lanes: the width.
      reason: one sentence.
      seconds_per_arrival: for each width that was considered, if any: by the measured cost
        of its waves, and the waves that the timeline has.
    """

    lanes: int
    reason: str
    seconds_per_arrival: Mapping[int, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """What :func:`async_optax.simulate` returns.

    Attributes:
      params: the parameters at the end (of the last chunk that ran, if diverged).
      opt_state: the optimizer's state likewise.
      arrivals: columns with one entry per accepted arrival: ``job``, ``worker``,
        ``staleness``, ``version`` (after it), ``time``, ``loss`` and what else was recorded.
      evaluations: columns with one entry per evaluation: ``version``, ``time`` and the
        metrics.
      diverged: where the run diverged, or ``None``. The tables end before it.
      lanes: the width of the waves.
      num_slots: versions held at once.
      memory: bytes at the peak, as predicted before the run.
      worker_states: what each worker keeps between its jobs, ``[num_workers, ...]``, at the end;
        an empty tuple if the worker program keeps no state.
    """

    params: optax.Params
    opt_state: optax.OptState
    arrivals: Table
    evaluations: Table
    diverged: Divergence | None
    lanes: LaneChoice
    num_slots: int
    memory: MemoryUse
    worker_states: Any = ()

    def __repr__(self) -> str:
        ending = str(self.diverged) if self.diverged else "finite"
        return (
            f"Result({len(self.arrivals['time'])} arrivals, "
            f"{len(self.evaluations['time'])} evaluations, {ending})"
        )

    def time_to(self, metric: str, target: float, *, below: bool = False) -> float | None:
        """Returns the simulated time of the first evaluation that reaches a target.

        Args:
          metric: a column of ``evaluations``.
          target: the value to reach.
          below: whether reaching means falling to it; set it for a loss.

        Returns:
          The time, or ``None`` if it is never reached.

        Raises:
          ValueError: if there is no such metric.
        """
        if metric not in self.evaluations:
            known = [name for name in self.evaluations if name not in ("version", "time")]
            allowed = f"one of {', '.join(known)}" if known else "absent: nothing is evaluated"
            raise ValueError(f"metric must be {allowed}; got {metric!r}")
        values = self.evaluations[metric]
        reached = values <= target if below else values >= target
        return float(self.evaluations["time"][np.argmax(reached)]) if reached.any() else None


def until_divergence(
    arrivals: Table, evaluations: Table, params_are_finite: np.ndarray
) -> tuple[Table, Table, Divergence | None]:
    """Cuts tables off where the run diverged.

    Args:
      arrivals: columns with one entry per arrival.
      evaluations: columns with one entry per evaluation.
      params_are_finite: bool ``[num_evaluations]``, whether the parameters were, at each
        evaluation.

    Returns:
      The tables until then, and where it diverged, if it did.
    """
    diverged = find_divergence(arrivals, evaluations, params_are_finite)
    if diverged is None:
        return arrivals, evaluations, None
    arrivals, evaluations = (
        {name: column[table["time"] < diverged.time] for name, column in table.items()}
        for table in (arrivals, evaluations)
    )
    return arrivals, evaluations, diverged


def find_divergence(
    arrivals: Table, evaluations: Table, params_are_finite: np.ndarray
) -> Divergence | None:
    """Returns the first loss or parameters that are not finite, the earliest in time.

    Metrics may be anything: one that is undefined says nothing of the run. A run that goes to its
    end is evaluated there, so that no parameters are missed.
    """
    found = []
    for table, finite, sign in (
        (arrivals, np.isfinite(arrivals["loss"]), "loss"),
        (evaluations, params_are_finite, "parameters"),
    ):
        if not finite.all():
            row = int(np.argmin(finite))
            found.append(Divergence(int(table["version"][row]), float(table["time"][row]), sign))
    return min(found, key=lambda divergence: divergence.time, default=None)
