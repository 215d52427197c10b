"""The timeline: a table of everything that arrives at the server."""

import dataclasses
import functools
import os
from typing import Any, ClassVar, Self

import numpy as np

from async_optax.timelines.given_staleness import staleness_columns
from async_optax.timelines.side_tables import Absences, LostJobs, MadeFor, Phases
from async_optax.timelines.storage import load_fields, save_timeline
from async_optax.timelines.traces import trace_columns
from async_optax.timelines.verification import check_columns, check_rules


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
      absences: when workers were away; ``None`` if they never are.
      made_for: what it was made for, such as rounds of gossip; ``None``: for any run on a server.
    """

    undescribed_fields: ClassVar[tuple[str, ...]] = ("made_for",)  # it only decides who may run

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
    absences: Absences | None = None
    made_for: MadeFor | None = None

    @classmethod
    def from_trace(cls, source: Any, *, size: int = 1) -> Self:
        """Makes a timeline of measured jobs: each arrives when it finishes.

        Arrival i, in the order of finishing, is accepted at weight ``1 / size``; arrivals
        ``size - 1, 2 * size - 1, ...`` commit. A job reads ``floor(n / size)``, where n jobs have
        finished at its start or before; at equal times, finishing comes first. Jobs finished
        after the last commit stay, without one.

        Args:
          source: a path, rows (worker, start, finish) or a mapping of these columns, as
            :func:`read_jobs` takes them; times in any unit.
          size: arrivals per commit, >= 1.

        Returns:
          A timeline from the earliest start, at 0, to the last finish.

        Raises:
          FileNotFoundError: if there is no such file.
          ImportError: if the file is Parquet and pyarrow is not installed.
          TypeError: if an argument is of the wrong kind.
          ValueError: if ``size`` is out of range, or the jobs are not as they should be.

        Example:
          >>> rows = [("a", 0.0, 1.0), ("b", 0.0, 2.5), ("a", 1.0, 2.0)]
          >>> timeline = Timeline.from_trace(rows)
          >>> timeline.worker, timeline.staleness
          (array([0, 0, 1], dtype=int32), array([0, 0, 2], dtype=int32))
        """
        return cls(**trace_columns(source, size), lost=LostJobs.none())

    @classmethod
    def from_staleness(cls, staleness: Any, *, column: int | str | None = None) -> Self:
        """Makes a timeline of given staleness, without a clock.

        Row i commits at time ``i + 1``, at weight 1, what was computed on version
        ``i - staleness[i]``, from the time at which that was made. The lowest worker that is free
        computes it: there are as many workers as jobs in flight at most.

        Args:
          staleness: integers, ``0 <= staleness[i] <= i``, ``[num_commits]``, such as
            :func:`uniform_staleness` draws; or a path to a CSV file with one per line, with or
            without a header.
          column: which column of the file, by its name in the header or its index from 0; it may
            be left out if there is only one.

        Returns:
          A timeline.

        Raises:
          FileNotFoundError: if there is no such file.
          TypeError: if ``staleness`` is not made of integers.
          ValueError: if there is none, or naming the first row, counted from 0, that cannot be.

        Example:
          >>> timeline = Timeline.from_staleness([0, 1, 1, 0])
          >>> timeline.read_version, timeline.worker
          (array([0, 0, 1, 3], dtype=int32), array([0, 1, 0, 0], dtype=int32))
        """
        return cls(**staleness_columns(staleness, column), lost=LostJobs.none())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Reads a timeline that :meth:`save` wrote, equal to the bit.

        Args:
          path: a ``.npz`` or ``.parquet`` file.

        Returns:
          The timeline, verified.

        Raises:
          FileNotFoundError: if there is no such file.
          ImportError: if it is Parquet and pyarrow is not installed.
          ValueError: if it is damaged, no timeline, or of another schema version.
        """
        fields = load_fields(path)
        phases, absences = fields.pop("phases"), fields.pop("absences")
        made_for = fields.pop("made_for")
        try:
            timeline = cls(
                **fields | {"lost": LostJobs(**fields["lost"])},
                phases=phases and Phases(**phases),
                absences=absences and Absences(**absences),
                made_for=made_for and MadeFor(str(made_for["kind"]), int(made_for["size"])),
            )
            timeline.verify()
        except ValueError as error:
            raise ValueError(f"{path} is not a valid timeline: {error}") from error
        return timeline

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the timeline to a file, whole or, if that fails, not at all.

        Args:
          path: ends in ``.npz`` or ``.parquet``; a file that is there is replaced.

        Raises:
          ImportError: if it is Parquet and pyarrow is not installed.
          OSError: if the file cannot be written; what was there is as it was.
          ValueError: if the ending is another.

        Example:
          >>> import pathlib, tempfile
          >>> with tempfile.TemporaryDirectory() as folder:
          ...     path = pathlib.Path(folder) / "timeline.npz"
          ...     Timeline.from_staleness([0, 1]).save(path)
          ...     Timeline.load(path)
          Timeline(2 workers, 2 arrivals, 2 commits, end_time=2)
        """
        save_timeline(self, path)

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

    def absent_time(self) -> np.ndarray:
        """Returns how long each worker was away, ``[num_workers]``."""
        if self.absences is None:
            return np.zeros(self.num_workers)
        away = self.absences.stop_time - self.absences.start_time
        return self._sum(self.absences.worker, away)

    def present_time(self) -> np.ndarray:
        """Returns how long each worker was there, ``[num_workers]``."""
        return self.end_time - self.absent_time()

    def idle_time(self) -> np.ndarray:
        """Returns the time each worker was there and waited, ``[num_workers]``."""
        return self.present_time() - self.busy_time() - self.aborted_time()

    def utilisation(self) -> np.ndarray:
        """Returns the share of its presence each worker was busy, ``[num_workers]``, in [0, 1].

        With :meth:`waiting` and :meth:`aborted` it adds up to 1, but for workers never present,
        whose shares are all 0.
        """
        return self._share(self.busy_time())

    def rejected(self) -> np.ndarray:
        """Returns the part of :meth:`utilisation` that goes into arrivals not accepted."""
        rows = ~self.accepted
        return self._share(self._sum(self.worker[rows], (self.sent_time - self.begin_time)[rows]))

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
