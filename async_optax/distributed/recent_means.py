"""Means of losses and staleness since somebody last asked."""

import math
import threading


class RecentMeans:
    """Sums that one thread adds to and another takes.

    Example:
      >>> means = RecentMeans()
      >>> means.add(2.0, staleness=1)
      >>> means.add(4.0, staleness=3)
      >>> means.take(), means.take(), means.total_staleness
      ((3.0, 2.0), (nan, nan), 2.0)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loss = self._staleness = 0.0
        self._count = self._total_count = self._total = 0

    def add(self, loss: float, staleness: int) -> None:
        """Counts an accepted arrival."""
        with self._lock:
            self._loss += loss
            self._staleness += staleness
            self._count += 1
            self._total += staleness
            self._total_count += 1

    def take(self) -> tuple[float, float]:
        """Returns the means of loss and staleness since the last call, NaN of nothing."""
        with self._lock:
            count = self._count or math.nan
            means = self._loss / count, self._staleness / count
            self._loss = self._staleness = 0.0
            self._count = 0
            return means

    @property
    def total_staleness(self) -> float:
        """The mean staleness of all."""
        return self._total / self._total_count if self._total_count else math.nan
