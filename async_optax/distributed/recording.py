"""What a real run has recorded: its timeline, the number of every job, and what went wrong."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from async_optax.distributed.recorded_jobs import RecordedJobs
from async_optax.distributed.trace_file import EPOCH, Event, read_events
from async_optax.distributed.trace_header import checked_header, saved_key
from async_optax.engine.worker import WorkerProgram
from async_optax.timelines import Timeline
from async_optax.timelines.side_tables import Absences, LostJobs, Phases
from async_optax.validation import first_line

TRACE_NAME = "trace.jsonl"
_NO_JOB = -1
_INTEGERS = ("worker", "read_version", "version")
_TIMES = ("start_time", "time", "weight")
_MOMENTS = ("begin", "compute", "upload", "sent")


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
    """A trace, read.

    Attributes:
      timeline: all arrivals, as they were decided. Times are seconds since the start of the run.
        The phases are the workers' clocks where a worker shares the server's machine; elsewhere
        what was not computing is split evenly between download and upload.
      job: int32 ``[num_arrivals]``, the number of each arrival's job, which seeds its randomness;
        -1 in a row that commits without an arrival.
      fresh: bool ``[num_arrivals]``, whether the worker's state began anew in this job.
      loss: float64 ``[num_arrivals]``, as the worker computed it; NaN without one.
      evaluations: columns ``version``, ``time`` and the metrics, of the evaluations made.
      header: what the run was: ``num_workers``, ``protocol``, ``key``, ``note`` and the like.
      num_epochs: servers that have run, one after another.
      incidents: lost workers, strikes and quarantines in words, in their order.

    Example:
      >>> Recording.load("no/such/folder")
      Traceback (most recent call last):
      ...
      FileNotFoundError: there is no trace no/such/folder/trace.jsonl
    """

    timeline: Timeline
    job: np.ndarray
    fresh: np.ndarray
    loss: np.ndarray
    evaluations: Mapping[str, np.ndarray]
    header: Mapping[str, Any]
    num_epochs: int
    incidents: tuple[str, ...]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Reads the trace of a run, finished or not.

        Args:
          path: the folder of the run, or the trace itself. It is text: nothing is unpickled.

        Returns:
          The recording, its timeline verified.

        Raises:
          FileNotFoundError: if there is none.
          ValueError: if it is damaged, or nothing has arrived yet.
        """
        file = pathlib.Path(path)
        if file.suffix != pathlib.Path(TRACE_NAME).suffix:
            file = file / TRACE_NAME
        if not file.is_file():
            raise FileNotFoundError(f"there is no trace {file}")
        events = read_events(file)
        try:
            return cls(**_fields(events))
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__} "
            reason = f"{kind}{first_line(error)}"
            raise ValueError(f"{file} is not a valid trace: {reason}") from error

    @property
    def num_workers(self) -> int:
        """Number of workers."""
        return self.timeline.num_workers

    def key(self) -> jax.Array:
        """Returns the key of the run."""
        return saved_key(self.header["key"])

    def worker_program(self, program: WorkerProgram, key: jax.Array) -> RecordedJobs:
        """Returns the program with which the simulation gives each job the number it really had.

        Args:
          program: the run's worker program, such as ``ao.gradient()``.
          key: the run's key.
        """
        arrived = self.timeline.accepted
        numbers: list[list[int]] = [[] for _ in range(self.num_workers)]
        fresh: list[list[bool]] = [[] for _ in range(self.num_workers)]
        rows = self.timeline.worker[arrived], self.job[arrived], self.fresh[arrived]
        for worker, job, anew in zip(*(column.tolist() for column in rows), strict=True):
            numbers[worker].append(job)
            fresh[worker].append(anew)
        # Padded, so that runs of about equal length share a compiled program.
        most = 1 << max(map(len, numbers)).bit_length()
        table = np.full((self.num_workers, most), _NO_JOB, np.int32)
        anew_table = np.zeros(table.shape, bool)
        for worker in range(self.num_workers):
            table[worker, : len(numbers[worker])] = numbers[worker]
            anew_table[worker, : len(fresh[worker])] = fresh[worker]
        job_key = jax.random.split(key)[1]
        return RecordedJobs(program, job_key, jnp.asarray(table), jnp.asarray(anew_table))

    def job_times(self) -> dict[int, np.ndarray]:
        """Returns how long each worker's jobs took, from being sent to the result, in seconds.

        They are samples for :func:`async_optax.runtimes.empirical`. Only jobs that arrived are
        known: under a protocol that aborts (``ringmaster(stop=True)``, ``rennala``,
        ``mindflayer``) or limits times they are biased to the short ones.
        """
        rows = self.job != _NO_JOB
        times = (self.timeline.sent_time - self.timeline.begin_time)[rows]
        worker = self.timeline.worker[rows]
        return {k: times[worker == k] for k in range(self.num_workers) if (worker == k).any()}

    def measured_jobs(self) -> list[tuple[int, float, float]]:
        """Returns rows (worker, start, finish) for :meth:`async_optax.Timeline.from_trace`.

        Under a protocol that commits every ``size`` arrivals whatever happens (``asynchronous()``,
        ``buffered(size)``), ``Timeline.from_trace(rows, size=size)`` has the arrivals, versions
        and staleness of :attr:`timeline`.
        """
        rows = self.job != _NO_JOB
        columns = self.timeline.worker, self.timeline.start_time, self.timeline.time
        return list(zip(*(column[rows].tolist() for column in columns), strict=True))


