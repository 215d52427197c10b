"""The timeline: a table of everything that arrives at the server."""

import dataclasses
import functools

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class LostJobs:
    """Jobs that never arrive: aborted, or still running when the timeline ends.

    Attributes:
      worker: int32 ``[num_lost]``.
      start_time: float64 ``[num_lost]``.
      stop_time: float64 ``[num_lost]``, when it was aborted or the timeline ended.
      aborted: bool ``[num_lost]``; ``False`` if still running.
    """

    worker: np.ndarray
    start_time: np.ndarray
    stop_time: np.ndarray
    aborted: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Timeline:
    """All arrivals, in their order, one row each. It never depends on parameter values.

    Attributes:
      num_workers: number of workers.
      end_time: simulated time at which the timeline stops.
      worker: int32 ``[num_arrivals]``, who delivers.
      read_version: int32, the version the job was computed on.
      version: int32, the server's version before this arrival.
      start_time: float64, when the job started.
      time: float64, when it arrived.
      weight: float64, its share in its commit.
      accepted: bool, whether its gradient is used.
      commit: bool, whether the server commits on it.
      lost: jobs that never arrive, for the accounting.
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
    def commit_times(self) -> np.ndarray:
        """float64 ``[num_commits]``: when version 1, 2, ... was made."""
        return self.time[self.commit]

    def busy_time(self) -> np.ndarray:
        """Returns the time each worker computed, lost jobs included, ``[num_workers]``."""
        busy = np.zeros(self.num_workers)
        np.add.at(busy, self.worker, self.time - self.start_time)
        np.add.at(busy, self.lost.worker, self.lost.stop_time - self.lost.start_time)
        return busy

    def utilisation(self) -> np.ndarray:
        """Returns the share of the time each worker computed, ``[num_workers]``, in [0, 1]."""
        return self.busy_time() / self.end_time

    def idle_time(self) -> np.ndarray:
        """Returns the time each worker waited, ``[num_workers]``."""
        return self.end_time - self.busy_time()

    def throughput(self) -> float:
        """Returns the accepted arrivals per unit of simulated time."""
        return float(np.count_nonzero(self.accepted) / self.end_time)

    def verify(self) -> None:
        """Checks the invariants of a timeline.

        Raises:
          ValueError: naming the first row that breaks one, and which.
        """
        kinds = {"worker": "i", "read_version": "i", "version": "i", "start_time": "f"}
        kinds |= {"time": "f", "weight": "f", "accepted": "b", "commit": "b"}
        for name, kind in kinds.items():
            column = getattr(self, name)
            if column.shape != self.commit.shape:
                raise ValueError(f"timeline column {name} is not as long as commit")
            if column.dtype.kind != kind:
                raise ValueError(f"timeline column {name} has the wrong dtype {column.dtype}")
        before = np.concatenate([[0], np.cumsum(self.commit)[:-1]])
        commit_times = self.commit_times
        rules = {
            "worker is in [0, num_workers)": (self.worker >= 0) & (self.worker < self.num_workers),
            "version counts the commits before": self.version == before,
            "read_version is between 0 and version": (self.read_version >= 0)
            & (self.read_version <= self.version),
            "time does not decrease": np.diff(self.time, prepend=-np.inf) >= 0,
            "a job starts before it arrives": (self.start_time >= 0)
            & (self.start_time <= self.time),
            "time is within end_time": self.time <= self.end_time,
            "weight is finite and >= 0": ~self.accepted
            | (np.isfinite(self.weight) & (self.weight >= 0)),
            "a commit accepts its arrival": ~self.commit | self.accepted,
            # A job may start at the very time of a commit, before it or after it.
            "read_version is current at start_time": (
                self.read_version >= np.searchsorted(commit_times, self.start_time, side="left")
            )
            & (self.read_version <= np.searchsorted(commit_times, self.start_time, side="right")),
            "jobs of a worker do not overlap": self._starts_after_previous(),
        }
        broken = [(int(np.argmin(holds)), rule) for rule, holds in rules.items() if not holds.all()]
        if broken:
            row, rule = min(broken)
            raise ValueError(f"timeline row {row} breaks the rule: {rule}")

    def _starts_after_previous(self) -> np.ndarray:
        order = np.lexsort((np.arange(self.num_arrivals), self.worker))
        same = self.worker[order][1:] == self.worker[order][:-1]
        overlaps = self.start_time[order][1:] < self.time[order][:-1]
        holds = np.ones(self.num_arrivals, bool)
        holds[order[1:]] = ~(same & overlaps)
        return holds
