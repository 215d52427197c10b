"""How often workers have failed in a row, and whether that is too often."""

import time

from async_optax.distributed.limits import Limits


class Failures:
    """Counts what a worker does wrong until it does something right.

    Attributes:
      last: why somebody failed last.
      last_of: why each worker failed last.

    Args:
      num_workers: number of workers.
      limits: ``strikes`` in a row are too many; who is away for ``start`` seconds has failed.

    Example:
      >>> failures = Failures(2, Limits(strikes=2))
      >>> failures.add(0, "it sent NaN"), failures.are_too_many(0)
      ('1 of 2', False)
      >>> failures.has_worked(0)
      >>> failures.add(0, "it sent NaN"), failures.add(0, "its process ended")
      ('1 of 2', '2 of 2')
      >>> failures.are_too_many(0), failures.are_too_many(1), failures.last
      (True, False, 'its process ended')
    """

    def __init__(self, num_workers: int, limits: Limits):
        self.last = ""
        self.last_of = [""] * num_workers
        self._limits = limits
        self._in_a_row = [0] * num_workers
        self._away_since: list[float | None] = [None] * num_workers

    def add(self, worker: int, why: str) -> str:
        """Counts one, and returns how many of how many."""
        self._in_a_row[worker] += 1
        self.last = self.last_of[worker] = why
        return f"{self._in_a_row[worker]} of {self._limits.strikes}"

    def has_worked(self, worker: int) -> None:
        """Forgives a worker, for it has delivered something usable."""
        self._in_a_row[worker] = 0

    def are_too_many(self, worker: int) -> bool:
        """Whether the worker is to get no further jobs."""
        return self._in_a_row[worker] >= self._limits.strikes

    def is_away(self, worker: int, why: str) -> None:
        """Takes note that a worker cannot be reached.

        That is a failure only if it lasts: a process that is being started is away for a while.
        """
        now, since = time.monotonic(), self._away_since[worker]
        if since is None:
            self._away_since[worker] = now
        elif now - since > self._limits.start:
            self.add(worker, why)
            self._away_since[worker] = now

    def is_back(self, worker: int) -> None:
        """Takes note that a worker can be reached."""
        self._away_since[worker] = None
