"""The run's clock: seconds since the start of the run, for all its servers."""

import time


class Clock:
    """Seconds since the start of the run.

    A server that takes over goes on where the wall clock is; within one server's life the clock is
    monotonic, and no two events have the same time.

    Args:
      started: wall time at which the run started, ``time.time()``.
      at_least: that of the last event before.

    Example:
      >>> clock = Clock(started=time.time())
      >>> clock.now() < clock.now()
      True
      >>> Clock(started=time.time(), at_least=100.0).now() > 100.0
      True
    """

    _STEP = 1e-7  # seconds; a float64 tells them apart for more than ten years

    def __init__(self, started: float, at_least: float = 0.0):
        elapsed = max(time.time() - started, at_least)
        self._zero = time.monotonic() - elapsed
        self._last = at_least

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
