"""The driver: starts server and workers, watches them, and starts a killed server again."""

import contextlib
import dataclasses
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from async_optax.distributed.messages import Setup, Status
from async_optax.distributed.server_actor import ServerActor
from async_optax.distributed.worker_actor import WorkerActor
from async_optax.validation import first_line, require_number

_LOGGER = logging.getLogger("async_optax.distributed")
_INTERVAL = 0.25  # seconds between two looks


@dataclasses.dataclass(frozen=True)
class Resources:
    """What each process gets.

    Attributes:
      cpus_per_worker: logical processors of a worker, >= 0.
      gpus_per_worker: GPUs of a worker, >= 0, or parts of one; with any, workers compute on them.
      server_cpus: logical processors of the server.
      server_gpus: GPUs of the server.
      threads_per_worker: threads with which a worker on the CPU computes; 1, or 0 for as many as
        JAX likes.
    """

    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    server_cpus: float = 1.0
    server_gpus: float = 0.0
    threads_per_worker: int = 1

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            require_number(f"resources.{field.name}", getattr(self, field.name), at_least=0)
        if self.threads_per_worker not in (0, 1):
            raise ValueError(
                "resources.threads_per_worker must be 1, or 0 for as many as JAX likes, got "
                f"{self.threads_per_worker}"
            )


def supervise(
    ray: Any,
    setup: Setup,
    resources: Resources,
    first_epoch: int,
    report: Callable[[Status], None],
) -> tuple[dict[str, Any], int]:
    """Runs server and workers to the end.

    Args:
      ray: the module, connected.
      setup: of the run.
      resources: of each process.
      first_epoch: of the first server.
      report: called with the status a few times per second.

    Returns:
      What the server returned, and how often a server was started.

    Raises:
      ValueError: if the cluster has less than the processes need.
      RuntimeError: if servers die too often, or the run stalls.
      TimeoutError: if a process does not answer within its limit.
      OSError: if a disk or the object store is full.
      Exception: whatever else the server has raised.
    """
    _require_room(ray, setup.num_workers, resources)
    try:
        with _terminable():
            return _supervise(ray, setup, resources, first_epoch, report)
    except ray.exceptions.RayError as error:
        raise _plain(ray, error) from None


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Makes SIGTERM an exception: Ray's own handler aborts the process after three seconds."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return

    def end(signum: int, frame: object) -> None:
        raise SystemExit(128 + signum)

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)


def _supervise(
    ray: Any,
    setup: Setup,
    resources: Resources,
    first_epoch: int,
    report: Callable[[Status], None],
) -> tuple[dict[str, Any], int]:
    shared = [ray.put(setup)]  # in a list: what is not an argument itself is fetched when asked for
    actor = ray.remote(
        num_cpus=resources.cpus_per_worker,
        num_gpus=resources.gpus_per_worker,
        max_restarts=-1,
        max_task_retries=0,
        concurrency_groups={"control": 1},
    )(WorkerActor)
    server_actor = ray.remote(
        num_cpus=resources.server_cpus,
        num_gpus=resources.server_gpus,
        max_restarts=0,
        concurrency_groups={"status": 1},
    )(ServerActor)
    workers: list[Any] = []
    actors: list[Any] = []
    epoch, last_epoch = first_epoch, first_epoch + setup.limits.server_restarts
    try:
        while True:
            server = server_actor.remote(shared, epoch)
            actors.append(server)
            if not workers:  # later than the server, which must have a place
                workers += [actor.remote(worker) for worker in range(setup.num_workers)]
                actors += workers
            result = _watch(ray, server, workers, setup, report)
            if not isinstance(result, Exception):
                return result, epoch - first_epoch + 1
            why = last_line(result)
            if setup.checkpoint_every is None:
                raise RuntimeError(
                    "the server's process ended, and checkpoint_every=None keeps nothing to go on "
                    f"from: {why}"
                )
            if epoch == last_epoch:
                raise RuntimeError(
                    f"the server's process ended {epoch - first_epoch + 1} times; "
                    f"limits.server_restarts={setup.limits.server_restarts}; at last: {why}"
                )
            epoch += 1
            _LOGGER.warning(
                "the server's process ended: server %d goes on from the checkpoint", epoch
            )
    finally:
        for dead in actors:
            ray.kill(dead)


def _watch(
    ray: Any,
    server: Any,
    workers: Sequence[Any],
    setup: Setup,
    report: Callable[[Status], None],
) -> dict[str, Any] | Exception:
    """Follows one server; returns its result or, if its process ended, Ray's error.

    If something else ends the run (Ctrl-C, an error of a callback), the server saves first.
    """
    run = server.run.remote(workers)
    try:
        return _follow(ray, server, run, setup, report)
    except TimeoutError:
        raise  # the server answers too late: waiting for it again is no use
    except BaseException:
        _let_it_save(ray, server, run, setup)
        raise


