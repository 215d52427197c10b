"""The server process: one loop that waits for workers, decides, applies, records and saves."""

import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax

from async_optax.distributed.acceptance import unpacked
from async_optax.distributed.clock import Clock
from async_optax.distributed.crew import Call, RayCrew, Result
from async_optax.distributed.dispatcher import Dispatcher
from async_optax.distributed.messages import Reply, Setup, Status
from async_optax.distributed.monitor import Monitor
from async_optax.distributed.parameter_server import ParameterServer
from async_optax.distributed.recording import TRACE_NAME
from async_optax.distributed.saving import Saving
from async_optax.distributed.session import import_ray
from async_optax.distributed.trace_file import TraceWriter
from async_optax.distributed.worker_actor import NotReadyError, configure_jax
from async_optax.validation import first_line

_TICK = 0.5  # seconds at most between two looks at limits
_PING_PAUSE = 0.2


class ServerActor:
    """The server, as a Ray actor: :meth:`run` in one thread, :meth:`status` in another.

    Args:
      shared: a reference to the setup of the run, in a list.
      workers: handles of the worker actors.
      epoch: 1 for the first server of a run, counting up.
    """

    _server: ParameterServer
    _trace: TraceWriter
    _saving: Saving
    _clock: Clock
    _crew: RayCrew
    _dispatcher: Dispatcher

    def __init__(self, shared: list[Any], workers: Sequence[Any], epoch: int):
        self._ray = import_ray()
        self._shared = shared
        self._setup: Setup = self._ray.get(shared[0])
        configure_jax(None, self._setup.x64, 0)
        self._workers, self._epoch = list(workers), epoch
        self._monitor = Monitor(epoch, self._setup.num_workers)
        self._pings: dict[int, float] = {}  # workers to look for, and when
        self._strikes = [0] * self._setup.num_workers
        self._last_failure = ""

    def run(self) -> dict[str, Any]:
        """Serves until the end of the run, and returns the parameters and the version."""
        setup = self._setup
        key = jax.random.wrap_key_data(jax.numpy.asarray(setup.key_data), impl=setup.key_impl)
        dtype = None if setup.slot_dtype is None else jax.numpy.dtype(setup.slot_dtype)
        self._server = ParameterServer(setup.problem, setup.optimizer, setup.program, key, dtype)
        path = pathlib.Path(setup.directory) / TRACE_NAME
        with TraceWriter(path) as self._trace, Saving.open(setup) as self._saving:
            self._serve()
            self._trace.sync()
        return {"params": self._server.params(), "version": self._monitor.version}

    def status(self) -> Status:
        """Tells how the run is doing; forgets what it told."""
        return self._monitor.status()

    def _serve(self) -> None:
        setup, monitor = self._setup, self._monitor
        monitor.enter("restoring the checkpoint")
        restored = self._saving.restore(self._server)
        monitor.version = monitor.durable_version = restored.version
        if setup.num_commits is not None and restored.version >= setup.num_commits:
            return
        present, late = self._await_workers()
        # The clock starts when the first workers do, and goes on for later servers.
        started = time.time() if restored.started is None else restored.started
        self._clock = Clock(started, restored.time)
        self._crew = RayCrew(
            self._ray,
            setup,
            self._workers,
            self._epoch,
            self._server,
            self._trace,
            self._clock,
            monitor,
        )
        self._crew.calls |= late
        # A new server's policy takes over as one protocol does after another.
        self._dispatcher = Dispatcher(
            setup.protocol.name,
            setup.protocol.policy(setup.num_workers, (setup.seed + self._epoch - 1) % 2**31),
            setup.num_workers,
            self._crew,
            version=restored.version,
            first_job=restored.next_job,
            last_version=setup.num_commits,
        )
        now = 0.0 if restored.started is None else self._clock.now()
        self._trace.write_epoch(self._epoch, restored.resume_at, time=now, started=started)
        for worker in present:
            self._trace.write("join", worker=worker, time=now)
        if not restored.version:
            self._crew.evaluate(0)
        self._dispatcher.begin(present, now if restored.version else self._clock.now())
        while not self._is_over():
            self._turn()
        self._dispatcher.stop(self._clock.now())
        self._crew.evaluate(self._dispatcher.version)
        self._trace.write("end", time=self._clock.now())
        if not self._server.has_gathered:
            self._save()

    def _save(self) -> None:
        self._monitor.enter("saving a checkpoint")
        self._saving.save(self._server, self._dispatcher, self._trace)
        self._monitor.durable_version = self._saving.version

    def _is_over(self) -> bool:
        setup = self._setup
        if setup.num_commits is not None:
            return self._dispatcher.version >= setup.num_commits
        return self._clock.peek() >= (setup.max_time or 0)

    def _turn(self) -> None:
        """Waits for something to happen, and handles it."""
        if not self._crew.calls and not self._pings:
            raise RuntimeError(self._stall())
        self._monitor.enter("waiting for workers")
        self._monitor.time = self._clock.peek()
        self._monitor.workers_up = self._dispatcher.num_present
        now = time.monotonic()
        due = [call.expires for call in self._crew.calls.values()] + list(self._pings.values())
        wait = min([_TICK, *(max(moment - now, 0) for moment in due)])
        calls = list(self._crew.calls)
        if calls:
            ready, _ = self._ray.wait(calls, num_returns=1, timeout=wait)
        else:
            ready = []
            time.sleep(wait)
        for ref in ready:
            call = self._crew.calls.pop(ref, None)
            if call is not None:  # else dropped by what came before it
                self._monitor.enter(f"receiving from worker {call.worker}")
                self._receive(ref, call)
            if self._is_over():
                return
            if self._saving.is_due() and not self._server.has_gathered:
                self._save()
        self._look_at_limits()
        self._ping()

    def _receive(self, ref: Any, call: Call) -> None:
        errors = self._ray.exceptions
        try:
            value = self._ray.get(ref, timeout=self._setup.limits.store)
        except errors.RayActorError as error:
            self._worker_is_gone(call.worker, f"its process ended ({type(error).__name__})")
            return
        except errors.RayTaskError as error:
            if isinstance(error.cause, errors.RayError):
                raise
            if isinstance(error.cause, NotReadyError):
                self._worker_is_gone(call.worker, "its process was started again")
                return
            self._strike(call.worker, f"{type(error.cause).__name__}: {first_line(error.cause)}")
            return
        if call.job is None:
            self._monitor.pids[call.worker] = value
            now = self._clock.now()
            self._trace.write("join", worker=call.worker, time=now)
            self._monitor.say(f"worker {call.worker} is back (process {value})")
            self._dispatcher.join(call.worker, now)
            return
        reply: Reply = value
        if (reply.epoch, reply.job) != (self._epoch, call.job.number):
            self._monitor.say(
                f"refused a result of worker {call.worker} for job {reply.job} of server "
                f"{reply.epoch}"
            )
            self._strike(call.worker, "a result of another server or job")
            return
        try:
            leaves = unpacked(reply.update, self._setup.sent_like)
        except ValueError as error:
            self._strike(call.worker, str(error))
            return
        now = self._clock.now()
        self._crew.received(Result(reply, leaves, now))
        self._dispatcher.arrive(call.worker, now)

    def _look_at_limits(self) -> None:
        now = time.monotonic()
        for ref, call in list(self._crew.calls.items()):
            if ref not in self._crew.calls:
                continue
            if now >= call.deadline:
                what = (
                    "did not start" if call.job is None else f"did not finish job {call.job.number}"
                )
                limit = "start" if call.job is None else "job"
                seconds = getattr(self._setup.limits, limit)
                del self._crew.calls[ref]
                self._ray.kill(self._workers[call.worker], no_restart=False)
                self._worker_is_gone(call.worker, f"it {what} within limits.{limit}={seconds:g} s")
            elif call.job is not None and now >= call.expires:
                self._dispatcher.time_out(call.worker, self._clock.now())

    def _ping(self) -> None:
        """Asks workers that were lost whether they are back."""
        now = time.monotonic()
        for worker in [worker for worker, when in self._pings.items() if when <= now]:
            del self._pings[worker]
            ref = self._ask(worker)
            self._crew.calls[ref] = Call(worker, None, now + self._setup.limits.start)

    def _ask(self, worker: int) -> Any:
        """Asks a worker to be ready; it answers beside its jobs."""
        ready = self._workers[worker].ready.options(concurrency_group="control")
        return ready.remote(self._epoch, self._shared)

    def _await_workers(self) -> tuple[list[int], dict[Any, Call]]:
        """Returns the workers that are ready, and the calls of those that may be later."""
        limit = self._setup.limits.start
        calls = {self._ask(worker): worker for worker in range(self._setup.num_workers)}
        deadline = time.monotonic() + limit
        present, waiting, failure = [], list(calls), ""
        while waiting and time.monotonic() < deadline:
            self._monitor.enter("waiting for workers to start")
            ready, waiting = self._ray.wait(waiting, num_returns=1, timeout=_TICK)
            for ref in ready:
                worker = calls[ref]
                try:
                    self._monitor.pids[worker] = self._ray.get(ref)
                    present.append(worker)
                except self._ray.exceptions.RayActorError as error:
                    self._pings[worker] = time.monotonic() + _PING_PAUSE
                    failure = f": {first_line(error)}"
        if not present:
            raise RuntimeError(f"no worker was ready within limits.start={limit:g} s{failure}")
        late = {ref: Call(calls[ref], None, deadline + limit) for ref in waiting}
        return sorted(present), late

    def _worker_is_gone(self, worker: int, why: str) -> None:
        self._pings[worker] = time.monotonic() + _PING_PAUSE
        self._monitor.pids[worker] = 0
        if not self._dispatcher.is_present(worker):
            return
        now = self._clock.now()
        self._monitor.say(f"worker {worker} is lost: {why}")
        self._trace.write("leave", worker=worker, time=now, why=why)
        self._dispatcher.leave(worker, now)

    def _strike(self, worker: int, why: str) -> None:
        """Throws a worker's result away; too often, and the worker gets no more jobs."""
        self._strikes[worker] += 1
        self._last_failure = why
        count, most = self._strikes[worker], self._setup.limits.strikes
        now = self._clock.now()
        self._trace.write("strike", worker=worker, time=now, why=why)
        self._monitor.say(f"worker {worker} sent nothing usable ({count} of {most}): {why}")
        if count < most:
            self._dispatcher.leave(worker, now)
            self._dispatcher.join(worker, now)
            return
        self._monitor.quarantined.add(worker)
        self._trace.write("leave", worker=worker, time=now, why=f"quarantine: {why}")
        self._monitor.say(f"worker {worker} is in quarantine")
        self._dispatcher.leave(worker, now)

    def _stall(self) -> str:
        name, version = self._setup.protocol.name, self._dispatcher.version
        if len(self._monitor.quarantined) == self._setup.num_workers:
            reason = f"all workers are in quarantine, the last one for: {self._last_failure}"
        else:
            reason = f"all {self._dispatcher.num_present} workers that are there wait"
            if self._monitor.quarantined:
                reason += f", and {len(self._monitor.quarantined)} are in quarantine"
        return f"{name} stalls after {version} commits: {reason}"
