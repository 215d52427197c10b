"""Drifting speeds: piecewise constant functions of time, and when a piece of work is done."""

import bisect
import dataclasses
from collections.abc import Sequence

import numpy as np

from async_optax.validation import require_number


@dataclasses.dataclass(frozen=True)
class Speeds:
    """Speed of each machine over time.

    Attributes:
      times: starts of the pieces, the first 0.
      rows: speeds per piece; one row for all workers or one per worker.
      period: with which they repeat, or ``None``.
    """

    times: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]
    period: float | None

    @classmethod
    def make(
        cls,
        times: Sequence[float],
        speeds: Sequence[float] | Sequence[Sequence[float]],
        period: float | None,
    ) -> "Speeds":
        """Checks and builds; see :meth:`RuntimeModel.with_speeds`."""
        starts, rows = np.asarray(times, float), np.asarray(speeds, float)
        require_number("times", starts, at_least=0, scalar=False)
        require_number("speeds", rows, above=0, scalar=False)
        if starts.ndim != 1 or not len(starts) or starts[0] != 0 or (np.diff(starts) <= 0).any():
            raise ValueError(f"times must start at 0 and increase, got {times}")
        if rows.ndim not in (1, 2) or rows.shape[-1] != len(starts):
            raise ValueError(
                f"speeds must be {len(starts)} numbers, as many as times, or one such row per "
                f"worker; got shape {rows.shape}"
            )
        if period is not None:
            require_number("period", period, above=float(starts[-1]))
        return cls(tuple(starts.tolist()), tuple(map(tuple, np.atleast_2d(rows).tolist())), period)

    @property
    def name(self) -> str:
        """How they were made, for tables."""
        period = "" if self.period is None else f", period={self.period:g}"
        return f"{len(self.times)} pieces{period}"

    def check(self, num_workers: int) -> None:
        """Raises ``ValueError`` if there is not one row for all, or one per worker."""
        if len(self.rows) not in (1, num_workers):
            raise ValueError(f"speeds has {len(self.rows)} rows for {num_workers} workers")

    def finish(self, worker: int, start: float, work: float) -> float:
        """Returns when ``work``, begun at ``start``, is done: the integral of the speed is work."""
        speeds = self.rows[worker if len(self.rows) > 1 else 0]
        times, period = self.times, self.period
        offset = 0.0
        if period is not None:
            offset = period * (start // period)
            ends = (*times[1:], period)
            per_period = sum(
                speed * (end - begin) for speed, begin, end in zip(speeds, times, ends, strict=True)
            )
            # Whole periods at once; the rest, less than two of them, piece by piece.
            skipped = work // per_period
            work -= skipped * per_period
            offset += skipped * period
            start += skipped * period
        piece = bisect.bisect_right(times, start - offset) - 1
        while True:
            last = piece == len(times) - 1
            length = (np.inf if period is None else period) if last else times[piece + 1]
            end = offset + length
            done = speeds[piece] * (end - start)
            if done >= work:
                return float(start + work / speeds[piece])
            work, start = work - done, end
            piece, offset = (0, end) if last else (piece + 1, offset)
