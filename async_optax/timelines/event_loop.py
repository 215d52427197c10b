"""The event loop: handles what happens on workers and server in the order of time."""

import collections
import itertools
from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush

import numpy as np

from async_optax.timelines.protocols.policy import Decision, Policy
from async_optax.timelines.rows import Rows
from async_optax.timelines.runtimes.model import RuntimeModel
from async_optax.timelines.runtimes.streams import COMPUTE, DOWNLOAD, SERVER, UPLOAD
from async_optax.timelines.side_tables import Absences, LostJobs, Phases, Reason
from async_optax.timelines.timeline import Timeline

# Kinds of events. At equal times the lower kind comes first: who delivers just when it fails, or
# just at its time limit, has delivered; who leaves and returns at once has left first.
_ARRIVAL, _SENT, _TIMEOUT, _LEAVE, _JOIN = range(5)
# A job: order, read version, start, begin, compute, upload and sent times.
_Job = tuple[int, int, float, float, float, float, float]
_IDLE: _Job = (-1, 0, 0.0, 0.0, 0.0, 0.0, 0.0)
_FRUITLESS_EVENTS, _FRUITLESS_PER_WORKER = 10_000, 100  # without an arrival that counts: a stall


class EventLoop:
    """One run of a policy on workers with given times; see :func:`simulate_timeline`.

    Args:
      name: of the protocol, for errors.
      policy: a fresh one.
      model: how long what takes.
      num_workers: number of workers.
      seed: of the times.
    """

    def __init__(self, name: str, policy: Policy, model: RuntimeModel, num_workers: int, seed: int):
        self._name, self._policy, self._num_workers = name, policy, num_workers
        parts = [
            _times(law, num_workers, seed, part)
            for law, part in ((model.download, DOWNLOAD), (model, COMPUTE), (model.upload, UPLOAD))
        ]
        # Of each worker's next job.
        self._compute = [times.__next__ for times in parts[1]]
        self._parts = [times.__next__ for times in map(zip, *parts)]
        self._serve = _times(model.server, 1, seed, SERVER)[0].__next__
        self._serves = model.server is not None
        self._server_free = 0.0
        self._speeds = model.speeds
        if model.speeds:
            model.speeds.check(num_workers)
        spans = model.availability.spans(num_workers, seed) if model.availability else None
        self._spans: list[Iterator[tuple[float, float]]] = (
            [spans.of(worker) for worker in range(num_workers)] if spans else []
        )
        self._limits = policy.time_limits

        # Each worker has at most one job in flight, and further ones in its queue. A job is
        # known by its order of starting: events of jobs that are gone name another order.
        self._order = 0
        self._jobs = [_IDLE] * num_workers
        self._only_computes = model.only_computes and policy.time_limits is None
        self._staged = bool(
            model.download or model.upload or model.server or policy.queues or policy.holds
        )
        self._queues: list[collections.deque[tuple[int, float]]] = [
            collections.deque() for _ in range(num_workers if policy.queues else 0)
        ]
        self._present = [True] * num_workers
        self._away_since = [0.0] * num_workers
        self._absences = Rows(["worker", "start_time", "stop_time"])

        self._events: list[tuple[float, int, int, int]] = []  # time, kind, order, worker
        self._max_events = 4 * num_workers + 64
        self._max_fruitless = _FRUITLESS_EVENTS + _FRUITLESS_PER_WORKER * num_workers
        self._time, self._version, self._fruitless = 0.0, 0, 0
        self._num_commits: int | None = None
        names = ["worker", "read_version", "version", "start_time", "time", "weight"]
        names += ["accepted", "commit"]
        names += ["begin", "compute", "upload", "sent"] * self._staged
        names += ["token"] * policy.issues_tokens
        self._issues_tokens = policy.issues_tokens
        self._rows = Rows(names)
        self._add_row = self._rows.append
        self._lost = Rows(["worker", "start_time", "stop_time", "reason"])

    def run(self, num_commits: int | None, max_time: float) -> Timeline:
        """Runs until that many commits, or that time, and returns the table."""
        self._num_commits = num_commits
        self._begin()
        events, jobs = self._events, self._jobs
        while events and events[0][0] <= max_time:
            time, kind, order, worker = heappop(events)
            if kind <= _TIMEOUT and jobs[worker][0] != order:
                continue  # of a job that is gone
            self._time = time
            if kind == _ARRIVAL:
                released = self._arrive(worker)
                if released:
                    self._release(released)
            elif kind == _SENT:
                self._server_free = max(time, self._server_free) + self._serve()
                heappush(events, (self._server_free, _ARRIVAL, order, worker))
            elif kind == _TIMEOUT:
                self._lose(worker, Reason.EXPIRED)
                self._follow(worker, self._policy.on_timeout(worker, time))
            elif kind == _LEAVE:
                self._leave(worker)
            else:
                self._join(worker)
            if self._version == num_commits:
                break
        self._check_end(num_commits, max_time)
        return self._table(self._time if num_commits else max_time)

    def _begin(self) -> None:
        """Time 0: those who are there start, the others' coming is planned."""
        for worker in range(len(self._spans)):
            self._present[worker] = False
            self._plan_presence(worker)
        present = [worker for worker, there in enumerate(self._present) if there]
        self._start(self._policy.begin(present, {}, 0))

    def _plan_presence(self, worker: int) -> None:
        """Puts the next time at which it is there on the calendar."""
        join, leave = next(self._spans[worker], (np.inf, np.inf))
        if join <= self._time == 0:
            self._present[worker] = True
        elif join < np.inf:
            self._push(join, _JOIN, worker)
        if leave < np.inf:
            self._push(leave, _LEAVE, worker)

    def _push(self, time: float, kind: int, worker: int) -> None:
        heappush(self._events, (time, kind, self._order, worker))
        self._order += 1

    def _start(self, workers: Sequence[int]) -> None:
        """Hands out one job each, on the current version."""
        for worker in workers:
            if not 0 <= worker < self._num_workers:
                raise ValueError(f"{self._name} starts worker {worker} of {self._num_workers}")
            if self._jobs[worker] is _IDLE:
                if not self._present[worker]:
                    raise ValueError(f"{self._name} starts worker {worker}, which is away")
                self._launch(worker, self._version, self._time)
            elif self._queues:
                self._queues[worker].append((self._version, self._time))
            else:
                raise ValueError(f"{self._name} starts worker {worker}, which is still computing")

    def _launch(self, worker: int, read_version: int, start: float) -> None:
        """The worker takes a job up."""
        begin, kind, order = self._time, _ARRIVAL, self._order
        self._order = order + 1
        if self._only_computes:
            arrives = begin + self._compute[worker]()
            self._jobs[worker] = order, read_version, start, begin, begin, arrives, arrives
        else:
            job = order, read_version, start, begin, *self._stages(worker, begin)
            self._jobs[worker] = job
            arrives = job[-1]
            if self._serves:
                kind = _SENT
        if self._limits and arrives > begin + self._limits[worker]:
            arrives, kind = begin + self._limits[worker], _TIMEOUT
        heappush(self._events, (arrives, kind, order, worker))

    def _stages(self, worker: int, begin: float) -> tuple[float, float, float]:
        """Returns when a job computes, uploads and is sent."""
        download, work, upload = self._parts[worker]()
        compute = begin + download
        end = self._speeds.finish(worker, compute, work) if self._speeds else compute + work
        return compute, end, end + upload

    def _arrive(self, worker: int) -> Sequence[int]:
        """The server handles an arrival; returns whose arrivals, put aside, it handles next."""
        job, version, time = self._jobs[worker], self._version, self._time
        decision = self._policy.on_arrival(worker, version - job[1], time)
        accept, weight, commit, start, abort, token, hold, release = decision
        if hold:
            return ()
        row: tuple[float, ...] = worker, job[1], version, job[2], time, weight, accept, commit
        if self._staged:
            row += job[3:]
        if self._issues_tokens:
            row += (token if token >= 0 else job[1],)
        self._add_row(row)
        if accept:
            self._fruitless = 0
        else:
            self._count_fruitless()
        self._jobs[worker] = _IDLE
        if self._queues and self._queues[worker]:
            self._launch(worker, *self._queues[worker].popleft())
        if commit:
            self._version = version + 1
        if abort:
            self._abort(abort)
        self._start(start)
        return release

    def _release(self, workers: Sequence[int]) -> None:
        """Handles arrivals that were put aside, and those that they release in turn."""
        pending = collections.deque((worker, self._jobs[worker]) for worker in workers)
        while pending and self._version != self._num_commits:
            worker, job = pending.popleft()
            if self._jobs[worker] is job:  # neither thrown away nor handled since
                pending.extend((other, self._jobs[other]) for other in self._arrive(worker))

    def _follow(self, worker: int, decision: Decision) -> None:
        """Does what was decided when nothing arrived: a commit then has a row of its own."""
        self._count_fruitless()
        if decision.commit:
            now, version = self._time, self._version
            row = worker, version, version, now, now, 0.0, False, True
            self._add_row(row + (now,) * 4 * self._staged + (version,) * self._issues_tokens)
            self._version += 1
        self._abort(decision.abort)
        self._start(decision.start)
        self._release(decision.release)

    def _abort(self, workers: Sequence[int]) -> None:
        for worker in workers:
            self._lose(worker, Reason.ABORTED)
        if len(self._events) > self._max_events:
            self._forget_jobs_that_are_gone()

    def _count_fruitless(self) -> None:
        self._fruitless += 1
        if self._fruitless > self._max_fruitless:
            self._raise_stall(f"no arrival was accepted in the last {self._fruitless} events")

    def _lose(self, worker: int, reason: Reason) -> int:
        """Throws away what the worker has, running and queued; returns how many jobs."""
        job = self._jobs[worker]
        if job is _IDLE:
            return 0
        self._lost.append((worker, job[3], min(self._time, job[-1]), reason))
        self._jobs[worker] = _IDLE
        queued = len(self._queues[worker]) if self._queues else 0
        for _ in range(queued):
            self._queues[worker].popleft()
            self._lost.append((worker, self._time, self._time, reason))
        return 1 + queued

    def _leave(self, worker: int) -> None:
        num_lost = self._lose(worker, Reason.FAILED)
        self._present[worker] = False
        self._away_since[worker] = self._time
        self._plan_presence(worker)
        self._follow(worker, self._policy.on_leave(worker, num_lost, self._time))

    def _join(self, worker: int) -> None:
        self._present[worker] = True
        self._absences.append((worker, self._away_since[worker], self._time))
        self._follow(worker, self._policy.on_join(worker, self._time))

    def _forget_jobs_that_are_gone(self) -> None:
        self._events[:] = [
            event
            for event in self._events
            if event[1] > _TIMEOUT or self._jobs[event[3]][0] == event[2]
        ]
        heapify(self._events)

    def _check_end(self, num_commits: int | None, max_time: float) -> None:
        self._forget_jobs_that_are_gone()
        if self._version != num_commits and (num_commits is not None or not self._events):
            there = sum(self._present)
            self._raise_stall(
                f"all {there} workers that are there wait" if there else "no worker is left"
            )
        if not len(self._rows):
            raise ValueError(
                f"nothing arrives before max_time={max_time:g}: the first job takes until "
                f"{self._events[0][0]:.4g}"
            )

    def _raise_stall(self, reason: str) -> None:
        wanted = "" if self._num_commits is None else f" of {self._num_commits}"
        raise ValueError(
            f"{self._name} stalls at time {self._time:.6g} after {self._version}{wanted} commits: "
            f"{reason}"
        )

    def _table(self, end_time: float) -> Timeline:
        self._time = end_time
        for worker in range(self._num_workers):
            self._lose(worker, Reason.UNFINISHED)
            if not self._present[worker]:
                self._absences.append((worker, self._away_since[worker], end_time))
        columns = self._rows.columns()
        phases = None
        if self._staged:
            phases = Phases(**{name: columns.pop(name) for name in Phases.__annotations__})
        return Timeline(
            num_workers=self._num_workers,
            end_time=end_time,
            **columns,
            lost=LostJobs(**self._lost.columns()),
            phases=phases,
            absences=Absences(**self._absences.columns()) if self._spans else None,
            made_for=None,
        )


def _times(
    model: RuntimeModel | None, num_workers: int, seed: int, part: int
) -> list[Iterator[float]]:
    """The streams of a part of the jobs; without a law it takes no time."""
    if model is None:
        return [itertools.repeat(0.0)] * num_workers
    return model.part_times(num_workers, seed, part)
