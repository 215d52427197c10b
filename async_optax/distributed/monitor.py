"""What a server tells of itself while it works: one thread writes, another asks."""

import os
import time

from async_optax.distributed.messages import Status
from async_optax.distributed.recent_means import RecentMeans


class Monitor:
    """The latest of a run.

    Attributes:
      version: commits so far.
      durable_version: those that are in a checkpoint.
      num_arrivals: arrivals so far.
      time: seconds since the start of the run.
      workers_up: workers that are there.
      quarantined: workers that get no further jobs.
      metrics: of the latest evaluation.
      pids: of the worker processes.

    Args:
      epoch: which server this is.
      num_workers: number of workers.
    """

    def __init__(self, epoch: int, num_workers: int):
        self.version = self.durable_version = self.num_arrivals = self.workers_up = 0
        self.time = 0.0
        self.quarantined: set[int] = set()
        self.metrics: dict[str, float] = {}
        self.pids = [0] * num_workers
        self._epoch = epoch
        self._means = RecentMeans()
        self._messages: list[str] = []
        self._phase, self._since = "starting", time.monotonic()

    def enter(self, phase: str) -> None:
        """The loop begins something that may take long."""
        self._phase, self._since = phase, time.monotonic()

    def say(self, message: str) -> None:
        """Adds a log line."""
        self._messages.append(f"{self.time:.3f} s: {message}")

    def accepted(self, loss: float, staleness: int) -> None:
        """Counts an accepted arrival."""
        self._means.add(loss, staleness)

    def status(self) -> Status:
        """Returns how the run is doing; messages and recent means are told once."""
        messages, self._messages = self._messages, []
        loss, staleness = self._means.take()
        return Status(
            epoch=self._epoch,
            version=self.version,
            durable_version=self.durable_version,
            num_arrivals=self.num_arrivals,
            time=self.time,
            loss=loss,
            staleness=staleness,
            total_staleness=self._means.total_staleness,
            workers_up=self.workers_up,
            num_workers=len(self.pids),
            quarantined=tuple(sorted(self.quarantined)),
            phase=self._phase,
            silent_for=time.monotonic() - self._since,
            metrics=dict(self.metrics),
            pids=tuple(self.pids),
            server_pid=os.getpid(),
            messages=tuple(messages),
        )
