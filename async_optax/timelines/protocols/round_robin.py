"""Workers deliver in a fixed order, one commit each."""

import dataclasses
from collections.abc import Mapping, Sequence

from async_optax.timelines.protocols.policy import Decision, Policy
from async_optax.validation import require_count


@dataclasses.dataclass(frozen=True)
class RoundRobin:
    """See :func:`round_robin`."""

    name: str = "round_robin"

    def policy(self, num_workers: int, seed: int = 0) -> Policy:
        """Returns a fresh policy."""
        del seed
        require_count("num_workers", num_workers)
        return _TurnPolicy(num_workers)


class _TurnPolicy(Policy):
    holds = True

    def __init__(self, num_workers: int):
        self._num_workers = num_workers
        self._present: set[int] = set()
        self._early: set[int] = set()  # whose arrivals are put aside
        self._turn = 0

    def begin(self, idle: Sequence[int], running: Mapping[int, int], version: int) -> Sequence[int]:
        del version
        self._present = {*idle, *running}
        self._turn = min(self._present, default=0)
        return idle

    def on_arrival(self, worker: int, staleness: int, time: float) -> Decision:
        if worker != self._turn:
            self._early.add(worker)
            return Decision(hold=True)
        return Decision(True, 1.0, True, (worker,), release=self._next_turn())

    def _next_turn(self) -> Sequence[int]:
        """Passes the turn on; returns the worker whose turn it is if it has arrived already."""
        if not self._present:
            return ()
        self._turn = (self._turn + 1) % self._num_workers
        while self._turn not in self._present:
            self._turn = (self._turn + 1) % self._num_workers
        if self._turn not in self._early:
            return ()
        self._early.remove(self._turn)
        return (self._turn,)

    def on_leave(self, worker: int, num_lost: int, time: float) -> Decision:
        self._present.discard(worker)
        self._early.discard(worker)
        return Decision(release=self._next_turn() if worker == self._turn else ())

    def on_join(self, worker: int, time: float) -> Decision:
        if not self._present:
            self._turn = worker
        self._present.add(worker)
        return Decision(start=(worker,))


def round_robin() -> RoundRobin:
    """Every arrival is a commit, in the order 0, 1, ..., n - 1, 0, ...; who is early waits.

    After the first round the staleness is ``num_workers - 1``, always. A worker that leaves is
    passed over.

    Returns:
      A protocol.

    Example:
      >>> import async_optax as ao
      >>> times = ao.runtimes.deterministic([3.0, 1.0, 1.0])
      >>> timeline = ao.simulate_timeline(round_robin(), times, 3, num_commits=6)
      >>> timeline.worker, timeline.time
      (array([0, 1, 2, 0, 1, 2], dtype=int32), array([3., 3., 3., 6., 6., 6.]))

    References:
      Langford, Smola, Zinkevich, `Slow learners are fast <https://arxiv.org/abs/0911.0491>`_, 2009.
    """
    return RoundRobin()
