"""Commits per second, between one status and the next."""

import math

from async_optax.distributed.messages import Status


class CommitRate:
    """Commits per second since the status before; NaN for the first, and of a new server."""

    def __init__(self) -> None:
        self._last: tuple[int, int, float] | None = None

    def __call__(self, status: Status) -> float:
        """Returns the rate at this status."""
        now = status.epoch, status.version, status.time
        last, self._last = self._last, now
        if last is None or last[0] != now[0] or now[2] <= last[2]:
            return math.nan
        return (now[1] - last[1]) / (now[2] - last[2])
