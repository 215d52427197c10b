"""Which workers are there: asked at the start and when lost, until they fail too often."""

import threading
import time
from collections.abc import Sequence
from typing import Any

from async_optax.distributed.crew import Call
from async_optax.distributed.failures import Failures
from async_optax.distributed.messages import Setup
from async_optax.distributed.monitor import Monitor
from async_optax.validation import first_line

_PAUSE = 0.2  # seconds until a worker that cannot be reached is asked again
_TICK = 0.5


class Attendance:
    """Asks workers whether they are ready, and takes note of what they do wrong.

    Attributes:
      asks_at: workers to be asked, and when.

    Args:
      ray: the module.
      setup: of the run.
      shared: a reference to the setup, in a list.
      workers: handles of the worker actors.
      epoch: which server this is.
      monitor: told what happens.
      interrupted: whether to wait no longer.
    """

    def __init__(
        self,
        ray: Any,
        setup: Setup,
        shared: list[Any],
        workers: Sequence[Any],
        epoch: int,
        monitor: Monitor,
        interrupted: threading.Event,
    ):
        self.asks_at: dict[int, float] = {}
        self._ray, self._shared, self._workers, self._epoch = ray, shared, workers, epoch
        self._limits, self._monitor, self._interrupted = setup.limits, monitor, interrupted
        self._failures = Failures(setup.num_workers, setup.limits)

    @property
    def last_failure(self) -> str:
        """Why a worker failed last, or nothing."""
        return self._failures.last

    def failure_of(self, worker: int) -> str:
        """Why this worker failed last, or nothing."""
        return self._failures.last_of[worker]

    @property
    def nobody_is_left(self) -> bool:
        """Whether all workers are in quarantine."""
        return len(self._monitor.quarantined) == len(self._workers)

    def first(self) -> tuple[list[int], dict[Any, Call]]:
        """Returns the workers that are ready, and the calls of those that may be later.

        Who fails to start is asked again later, while others work; if there are no others, now.

        Raises:
          RuntimeError: if there is none within the limit.
        """
        limit, errors = self._limits.start, self._ray.exceptions
        deadline = time.monotonic() + limit
        calls = {self._ask(worker): worker for worker in range(len(self._workers))}
        present: list[int] = []
        while (calls or not present) and time.monotonic() < deadline:
            self._monitor.enter("waiting for workers to start")
            if self._interrupted.is_set() or not (calls or self.asks_at):
                break
            if not calls:
                time.sleep(_PAUSE)
                calls = {self._ask(worker): worker for worker in self.asks_at}
                self.asks_at.clear()
            for ref in self._ray.wait(list(calls), num_returns=1, timeout=_TICK)[0]:
                worker = calls.pop(ref)
                try:
                    self.is_back(worker, self._ray.get(ref, timeout=self._limits.store))
                    present.append(worker)
                except (errors.RayActorError, errors.OutOfMemoryError) as error:
                    why = f"its process ended ({type(error).__name__})"
                    self.is_gone(worker, why, lost_a_job=False)
                except errors.RayTaskError as error:
                    if isinstance(error.cause, errors.RayError):
                        raise
                    self.cannot_start(worker, raised(error.cause))
        if not present and not self._interrupted.is_set():
            within = f"was ready within limits.start={limit:g} s"
            last = f", at last: {self.last_failure}" if self.last_failure else ""
            raise RuntimeError(f"no worker {'can start' if self.nobody_is_left else within}{last}")
        late = {ref: Call(worker, None, deadline + limit) for ref, worker in calls.items()}
        return sorted(present), late

    def ask(self) -> dict[Any, Call]:
        """Asks workers that were lost whether they are back, once it is time."""
        now = time.monotonic()
        due = [worker for worker, when in self.asks_at.items() if when <= now]
        for worker in due:
            del self.asks_at[worker]
        return {self._ask(worker): Call(worker, None, now + self._limits.start) for worker in due}

    def is_back(self, worker: int, pid: int) -> None:
        """A process is ready."""
        self._monitor.pids[worker] = pid
        self._failures.is_back(worker)

    def has_worked(self, worker: int) -> None:
        """A worker has delivered something usable."""
        self._failures.has_worked(worker)

    def is_gone(self, worker: int, why: str, lost_a_job: bool) -> bool:
        """A process has ended, or cannot be reached; whether its worker is now in quarantine."""
        self._monitor.pids[worker] = 0
        if lost_a_job:
            tally = self._failures.add(worker, why)
            self._monitor.say(f"worker {worker} is lost ({tally}): {why}")
        self._failures.is_away(worker, why)
        return self._is_out_or_asked_later(worker)

    def cannot_start(self, worker: int, why: str) -> bool:
        """A process that is there cannot be set up; whether its worker is now in quarantine."""
        self._monitor.pids[worker] = 0
        tally = self._failures.add(worker, why)
        self._monitor.say(f"worker {worker} cannot start ({tally}): {why}")
        return self._is_out_or_asked_later(worker)

    def is_struck(self, worker: int, why: str) -> bool:
        """A result cannot be used; whether its worker is now in quarantine."""
        tally = self._failures.add(worker, why)
        self._monitor.say(f"worker {worker} sent nothing usable ({tally}): {why}")
        return self._is_out(worker)

    def _ask(self, worker: int) -> Any:
        """Asks a worker to be ready; it answers beside its jobs."""
        ready = self._workers[worker].ready.options(concurrency_group="control")
        return ready.remote(self._epoch, self._shared)

    def _is_out_or_asked_later(self, worker: int) -> bool:
        """Whether a worker that is away is now in quarantine; if not, it is asked again."""
        is_out = self._is_out(worker)
        if not is_out:
            self.asks_at[worker] = time.monotonic() + _PAUSE
        return is_out

    def _is_out(self, worker: int) -> bool:
        if not self._failures.are_too_many(worker):
            return False
        self._monitor.quarantined.add(worker)
        self._monitor.say(f"worker {worker} is in quarantine")
        return True


def raised(error: BaseException) -> str:
    """Returns what a worker has raised, in one line."""
    return f"{type(error).__name__}: {first_line(error)}"
