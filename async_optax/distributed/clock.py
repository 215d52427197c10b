"""The run's clock: seconds that the run has been going on, for all its servers."""

import time


class Clock:
    """Seconds that the run has been going on.

    It stands still while no server runs: a server that takes over goes on from the last event that
    is kept, so that a run cut off for a day is not a day longer. No two events have the same time.

    Args:
      elapsed: time of the last event of the server before, in seconds, >= 0.

    Example:
      >>> clock = Clock()
      >>> clock.now() < clock.now()
      True
      >>> 100.0 < Clock(elapsed=100.0).now() < 101.0
      True
    """

    _STEP = 1e-7  # seconds; a float64 tells them apart for more than ten years

    def __init__(self, elapsed: float = 0.0):
        self._zero = time.monotonic() - elapsed
        self._last = elapsed

    def peek(self) -> float:
        """Returns the time, which other events may have too."""
        return max(time.monotonic() - self._zero, self._last)

    def now(self) -> float:
        """Returns the time of an event, later than all before."""
        self._last = max(time.monotonic() - self._zero, self._last + self._STEP)
        return self._last

    def phases(
        self, begin: float, sent: float, began: float, ended: float, same_clock: bool
    ) -> tuple[float, float]:
        """Returns when a job was computing: from when to when, within ``begin`` and ``sent``.

        Args:
          begin: when it was sent to the worker.
          sent: when its result was there.
          began: when computing began, on the clock of the worker's machine, and
          ended: when it ended.
          same_clock: whether that is this machine's. If not, only the duration tells something:
            what remains is split evenly between download and upload.
        """
        if same_clock:
            compute = min(max(began - self._zero, begin), sent)
            return compute, min(max(ended - self._zero, compute), sent)
        computing = min(max(ended - began, 0.0), sent - begin)
        compute = begin + (sent - begin - computing) / 2
        return compute, min(compute + computing, sent)
