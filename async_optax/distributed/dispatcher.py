"""The dispatcher: carries a policy's decisions out on workers that really compute."""

import collections
import dataclasses
import typing
from collections.abc import Sequence

from async_optax.timelines.protocols.policy import Decision, Policy
from async_optax.timelines.side_tables import Reason


@dataclasses.dataclass(eq=False)
class Job:
    """One job.

    Attributes:
      number: in the order of handing out; it seeds the job's randomness.
      worker: who computes it.
      read_version: the version it was handed out with.
      start: when it was handed out, in seconds since the start of the run.
      begin: when it was sent to the worker; later than ``start`` if it waited in a queue.
    """

    number: int
    worker: int
    read_version: int
    start: float
    begin: float = float("nan")


class Crew(typing.Protocol):
    """Who does what the dispatcher says; calls come in the order in which things happen."""

    def hand_out(self, job: Job) -> None:
        """The job reads the current version, which must stay until it is handled or dropped."""

    def send(self, job: Job) -> None:
        """The worker takes the job up."""

    def handle(self, job: Job, decision: Decision, version: int, time: float) -> None:
        """The job's result is used as decided, or not; ``version`` is that before."""

    def commit_alone(self, worker: int, version: int, time: float) -> None:
        """Commits what was gathered, without an arrival."""

    def drop(self, job: Job, reason: Reason, time: float) -> None:
        """The job never arrives; if its worker still computes, it may stop."""


class Dispatcher:
    """What the server knows of its workers, and what follows from a policy's decisions.

    It does for real workers what the simulation's event loop does for simulated ones: the same
    policy sees the same events, and its decisions are carried out in the same order. The rules of
    the protocols are nowhere but in the policy.

    Args:
      name: of the protocol, for errors.
      policy: a fresh one.
      num_workers: number of workers.
      crew: does what is decided.
      version: that the server has.
      first_job: number of the next job.
      last_version: at which nothing more is handled, or ``None``.
    """

    def __init__(
        self,
        name: str,
        policy: Policy,
        num_workers: int,
        crew: Crew,
        *,
        version: int = 0,
        first_job: int = 0,
        last_version: int | None = None,
    ):
        self._last_version = last_version
        self._name, self._policy, self._crew = name, policy, crew
        self.version, self.next_job = version, first_job
        self._jobs: list[Job | None] = [None] * num_workers
        self._held: set[int] = set()
        self._queues: list[collections.deque[Job]] = [
            collections.deque() for _ in range(num_workers)
        ]
        self._present = [False] * num_workers

    @property
    def num_present(self) -> int:
        """Number of workers that are there."""
        return sum(self._present)

    @property
    def is_idle(self) -> bool:
        """Whether nobody computes: then nothing will arrive."""
        return all(job is None or job.worker in self._held for job in self._jobs)

    @property
    def _is_over(self) -> bool:
        """Whether the last commit is made: from then on nothing is decided."""
        return self.version == self._last_version

    def is_present(self, worker: int) -> bool:
        """Whether a worker is there."""
        return self._present[worker]

    def job_of(self, worker: int) -> Job | None:
        """The job that a worker has been sent, if it has one."""
        return self._jobs[worker]

    def time_limit(self, worker: int) -> float | None:
        """The policy's limit on a job's time."""
        limits = self._policy.time_limits
        return None if limits is None else limits[worker]

    def begin(self, present: Sequence[int], time: float) -> None:
        """Starts a fresh policy with the workers that are there, none of which has a job."""
        for worker in present:
            self._present[worker] = True
        self._start(self._policy.begin(list(present), {}, self.version), time)

    def arrive(self, worker: int, time: float) -> None:
        """A worker has delivered its job."""
        pending = collections.deque([(worker, self._jobs[worker])])
        while pending and not self._is_over:
            worker, job = pending.popleft()
            if job is None or self._jobs[worker] is not job:
                continue  # dropped, or handled, since it was released
            pending.extend((other, self._jobs[other]) for other in self._arrive(job, time))

    def _arrive(self, job: Job, time: float) -> Sequence[int]:
        """Handles one arrival; returns whose arrivals, put aside, come next."""
        worker, version = job.worker, self.version
        decision = self._policy.on_arrival(worker, version - job.read_version, time)
        if decision.hold:
            self._held.add(worker)
            return ()
        self._held.discard(worker)
        self._crew.handle(job, decision, version, time)
        self._jobs[worker] = None
        if self._queues[worker]:
            self._send(self._queues[worker].popleft(), time)
        if decision.commit:
            self.version += 1
        self._abort(decision.abort, time)
        self._start(decision.start, time)
        return decision.release

    def time_out(self, worker: int, time: float) -> None:
        """A worker's job has exceeded the policy's time limit."""
        if self._is_over:
            return  # a limit before it had the last commit: the job is unfinished
        self._lose(worker, Reason.EXPIRED, time)
        self._follow(worker, self._policy.on_timeout(worker, time), time)

    def leave(self, worker: int, time: float) -> None:
        """A worker is gone, with all the jobs it had."""
        num_lost = self._lose(worker, Reason.FAILED, time)
        self._present[worker] = False
        if not self._is_over:
            self._follow(worker, self._policy.on_leave(worker, num_lost, time), time)

    def join(self, worker: int, time: float) -> None:
        """A worker has come, or come back."""
        self._present[worker] = True
        if not self._is_over:
            self._follow(worker, self._policy.on_join(worker, time), time)

    def stop(self, time: float) -> None:
        """The run ends: what is in flight is lost."""
        for worker in range(len(self._jobs)):
            self._lose(worker, Reason.UNFINISHED, time)

    def _follow(self, worker: int, decision: Decision, time: float) -> None:
        """Does what was decided when nothing arrived."""
        if decision.commit:
            self._crew.commit_alone(worker, self.version, time)
            self.version += 1
        self._abort(decision.abort, time)
        self._start(decision.start, time)
        for released in decision.release:
            self.arrive(released, time)

    def _start(self, workers: Sequence[int], time: float) -> None:
        for worker in workers:
            if not self._present[worker]:
                raise ValueError(f"{self._name} starts worker {worker}, which is away")
            if self._jobs[worker] is not None and not self._policy.queues:
                raise ValueError(f"{self._name} starts worker {worker}, which is still computing")
            job = Job(self.next_job, worker, self.version, time)
            self.next_job += 1
            self._crew.hand_out(job)
            if self._jobs[worker] is None:
                self._send(job, time)
            else:
                self._queues[worker].append(job)

    def _send(self, job: Job, time: float) -> None:
        job.begin = time
        self._jobs[job.worker] = job
        self._crew.send(job)

    def _abort(self, workers: Sequence[int], time: float) -> None:
        for worker in workers:
            self._lose(worker, Reason.ABORTED, time)

    def _lose(self, worker: int, reason: Reason, time: float) -> int:
        """Throws away what a worker has, running and queued; returns how many jobs."""
        job = self._jobs[worker]
        if job is None:
            return 0
        self._jobs[worker] = None
        self._held.discard(worker)
        self._crew.drop(job, reason, time)
        queued = len(self._queues[worker])
        for waiting in self._queues[worker]:
            waiting.begin = time
            self._crew.drop(waiting, reason, time)
        self._queues[worker].clear()
        return 1 + queued