def _follow(
    ray: Any, server: Any, run: Any, setup: Setup, report: Callable[[Status], None]
) -> dict[str, Any] | Exception:
    _await_start(ray, server, setup)
    heard = time.monotonic()
    while True:
        done, _ = ray.wait([run], timeout=_INTERVAL)
        if done:
            _ask(ray, server, setup, report)  # first: its last messages tell why it may have failed
            try:
                return ray.get(run, timeout=setup.limits.store)
            except ray.exceptions.RayActorError as error:
                return error
        if _ask(ray, server, setup, report):
            heard = time.monotonic()
        elif time.monotonic() - heard > setup.limits.server:
            raise TimeoutError(
                f"the server has not answered for limits.server={setup.limits.server:g} s"
            )


def _let_it_save(ray: Any, server: Any, run: Any, setup: Setup) -> None:
    """Waits until the server has saved: for its last commit, and as long again for the disk."""
    if setup.checkpoint_every is None or ray.wait([run], timeout=0)[0]:
        return
    limit = 2 * setup.limits.stop
    _LOGGER.warning("interrupted: the server saves, within %g s; interrupt again to skip", limit)
    server.interrupt.options(concurrency_group="status").remote()
    try:
        version = ray.get(run, timeout=limit)["durable_version"]
    except ray.exceptions.RayError as error:  # that it could not is told; the interruption goes on
        _LOGGER.warning("the server did not save: %s", last_line(error))
        return
    _LOGGER.warning("%d commits are saved: the same call goes on from there", version)


def _require_room(ray: Any, num_workers: int, resources: Resources) -> None:
    """Raises if the cluster can never hold all processes: Ray would wait for more machines."""
    there = ray.cluster_resources()
    for name, of_worker, of_server in (
        ("CPU", resources.cpus_per_worker, resources.server_cpus),
        ("GPU", resources.gpus_per_worker, resources.server_gpus),
    ):
        needed = num_workers * of_worker + of_server
        if needed > there.get(name, 0.0):
            raise ValueError(
                f"num_workers={num_workers} and the server need {needed:g} {name}s, the Ray "
                f"cluster has {there.get(name, 0.0):g}: take fewer workers, or other resources"
            )


def _await_start(ray: Any, server: Any, setup: Setup) -> None:
    """Waits until the server's process answers; if it ends instead, that is seen elsewhere."""
    call = server.status.options(concurrency_group="status").remote()
    try:
        ray.get(call, timeout=setup.limits.start)
    except ray.exceptions.RayActorError as error:
        _LOGGER.debug("%s", error)
    except ray.exceptions.GetTimeoutError:
        raise TimeoutError(
            f"the server did not start within limits.start={setup.limits.start:g} s: has the "
            "cluster a free processor for it?"
        ) from None


def _ask(ray: Any, server: Any, setup: Setup, report: Callable[[Status], None]) -> bool:
    """Asks the server how it is; whether it has answered.

    Raises:
      TimeoutError: if its loop has been in one place for too long.
    """
    call = server.status.options(concurrency_group="status").remote()
    try:
        status: Status = ray.get(call, timeout=setup.limits.server)
    except ray.exceptions.GetTimeoutError:
        return False
    except ray.exceptions.RayActorError:
        return True  # its end is seen elsewhere
    for message in status.messages:
        _LOGGER.warning("%s", message)
    report(status)
    if status.silent_for > setup.limits.server:
        raise TimeoutError(
            f"the server has been {status.phase} for {status.silent_for:.0f} s, more than "
            f"limits.server={setup.limits.server:g} s: is a disk or the object store full or slow?"
        )
    return True


def last_line(error: BaseException) -> str:
    """Returns what an error of Ray says last, which is what happened, without what surrounds it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _plain(ray: Any, error: BaseException) -> BaseException:
    """The error that the server has raised, in one line and none of Ray's own."""
    errors = ray.exceptions
    while isinstance(error, errors.RayTaskError) and isinstance(error.cause, Exception):
        error = error.cause
    if not isinstance(error, errors.RayError):
        return error
    kind: type[Exception] = RuntimeError
    if isinstance(error, errors.ObjectStoreFullError | errors.OutOfDiskError):
        kind = OSError
    elif isinstance(error, errors.GetTimeoutError):
        kind = TimeoutError
    return kind(f"{type(error).__name__}: {first_line(error)}")


def reported(callbacks: Sequence[Callable[[Status], None]]) -> Callable[[Status], None]:
    """Returns a callback that calls all."""

    def report(status: Status) -> None:
        for callback in callbacks:
            callback(status)

    return report
