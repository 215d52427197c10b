"""Stale synchronous parallel: no worker runs further ahead of the slowest than a bound."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

from async_optax.timelines.protocols.policy import Decision, Policy
from async_optax.validation import require_count


@dataclasses.dataclass(frozen=True)
class BoundedStaleness:
    """See :func:`bounded_staleness`."""

    bound: int

    @property
    def name(self) -> str:
        """How the protocol was made."""
        return f"bounded_staleness({self.bound})"

    def policy(self, num_workers: int, seed: int = 0) -> Policy:
        """Returns a fresh policy."""
        del seed
        require_count("num_workers", num_workers)
        return _ClockPolicy(self.bound)


class _ClockPolicy(Policy):
    """Clocks count a worker's arrivals; who is more than ``bound`` ahead of the least is parked."""

    def __init__(self, bound: int):
        self._bound = bound
        self._clock: dict[int, int] = {}
        self._num_at: collections.Counter[int] = collections.Counter()
        self._parked: dict[int, list[int]] = {}  # by clock
        self._slowest = 0

    def begin(self, idle: Sequence[int], running: Mapping[int, int], version: int) -> Sequence[int]:
        del version
        self._clock = dict.fromkeys([*idle, *running], 0)
        self._num_at[0] = len(self._clock)
        return idle

    def on_arrival(self, worker: int, staleness: int, time: float) -> Decision:
        clock = self._clock[worker]
        self._num_at[clock] -= 1
        self._clock[worker] = clock = clock + 1
        self._num_at[clock] += 1
        freed = self._catch_up()
        if clock > self._slowest + self._bound:
            self._parked.setdefault(clock, []).append(worker)
        else:
            freed.append(worker)
        return Decision(True, 1.0, True, freed)

    def _catch_up(self) -> list[int]:
        """Moves on to the least clock of all; returns those who may run again."""
        freed: list[int] = []
        while self._clock and not self._num_at[self._slowest]:
            del self._num_at[self._slowest]
            self._slowest += 1
            freed += self._parked.pop(self._slowest + self._bound, ())
        return freed

    def on_leave(self, worker: int, num_lost: int, time: float) -> Decision:
        clock = self._clock.pop(worker)
        self._num_at[clock] -= 1
        if worker in self._parked.get(clock, ()):
            self._parked[clock].remove(worker)
        return Decision(start=self._catch_up())

    def on_join(self, worker: int, time: float) -> Decision:
        # With nobody there, all clocks are gone: any will do.
        self._clock[worker] = self._slowest
        self._num_at[self._slowest] += 1
        return Decision(start=(worker,))


def bounded_staleness(bound: int) -> BoundedStaleness:
    """Every arrival is a commit; who is more than ``bound`` jobs ahead of the slowest waits.

    A worker's clock is the number of its arrivals. At clock c it starts its next job only if
    ``c - min(clocks) <= bound``, so clocks never differ by more than ``bound + 1``. A bound of 0
    lets nobody start round c + 1 before all have finished round c, yet commits each arrival by
    itself. A worker that leaves is not waited for; one that comes starts at the least clock.

    Args:
      bound: >= 0.

    Returns:
      A protocol.

    Raises:
      TypeError: if ``bound`` is not an integer.
      ValueError: if ``bound < 0``.

    Example:
      >>> policy = bounded_staleness(0).policy(num_workers=2)
      >>> policy.begin([0, 1], {}, version=0)
      [0, 1]
      >>> policy.on_arrival(worker=0, staleness=0, time=1.0).start  # waits for worker 1
      []
      >>> policy.on_arrival(worker=1, staleness=1, time=8.0).start
      [0, 1]

    References:
      Ho et al., `More effective distributed ML via a stale synchronous parallel parameter server
      <https://papers.nips.cc/paper/2013/hash/b7bb35b9c6ca2aee2df08cf09d7016c2-Abstract.html>`_,
      2013. There a worker may also read copies that lack others' latest commits; here it reads the
      server's version.
    """
    require_count("bound", bound, at_least=0)
    return BoundedStaleness(bound)
