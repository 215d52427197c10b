"""What a real run puts up with before it calls something broken."""

import dataclasses

from async_optax.validation import require_count, require_number


@dataclasses.dataclass(frozen=True)
class Limits:
    """Time limits in seconds, and how often something may fail.

    Nothing that a run waits for is waited for without end: what exceeds its limit is a lost job, a
    restart or an error that says what was waited for.

    Attributes:
      job: from sending a job to its result, > 0; a worker that takes longer is killed, and its job
        lost.
      start: for a worker process to start, import and compile, > 0.
      store: for the object store to hand out one object that is ready, > 0.
      server: without a sign of life of the server's loop before the run fails, > 0.
      stop: for an interrupted run to come to its next commit and save, > 0.
      strikes: how often in a row a worker may fail until it is in quarantine and gets no further
        job, >= 1. It fails by an unusable result (an exception, a wrong shape, NaN or infinity), by
        the end of its process, by a job or a start beyond its limit; a usable result makes up for
        all failures before.
      server_restarts: how often a killed server is started again from its checkpoint, >= 0.

    Example:
      >>> Limits(job=30.0).strikes
      3
      >>> Limits(job=0)
      Traceback (most recent call last):
      ...
      ValueError: limits.job must be a finite number > 0, got 0
    """

    job: float = 300.0
    start: float = 120.0
    store: float = 60.0
    server: float = 120.0
    stop: float = 10.0
    strikes: int = 3
    server_restarts: int = 10

    def __post_init__(self) -> None:
        for name in ("job", "start", "store", "server", "stop"):
            require_number(f"limits.{name}", getattr(self, name), above=0)
        require_count("limits.strikes", self.strikes)
        require_count("limits.server_restarts", self.server_restarts, at_least=0)
