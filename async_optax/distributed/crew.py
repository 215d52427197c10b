"""What a server does with workers that are Ray actors, when its dispatcher says so."""

import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from async_optax.distributed.clock import Clock
from async_optax.distributed.dispatcher import Job
from async_optax.distributed.messages import Reply, Request, Setup
from async_optax.distributed.monitor import Monitor
from async_optax.distributed.parameter_server import Arrived, Leaves, ParameterServer
from async_optax.distributed.trace_file import TraceWriter
from async_optax.distributed.worker_actor import machine_name
from async_optax.timelines.protocols.policy import Decision
from async_optax.timelines.side_tables import Reason

_NO_JOB = -1
_LARGE = 1 << 20  # bytes


class Call(NamedTuple):
    """Something that a worker has been asked for.

    Attributes:
      worker: who.
      job: what it computes; ``None``: whether it is there.
      deadline: when the worker is taken for broken.
      expires: when the protocol gives the job up.
    """

    worker: int
    job: Job | None
    deadline: float
    expires: float = math.inf


class Result(NamedTuple):
    """A usable result that has come.

    Attributes:
      reply: of the worker.
      update: its leaves.
      time: when it came.
    """

    reply: Reply
    update: Leaves
    time: float


class _Version(NamedTuple):
    """A version that some job has read.

    Attributes:
      ref: in the object store, where workers get it.
      leaves: the same; if they are large, a view of the same memory.
    """

    ref: Any
    leaves: Leaves


class RayCrew:
    """Sends jobs, applies and records results.

    A version is put into the object store when the first job reads it, once, and stays until the
    last of its jobs is done: workers on one machine and the server see the same memory.

    Attributes:
      calls: what is awaited, by reference, in the order of asking.

    Args:
      ray: the module.
      setup: of the run.
      workers: handles of the worker actors.
      epoch: which server this is.
      server: applies arrivals.
      trace: of the run.
      clock: of the run.
      monitor: told what happens.
    """

    def __init__(
        self,
        ray: Any,
        setup: Setup,
        workers: Sequence[Any],
        epoch: int,
        server: ParameterServer,
        trace: TraceWriter,
        clock: Clock,
        monitor: Monitor,
    ):
        self.calls: dict[Any, Call] = {}
        self._ray, self._setup, self._workers, self._epoch = ray, setup, workers, epoch
        self._server, self._trace, self._clock, self._monitor = server, trace, clock, monitor
        self._limits = setup.protocol.policy(setup.num_workers).time_limits
        self._machine = machine_name()
        self._versions: dict[int, _Version] = {}
        self._num_readers: dict[int, int] = {}
        self._results: dict[int, Result] = {}  # by job
        self._after = [_NO_JOB] * setup.num_workers
        self._evaluated = _NO_JOB

    def received(self, result: Result) -> None:
        """Keeps a result until the dispatcher says what to do with it."""
        self._results[result.reply.job] = result

    def hand_out(self, job: Job) -> None:
        """Keeps the current version until the job is done."""
        version = job.read_version
        if version not in self._versions:
            self._monitor.enter("putting parameters into the object store")
            leaves = self._server.served()
            ref = self._ray.put(leaves)
            if sum(leaf.nbytes for leaf in leaves) > _LARGE:  # one copy in memory is enough
                leaves = self._ray.get(ref, timeout=self._setup.limits.store)
            self._versions[version] = _Version(ref, leaves)
            self._num_readers[version] = 0
        self._num_readers[version] += 1

    def send(self, job: Job) -> None:
        """Asks the worker."""
        request = Request(self._epoch, job.number, self._after[job.worker])
        ref = self._versions[job.read_version].ref
        call = self._workers[job.worker].compute.remote(ref, request)
        now = time.monotonic()
        expires = math.inf if self._limits is None else now + self._limits[job.worker]
        self.calls[call] = Call(job.worker, job, now + self._setup.limits.job, expires)

    def handle(self, job: Job, decision: Decision, version: int, time: float) -> None:
        """Applies and records an arrival."""
        reply, update, sent = self._results.pop(job.number)
        if decision.accept:
            self._monitor.enter(f"applying job {job.number}")
            stale, staleness = self._versions[job.read_version].leaves, version - job.read_version
            arrived = Arrived(update, stale, staleness, job.worker, job.number, decision.weight)
            self._server.arrive(arrived, decision)
            self._after[job.worker] = job.number
            self._monitor.accepted(reply.loss, staleness)
        self._monitor.enter("writing the trace")
        same_clock = reply.machine == self._machine
        compute, upload = self._clock.phases(job.begin, sent, reply.began, reply.ended, same_clock)
        token = {} if decision.token < 0 else {"token": decision.token}
        self._trace.write(
            "arrival",
            worker=job.worker,
            job=job.number,
            read_version=job.read_version,
            version=version,
            start_time=job.start,
            begin=job.begin,
            compute=compute,
            upload=upload,
            sent=sent,
            time=time,
            weight=float(decision.weight),
            accepted=bool(decision.accept),
            commit=bool(decision.commit),
            loss=reply.loss,
            fresh=reply.fresh,
            **token,
        )
        self._monitor.num_arrivals += 1
        self._release(job)
        if decision.commit:
            self._committed(version + 1)

    def commit_alone(self, worker: int, version: int, time: float) -> None:
        """Commits without an arrival."""
        self._server.commit_alone()
        self._trace.write("commit", worker=worker, version=version, time=time)
        self._committed(version + 1)

    def drop(self, job: Job, reason: Reason, time: float) -> None:
        """Forgets a job; its worker may stop."""
        result = self._results.pop(job.number, None)
        for ref, call in list(self.calls.items()):
            if call.job is job:
                del self.calls[ref]
        self._release(job)
        self._trace.write(
            "lost",
            worker=job.worker,
            job=job.number,
            read_version=job.read_version,
            start_time=job.start,
            begin=job.begin,
            stop=time if result is None else result.time,  # it may have come, and waited
            time=time,
            reason=int(reason),
        )
        if reason != Reason.FAILED:
            cancel = self._workers[job.worker].cancel.options(concurrency_group="control")
            cancel.remote(self._epoch, job.number)

    def evaluate(self, version: int) -> None:
        """Evaluates the current parameters, unless that has been done."""
        if version == self._evaluated:
            return
        self._evaluated = version
        self._monitor.enter("evaluating")
        metrics = self._server.evaluate()
        if metrics:
            self._monitor.metrics = metrics
            now = self._clock.now()
            self._trace.write("evaluation", version=version, time=now, metrics=metrics)

    def _release(self, job: Job) -> None:
        version = job.read_version
        self._num_readers[version] -= 1
        if not self._num_readers[version]:
            del self._num_readers[version], self._versions[version]

    def _committed(self, version: int) -> None:
        self._monitor.version = version
        every = self._setup.evaluate_every
        if every is not None and version % every == 0:
            self.evaluate(version)
