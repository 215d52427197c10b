"""The timeline: a table of everything that arrives at the server."""

import dataclasses
import enum
import functools

import numpy as np

from async_optax.timelines.verification import check_columns, check_rules


class Reason(enum.IntEnum):
    """Why a job never arrives."""

    UNFINISHED = 0
    """It is still running when the timeline ends."""
    ABORTED = 1
    """The protocol threw it away."""
    EXPIRED = 2
    """It exceeded the protocol's time limit."""
    FAILED = 3
    """Its worker failed or left."""


@dataclasses.dataclass(frozen=True, eq=False)
class LostJobs:
    """Jobs that never arrive.

    Attributes:
      worker: int32 ``[num_lost]``.
      start_time: float64 ``[num_lost]``, when the worker began; equal to ``stop_time`` if it
        never did, as the job waited in its queue.
      stop_time: float64 ``[num_lost]``, when it was lost or the timeline ended.
      reason: int8 ``[num_lost]``, a :class:`Reason`.
    """

    worker: np.ndarray
    start_time: np.ndarray
    stop_time: np.ndarray
    reason: np.ndarray

    @property
    def aborted(self) -> np.ndarray:
        """Bool ``[num_lost]``: lost before the timeline's end, for whatever reason."""
        return self.reason != Reason.UNFINISHED


@dataclasses.dataclass(frozen=True, eq=False)
class Phases:
    """When each arrival's job was where, float64 ``[num_arrivals]`` each, in this order.

    Attributes:
      begin: the worker takes it up and downloads; ``start_time`` unless it waited in a queue.
      compute: the computation starts.
      upload: the computation ends and the upload starts.
      sent: the upload ends; then it waits for the server until ``time``.
    """

    begin: np.ndarray
    compute: np.ndarray
    upload: np.ndarray
    sent: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Timeline:
    """All arrivals, in their order, one row each. It never depends on parameter values.

    A row that is not accepted may still commit: then it is no arrival, but the moment at which the
    server learns that a job is lost, and commits what it has gathered without it.

    Attributes:
      num_workers: number of workers.
      end_time: simulated time at which the timeline stops.
      worker: int32 ``[num_arrivals]``, who delivers.
      read_version: int32, the version the job was computed on.
      version: int32, the server's version before this arrival.
      start_time: float64, when the job was handed out: it reads the version of that time.
      time: float64, when it arrived.
      weight: float64, its share in its commit.
      accepted: bool, whether its gradient is used.
      commit: bool, whether the server commits on it.
      lost: jobs that never arrive, for the accounting.
      phases: when jobs were where; ``None`` if all compute from ``start_time`` to ``time``.
      token: int32, when the job was due to be handed out in an ideal order, in versions; ``None``
        under protocols without tokens.
      absent_time: float64 ``[num_workers]``, how long each worker was away; ``None`` is never.
    """

    num_workers: int
    end_time: float
    worker: np.ndarray
    read_version: np.ndarray
    version: np.ndarray
    start_time: np.ndarray
    time: np.ndarray
    weight: np.ndarray
    accepted: np.ndarray
    commit: np.ndarray
    lost: LostJobs
    phases: Phases | None = None
    token: np.ndarray | None = None
    absent_time: np.ndarray | None = None

    def __repr__(self) -> str:
        return (
            f"Timeline({self.num_workers} workers, {self.num_arrivals} arrivals, "
            f"{self.num_commits} commits, end_time={self.end_time:g})"
        )

    @property
    def num_arrivals(self) -> int:
        """Number of rows."""
        return len(self.worker)

    @property
    def num_commits(self) -> int:
        """Number of versions made."""
        return int(np.count_nonzero(self.commit))

    @functools.cached_property
    def staleness(self) -> np.ndarray:
        """int32 ``[num_arrivals]``: version at arrival minus version read."""
        return self.version - self.read_version

    @property
    def data_staleness(self) -> np.ndarray:
        """int32 ``[num_arrivals]``: version at arrival minus the job's token.

        Raises:
          ValueError: if the protocol issued no tokens.
        """
        if self.token is None:
            raise ValueError("the timeline has no tokens: only protocols.token_control issues them")
        return self.version - self.token

    @property
    def commit_times(self) -> np.ndarray:
        """float64 ``[num_commits]``: when version 1, 2, ... was made."""
        return self.time[self.commit]

    @property
    def begin_time(self) -> np.ndarray:
        """float64 ``[num_arrivals]``: when the worker took the job up."""
        return self.start_time if self.phases is None else self.phases.begin

    @property
    def sent_time(self) -> np.ndarray:
        """float64 ``[num_arrivals]``: when the worker had sent the result."""
        return self.time if self.phases is None else self.phases.sent

    def busy_time(self) -> np.ndarray:
        """Returns the time each worker spent on jobs that are not lost, ``[num_workers]``."""
        unfinished = ~self.lost.aborted
        return self._sum(self.worker, self.sent_time - self.begin_time) + self._sum(
            self.lost.worker[unfinished], self._lost_time()[unfinished]
        )

    def aborted_time(self) -> np.ndarray:
        """Returns the time each worker spent on jobs that were lost, ``[num_workers]``."""
        aborted = self.lost.aborted
        return self._sum(self.lost.worker[aborted], self._lost_time()[aborted])

    def present_time(self) -> np.ndarray:
        """Returns how long each worker was there, ``[num_workers]``."""
        absent = 0.0 if self.absent_time is None else self.absent_time
        return np.full(self.num_workers, self.end_time) - absent

    def idle_time(self) -> np.ndarray:
        """Returns the time each worker was there and waited, ``[num_workers]``."""
        return self.present_time() - self.busy_time() - self.aborted_time()

    def utilisation(self) -> np.ndarray:
        """Returns the share of its presence each worker was busy, ``[num_workers]``, in [0, 1].

        With :meth:`waiting` and :meth:`aborted` it adds up to 1, but for workers never present,
        whose shares are all 0.
        """
        return self._share(self.busy_time())

    def waiting(self) -> np.ndarray:
        """Returns the share of its presence each worker waited, ``[num_workers]``."""
        return self._share(self.idle_time())

    def aborted(self) -> np.ndarray:
        """Returns the share of its presence each worker spent on lost jobs, ``[num_workers]``."""
        return self._share(self.aborted_time())

    def throughput(self) -> float:
        """Returns the accepted arrivals per unit of simulated time."""
        return float(np.count_nonzero(self.accepted) / self.end_time)

    def verify(self) -> None:
        """Checks the invariants of a timeline.

        Raises:
          ValueError: naming the first row that breaks one, and which.
        """
        check_columns(self)
        check_rules(self)

    def _lost_time(self) -> np.ndarray:
        return self.lost.stop_time - self.lost.start_time

    def _sum(self, workers: np.ndarray, times: np.ndarray) -> np.ndarray:
        return np.bincount(workers, times, minlength=self.num_workers)

    def _share(self, time: np.ndarray) -> np.ndarray:
        present = self.present_time()
        return np.divide(time, present, out=np.zeros_like(present), where=present > 0)
