"""The server process: one loop that waits for workers, decides, applies, records and saves."""

import pathlib
import threading
import time
from collections.abc import Sequence
from typing import Any

import jax

from async_optax.distributed.acceptance import unpacked
from async_optax.distributed.attendance import Attendance, raised
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

_TICK = 0.5  # seconds at most between two looks at limits


class ServerActor:
    """The server, as a Ray actor: :meth:`run` in one thread, the rest in another.

    Args:
      shared: a reference to the setup of the run, in a list.
      epoch: 1 for the first server of a run, counting up.
    """

    _server: ParameterServer
    _trace: TraceWriter
    _saving: Saving
    _clock: Clock
    _attendance: Attendance
    _crew: RayCrew
    _dispatcher: Dispatcher

    def __init__(self, shared: list[Any], epoch: int):
        self._ray = import_ray()
        self._shared = shared
        self._setup: Setup = self._ray.get(shared[0])
        configure_jax(None, self._setup.x64, 0)
        self._workers: list[Any] = []
        self._epoch = epoch
        self._monitor = Monitor(epoch, self._setup.num_workers)
        self._interrupted = threading.Event()
        self._ending_since: float | None = None  # waiting for a last commit

    def run(self, workers: Sequence[Any]) -> dict[str, Any]:
        """Serves until the end of the run.

        Args:
          workers: handles of the worker actors.

        Returns:
          The parameters, the version, and that of the newest checkpoint.
        """
        self._workers, setup = list(workers), self._setup
        key = jax.random.wrap_key_data(jax.numpy.asarray(setup.key_data), impl=setup.key_impl)
        dtype = None if setup.slot_dtype is None else jax.numpy.dtype(setup.slot_dtype)
        self._server = ParameterServer(setup.problem, setup.optimizer, setup.program, key, dtype)
        path = pathlib.Path(setup.directory) / TRACE_NAME
        with TraceWriter(path) as self._trace, Saving.open(setup) as self._saving:
            self._serve()
            self._trace.sync()
        return {
            "params": self._server.params(),
            "version": self._monitor.version,
            "durable_version": self._monitor.durable_version,
        }

    def status(self) -> Status:
        """Tells how the run is doing; forgets what it told."""
        return self._monitor.status()

    def interrupt(self) -> None:
        """Makes :meth:`run` save and return, at its next commit if something is gathered."""
        self._interrupted.set()

    def _serve(self) -> None:
        setup, monitor = self._setup, self._monitor
        monitor.enter("restoring the checkpoint")
        restored = self._saving.restore(self._server)
        monitor.version = monitor.durable_version = restored.version
        monitor.time = restored.time
        if self._epoch > 1:
            monitor.say(f"server {self._epoch} goes on from commit {restored.version}")
        if setup.num_commits is not None and restored.version >= setup.num_commits:
            return
        if setup.max_time is not None and restored.time >= setup.max_time:
            return
        self._attendance = Attendance(
            self._ray,
            setup,
            self._shared,
            self._workers,
            self._epoch,
            monitor,
            self._interrupted,
        )
        present, late = self._attendance.first()
        if self._interrupted.is_set():
            return  # the checkpoint is what it was
        # The clock runs while workers are there; see Clock for later servers.
        self._clock = Clock(restored.time)
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
        now = self._clock.now() if restored.time else 0.0
        self._trace.write_epoch(self._epoch, restored.resume_at, time=now, started=time.time())
        for worker in present:
            self._trace.write("join", worker=worker, time=now)
        for worker in sorted(monitor.quarantined):
            why = self._attendance.failure_of(worker)
            self._trace.write("quarantine", worker=worker, time=now, why=why)
        if not restored.time:
            self._crew.evaluate(0)
        self._dispatcher.begin(present, now if restored.time else self._clock.now())
        while not self._is_over():
            self._turn()
        if self._server.has_gathered:
            monitor.say("no commit came in time: what was gathered is not saved")
        if self._interrupted.is_set() and not self._has_come_to_its_end():
            if not self._server.has_gathered and self._dispatcher.version > self._saving.version:
                self._save()
            return
        self._dispatcher.stop(self._clock.now())
        self._crew.evaluate(self._dispatcher.version)
        self._trace.write("end", time=self._clock.now())
        if not self._server.has_gathered:
            self._save()

    def _save(self) -> None:
        self._monitor.enter("saving a checkpoint")
        self._saving.save(self._server, self._dispatcher, self._trace)
        self._monitor.durable_version = self._saving.version

    def _has_come_to_its_end(self) -> bool:
        setup = self._setup
        if setup.num_commits is not None:
            return self._dispatcher.version >= setup.num_commits
        return self._clock.peek() >= (setup.max_time or 0)

    def _is_over(self) -> bool:
        """Whether to end. What is gathered is waited for: only commits can be saved."""
        if not self._has_come_to_its_end() and not self._interrupted.is_set():
            return False
        if not self._server.has_gathered:
            return True
        limit = self._setup.limits.stop if self._interrupted.is_set() else self._setup.limits.job
        if self._ending_since is None:
            self._ending_since = time.monotonic()
        return time.monotonic() - self._ending_since >= limit

    def _turn(self) -> None:
        """Waits for something to happen, and handles it."""
        if not self._crew.calls and not self._attendance.asks_at:
            raise RuntimeError(self._stall())
        self._monitor.enter("waiting for workers")
        self._monitor.time = self._clock.peek()
        self._monitor.workers_up = self._dispatcher.num_present
        now = time.monotonic()
        due = [call.expires for call in self._crew.calls.values()]
        due += self._attendance.asks_at.values()
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
        self._crew.calls |= self._attendance.ask()

    def _receive(self, ref: Any, call: Call) -> None:
        errors = self._ray.exceptions
        try:
            value = self._ray.get(ref, timeout=self._setup.limits.store)
        except (errors.RayActorError, errors.OutOfMemoryError) as error:
            self._worker_is_gone(call.worker, f"its process ended ({type(error).__name__})")
            return
        except errors.RayTaskError as error:
            if isinstance(error.cause, errors.RayError):
                raise
            if isinstance(error.cause, NotReadyError):
                self._worker_is_gone(call.worker, "its process was started again")
                return
            failed = self._cannot_start if call.job is None else self._strike
            failed(call.worker, raised(error.cause))
            return
        if call.job is None:
            self._attendance.is_back(call.worker, value)
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
        self._attendance.has_worked(call.worker)
        now = self._clock.now()
        self._crew.received(Result(reply, leaves, now))
        self._dispatcher.arrive(call.worker, now)

    def _look_at_limits(self) -> None:
        now = time.monotonic()
        for ref, call in list(self._crew.calls.items()):
            if self._is_over():
                return
            if ref not in self._crew.calls:
                continue
            if now >= call.deadline:
                limits = self._setup.limits
                del self._crew.calls[ref]
                self._ray.kill(self._workers[call.worker], no_restart=False)
                if call.job is None:
                    why = f"it was not ready within limits.start={limits.start:g} s"
                    self._cannot_start(call.worker, why)
                else:
                    number = call.job.number
                    why = f"it did not finish job {number} within limits.job={limits.job:g} s"
                    self._worker_is_gone(call.worker, why)
            elif call.job is not None and now >= call.expires:
                self._dispatcher.time_out(call.worker, self._clock.now())

    def _worker_is_gone(self, worker: int, why: str) -> None:
        """A worker's process has ended, or was ended."""
        was_present, now = self._dispatcher.is_present(worker), self._clock.now()
        if was_present:
            self._trace.write("leave", worker=worker, time=now, why=why)
        is_out = self._attendance.is_gone(worker, why, lost_a_job=was_present)
        if was_present:
            self._dispatcher.leave(worker, now)
        if is_out:
            self._note_quarantine(worker, why)

    def _cannot_start(self, worker: int, why: str) -> None:
        if self._attendance.cannot_start(worker, why):
            self._note_quarantine(worker, why)

    def _strike(self, worker: int, why: str) -> None:
        """Throws a worker's result away; too often, and the worker gets no more jobs."""
        now = self._clock.now()
        self._trace.write("strike", worker=worker, time=now, why=why)
        if self._attendance.is_struck(worker, why):
            self._trace.write("leave", worker=worker, time=now, why=why)
            self._dispatcher.leave(worker, now)
            self._note_quarantine(worker, why)
        else:
            self._dispatcher.leave(worker, now)
            self._dispatcher.join(worker, now)

    def _note_quarantine(self, worker: int, why: str) -> None:
        self._trace.write("quarantine", worker=worker, time=self._clock.now(), why=why)

    def _stall(self) -> str:
        name, version = self._setup.protocol.name, self._dispatcher.version
        if self._attendance.nobody_is_left:
            last = self._attendance.last_failure
            reason = f"all workers are in quarantine, the last one for: {last}"
        else:
            reason = f"all {self._dispatcher.num_present} workers that are there wait"
            if self._monitor.quarantined:
                reason += f", and {len(self._monitor.quarantined)} are in quarantine"
        return f"{name} stalls after {version} commits: {reason}"
