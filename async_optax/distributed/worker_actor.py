"""The worker process: waits for jobs, computes them, and sends what comes out."""

import os
import pathlib
import socket
import threading
import time
from typing import Any

import jax
import numpy as np

from async_optax.distributed.computer import Computer
from async_optax.distributed.messages import Reply, Request, Setup
from async_optax.distributed.packing import pack
from async_optax.distributed.session import import_ray
from async_optax.validation import require_number

_BOOT_ID = pathlib.Path("/proc/sys/kernel/random/boot_id")


class NotReadyError(RuntimeError):
    """The process has been started again since the server last heard of it."""


class StaleEpochError(RuntimeError):
    """A server that has been replaced asks for a job."""


class WorkerActor:
    """A worker, as a Ray actor: :meth:`compute` runs in one thread, the rest in another.

    Args:
      worker: which worker this is.
    """

    _computer: Computer

    def __init__(self, worker: int):
        self._worker = worker
        self._is_set_up = False
        self._epoch = 0
        self._machine = machine_name()
        self._cancelled: set[tuple[int, int]] = set()
        self._changed = threading.Condition()

    def ready(self, epoch: int, shared: list[Any]) -> int:
        """Sets the process up, once; from then on it serves no older server.

        Args:
          epoch: which server asks.
          shared: a reference to the setup of the run, in a list.

        Returns:
          Its process number.
        """
        if not self._is_set_up:
            self._set_up(import_ray().get(shared[0]))
        with self._changed:
            self._epoch = max(self._epoch, epoch)
            self._cancelled = {entry for entry in self._cancelled if entry[0] >= self._epoch}
            self._changed.notify_all()
        return os.getpid()

    def _set_up(self, setup: Setup) -> None:
        configure_jax(setup.platform, setup.x64, setup.threads)
        key = jax.random.wrap_key_data(jax.numpy.asarray(setup.key_data), impl=setup.key_impl)
        self._extra_time = setup.extra_time
        self._form = getattr(setup.program, "packed_as", None)
        self._computer = Computer(
            setup.problem, setup.program, self._worker, key, setup.served_like
        )
        self._computer.warm_up()
        self._is_set_up = True

    def cancel(self, epoch: int, job: int) -> None:
        """The job's result is not wanted any more: it may stop where it is."""
        with self._changed:
            if epoch >= self._epoch:
                self._cancelled.add((epoch, job))
                self._changed.notify_all()

    def compute(self, served: list[np.ndarray], request: Request) -> Reply:
        """Computes a job.

        Args:
          served: leaves of what the worker reads.
          request: which job.

        Raises:
          NotReadyError: if the process is new.
          StaleEpochError: if a newer server has called.
        """
        if not self._is_set_up:
            raise NotReadyError(f"worker {self._worker} is a new process")
        began = time.monotonic()
        self._require_epoch(request.epoch)
        update: Any = None
        loss, fresh = float("nan"), False
        if not self._is_cancelled(request):
            update, loss, fresh = self._computer.compute(served, request.job, request.after)
            update = pack(self._form, update)
            self._linger(request)
        with self._changed:
            self._cancelled.discard((request.epoch, request.job))
        ended = time.monotonic()
        return Reply(request.epoch, request.job, update, loss, fresh, began, ended, self._machine)

    def _require_epoch(self, epoch: int) -> None:
        with self._changed:
            if epoch < self._epoch:
                raise StaleEpochError(
                    f"worker {self._worker} refuses server {epoch}: server {self._epoch} has "
                    "taken over"
                )
            self._epoch = epoch

    def _is_cancelled(self, request: Request) -> bool:
        with self._changed:
            return self._is_unwanted(request)

    def _is_unwanted(self, request: Request) -> bool:
        cancelled = (request.epoch, request.job) in self._cancelled
        return cancelled or request.epoch < self._epoch

    def _linger(self, request: Request) -> None:
        """Takes the extra time of the job, unless it is cancelled meanwhile."""
        if self._extra_time is None:
            return
        seconds = self._extra_time(self._worker, request.job)
        require_number(f"extra_time({self._worker}, {request.job})", seconds, at_least=0)
        with self._changed:
            self._changed.wait_for(lambda: self._is_unwanted(request), timeout=float(seconds))


def configure_jax(platform: str | None, x64: bool, threads: int) -> None:
    """Sets JAX up in a process that has not used it yet."""
    if platform == "cpu":
        flags = os.environ.get("XLA_FLAGS", "")
        if threads == 1 and "xla_cpu_multi_thread_eigen" not in flags:
            alone = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
            os.environ["XLA_FLAGS"] = f"{flags} {alone}".strip()
        jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", x64)


def machine_name() -> str:
    """Names the machine, anew with each boot: processes on it share a clock."""
    boot = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
    return f"{socket.gethostname()} {boot}"
