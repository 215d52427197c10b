"""Asynchronous with a threshold: what is too stale is ignored, or stopped before it arrives."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

from async_optax.timelines.protocols.policy import Decision, Policy
from async_optax.validation import require_count


@dataclasses.dataclass(frozen=True)
class Ringmaster:
    """See :func:`ringmaster`."""

    max_staleness: int
    stop: bool

    @property
    def name(self) -> str:
        """How the protocol was made."""
        return f"ringmaster({self.max_staleness}{', stop=True' if self.stop else ''})"

    def policy(self, num_workers: int, seed: int = 0) -> Policy:
        """Returns a fresh policy."""
        del seed
        require_count("num_workers", num_workers)
        return (_StoppingPolicy if self.stop else _IgnoringPolicy)(self.max_staleness)


class _IgnoringPolicy(Policy):
    def __init__(self, max_staleness: int):
        self._max_staleness = max_staleness

    def on_arrival(self, worker: int, staleness: int, time: float) -> Decision:
        use = staleness <= self._max_staleness
        return Decision(use, 1.0, use, (worker,))


class _StoppingPolicy(Policy):
    """Knows what each worker has read, oldest first, and stops it when that is too old."""

    def __init__(self, max_staleness: int):
        self._max_staleness = max_staleness
        self._version = 0
        self._read: dict[int, int] = {}  # of each worker's running job
        self._oldest: collections.deque[tuple[int, int]] = collections.deque()  # (read, worker)

    def begin(self, idle: Sequence[int], running: Mapping[int, int], version: int) -> Sequence[int]:
        self._version = version
        for worker, staleness in sorted(running.items(), key=lambda item: -item[1]):
            self._reads(worker, version - staleness)
        for worker in idle:
            self._reads(worker, version)
        return idle

    def _reads(self, worker: int, version: int) -> None:
        self._read[worker] = version
        self._oldest.append((version, worker))

    def on_arrival(self, worker: int, staleness: int, time: float) -> Decision:
        use = staleness <= self._max_staleness  # only what another protocol started is not
        self._version += use
        stopped = []
        del self._read[worker]
        while self._oldest and self._oldest[0][0] < self._version - self._max_staleness:
            read, other = self._oldest.popleft()
            if self._read.get(other) == read:
                del self._read[other]  # once: who left and came back is on the list twice
                stopped.append(other)
        for restarted in (worker, *stopped):
            self._reads(restarted, self._version)
        if len(self._oldest) > 4 * len(self._read) + 64:  # mostly of jobs that have arrived
            live = [(read, other) for read, other in self._oldest if self._read.get(other) == read]
            self._oldest = collections.deque(dict.fromkeys(live))
        return Decision(use, 1.0, use, (worker, *stopped), stopped)

    def on_leave(self, worker: int, num_lost: int, time: float) -> Decision:
        self._read.pop(worker, None)
        return Decision()

    def on_join(self, worker: int, time: float) -> Decision:
        self._reads(worker, self._version)
        return Decision(start=(worker,))


def ringmaster(max_staleness: int, stop: bool = False) -> Ringmaster:
    """Asynchronous, but what is staler than ``max_staleness`` is not used.

    Args:
      max_staleness: largest staleness that is used, >= 0.
      stop: whether a job is thrown away, and its worker restarted on the current version, as soon
        as it would be too stale. Without, it is ignored when it arrives.

    Returns:
      A protocol.

    Raises:
      TypeError: if ``max_staleness`` is not an integer or ``stop`` not a boolean.
      ValueError: if ``max_staleness < 0``.

    Example:
      >>> import async_optax as ao
      >>> times = ao.runtimes.deterministic([1.0, 3.5])
      >>> ao.simulate_timeline(ringmaster(1), times, 2, num_commits=4).accepted
      array([ True,  True,  True, False,  True])
      >>> timeline = ao.simulate_timeline(ringmaster(1, stop=True), times, 2, num_commits=4)
      >>> timeline.accepted, timeline.lost.stop_time[timeline.lost.aborted]
      (array([ True,  True,  True,  True]), array([2., 4.]))

    References:
      Maranjyan, Tyurin, Richtarik, `Ringmaster ASGD: the first asynchronous SGD with optimal time
      complexity <https://arxiv.org/abs/2501.16168>`_, 2025: their R is ``max_staleness + 1``.
    """
    require_count("max_staleness", max_staleness, at_least=0)
    if not isinstance(stop, bool):
        raise TypeError(f"stop must be True or False, got {stop!r}")
    return Ringmaster(max_staleness, stop)