def _fields(events: Sequence[Event]) -> dict[str, Any]:
    header = checked_header(events[0].fields)
    num_workers = header["num_workers"]
    rows: dict[str, list[Any]] = {
        name: [] for name in (*_INTEGERS, *_TIMES, *_MOMENTS, "accepted", "commit")
    }
    extra: dict[str, list[Any]] = {"job": [], "fresh": [], "loss": [], "token": []}
    lost: dict[str, list[Any]] = {"worker": [], "start_time": [], "stop_time": [], "reason": []}
    absences: list[tuple[int, float, float]] = []
    away = dict.fromkeys(range(num_workers), 0.0)  # and since when
    evaluations: list[dict[str, float]] = []
    incidents: list[str] = []
    now, num_epochs = 0.0, 0
    for event in events[1:]:
        fields, last = event.fields, now
        now = max(now, fields.get("time", now))
        match event.kind:
            case "arrival":
                for name, column in (*rows.items(), *extra.items()):
                    column.append(fields.get(name, _NO_JOB) if name == "token" else fields[name])
            case "commit":
                version = fields["version"]
                row = dict.fromkeys(("start_time", "time", *_MOMENTS), now)
                row |= {"worker": fields["worker"], "read_version": version, "version": version}
                row |= {"weight": 0.0, "accepted": False, "commit": True}
                row |= {"job": _NO_JOB, "fresh": False, "loss": np.nan, "token": version}
                for name, column in (*rows.items(), *extra.items()):
                    column.append(row[name])
            case "lost":
                lost["worker"].append(fields["worker"])
                lost["start_time"].append(fields["begin"])
                lost["stop_time"].append(fields["stop"])
                lost["reason"].append(fields["reason"])
            case "leave":
                away[fields["worker"]] = now
                incidents.append(f"{now:.3f} s: worker {fields['worker']} left: {fields['why']}")
            case "join":
                absences.append((fields["worker"], away.pop(fields["worker"]), now))
            case "strike" | "quarantine":
                why = f": {fields['why']}" if "why" in fields else ""
                incidents.append(f"{now:.3f} s: worker {fields['worker']}, {event.kind}{why}")
            case "evaluation":
                row = {"version": fields["version"], "time": now}
                evaluations.append(row | fields["metrics"])
            case _ if event.kind == EPOCH:
                num_epochs = fields["number"]
                for worker in range(num_workers):
                    away.setdefault(worker, last)
                if num_epochs > 1:
                    kept = sum(rows["commit"])
                    incidents.append(f"{now:.3f} s: server {num_epochs} went on from commit {kept}")
    absences += [(worker, since, now) for worker, since in away.items()]
    absences = [span for span in absences if span[1] < span[2]]
    if not rows["time"]:
        raise ValueError("nothing has arrived yet")
    columns: dict[str, Any] = {name: np.array(rows[name], np.int32) for name in _INTEGERS}
    columns |= {name: np.array(rows[name], np.float64) for name in _TIMES}
    columns |= {name: np.array(rows[name], bool) for name in ("accepted", "commit")}
    tokens = np.array(extra["token"], np.int32)
    timeline = Timeline(
        num_workers=num_workers,
        end_time=now,
        **columns,
        lost=LostJobs(
            np.array(lost["worker"], np.int32),
            np.array(lost["start_time"], np.float64),
            np.array(lost["stop_time"], np.float64),
            np.array(lost["reason"], np.int8),
        ),
        phases=Phases(**{name: np.array(rows[name], np.float64) for name in _MOMENTS}),
        token=tokens if header.get("issues_tokens") else None,
        absences=_absences(absences) if absences else None,
    )
    timeline.verify()
    first = evaluations[0] if evaluations else {}
    names = ["version", "time", *sorted(first.keys() - {"version", "time"})]
    return {
        "timeline": timeline,
        "job": np.array(extra["job"], np.int32),
        "fresh": np.array(extra["fresh"], bool),
        "loss": np.array(extra["loss"], np.float64),
        "evaluations": {name: np.array([row[name] for row in evaluations]) for name in names},
        "header": header,
        "num_epochs": num_epochs,
        "incidents": tuple(incidents),
    }


def _absences(spans: Sequence[tuple[int, float, float]]) -> Absences:
    workers, starts, stops = zip(*spans, strict=True)
    return Absences(np.array(workers, np.int32), np.array(starts), np.array(stops))
