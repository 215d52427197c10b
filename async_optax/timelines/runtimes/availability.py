"""When workers are there: they join, fail or leave, and may return."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np


class Spans(Protocol):
    """The intervals in which each worker is there."""

    def of(self, worker: int) -> Iterator[tuple[float, float]]:
        """Yields ``(join, leave)`` in order; ``inf`` is never to leave."""


@dataclasses.dataclass(frozen=True)
class Availability:
    """When workers are there.

    Attributes:
      spans: makes the intervals of all workers from their number and a seed.
    """

    spans: Callable[[int, int], Spans]


@dataclasses.dataclass(frozen=True)
class Renewing:
    """Workers that are up and down by turns, from the start."""

    ends: Sequence[Iterator[float]]
    returns: Sequence[Iterator[float]] | None

    def of(self, worker: int) -> Iterator[tuple[float, float]]:
        """Yields ``(join, leave)`` in order."""
        join = 0.0
        while True:
            leave = join + next(self.ends[worker])
            if leave > join:  # else it was gone before the clock could tell
                yield join, leave
            if self.returns is None:
                return
            join = leave + next(self.returns[worker])


@dataclasses.dataclass(frozen=True)
class Given:
    """Intervals given for some workers; the others are always there."""

    intervals: Mapping[int, tuple[tuple[float, float], ...]]

    @classmethod
    def checked(cls, intervals: Any) -> "Given":
        """Checks and builds; see :meth:`RuntimeModel.with_availability`."""
        if not isinstance(intervals, Mapping):
            raise TypeError(f"intervals must map workers to (join, leave) pairs, got {intervals!r}")
        checked = {}
        for worker, pairs in intervals.items():
            bounds = np.asarray(pairs, float)
            if bounds.ndim != 2 or bounds.shape[1] != 2 or not len(bounds):
                raise ValueError(
                    f"intervals of worker {worker} must be (join, leave) pairs: {pairs}"
                )
            flat = bounds.ravel()
            if not (flat[0] >= 0 and np.isfinite(flat[:-1]).all() and (np.diff(flat) > 0).all()):
                raise ValueError(
                    f"intervals of worker {worker} must be disjoint, increasing and start at >= 0, "
                    f"with only the last leave infinite; got {pairs}"
                )
            checked[worker] = tuple(map(tuple, bounds.tolist()))
        return cls(checked)

    def for_workers(self, num_workers: int, seed: int) -> "Given":
        """Checks that the workers named exist."""
        del seed
        for worker in self.intervals:
            if worker not in range(num_workers):
                raise ValueError(f"intervals are given for worker {worker} of {num_workers}")
        return self

    def of(self, worker: int) -> Iterator[tuple[float, float]]:
        """Yields ``(join, leave)`` in order."""
        yield from self.intervals.get(worker, ((0.0, np.inf),))
