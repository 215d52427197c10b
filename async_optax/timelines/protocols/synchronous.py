"""Rounds: everyone computes on the same version, and the server waits for them."""

import dataclasses
from collections.abc import Mapping, Sequence

from async_optax.timelines.protocols.policy import Decision, Policy, require_workers
from async_optax.validation import require_count


@dataclasses.dataclass(frozen=True)
class Synchronous:
    """See :func:`synchronous`."""

    backup: int = 0

    @property
    def name(self) -> str:
        """How the protocol was made."""
        return f"synchronous(backup={self.backup})" if self.backup else "synchronous"

    def policy(self, num_workers: int, seed: int = 0) -> Policy:
        """Returns a fresh policy.

        Raises:
          ValueError: if all workers, or more, are backup.
        """
        del seed
        require_workers(num_workers)
        if self.backup >= num_workers:
            raise ValueError(
                f"synchronous(backup={self.backup}) waits for nobody of {num_workers} workers: "
                "backup must be < num_workers"
            )
        return _RoundPolicy(self.backup)


class _RoundPolicy(Policy):
    """A round commits on ``needed`` fresh arrivals; those who came late wait for the next."""

    def __init__(self, backup: int):
        self._backup = backup
        self._computing: dict[int, None] = {}  # ordered sets
        self._waiting: dict[int, None] = {}
        self._num_arrived = 0
        self._needed = 0
        self._weight = 0.0

    def begin(self, idle: Sequence[int], running: Mapping[int, int], version: int) -> Sequence[int]:
        del version
        self._computing = dict.fromkeys(running)
        self._waiting = dict.fromkeys(idle)
        return self._new_round()

    def _new_round(self) -> list[int]:
        starting, self._waiting = list(self._waiting), {}
        self._computing |= dict.fromkeys(starting)
        self._num_arrived = 0
        self._needed = max(1, len(self._computing) - self._backup)
        self._weight = 1 / self._needed
        return starting

    def on_arrival(self, worker: int, staleness: int, time: float) -> Decision:
        if staleness:  # a straggler of an earlier round
            return Decision(start=(worker,))
        del self._computing[worker]
        self._waiting[worker] = None
        self._num_arrived += 1
        weight = self._weight
        if self._num_arrived < self._needed:
            return Decision(True, weight)
        return Decision(True, weight, True, self._new_round())

    def on_leave(self, worker: int, num_lost: int, time: float) -> Decision:
        self._computing.pop(worker, None)
        self._waiting.pop(worker, None)
        # The round goes on with the others. The weights they have stay as they are.
        self._needed = min(self._needed, self._num_arrived + len(self._computing))
        commit = self._num_arrived > 0 and self._num_arrived >= self._needed
        return Decision(commit=commit, start=self._new_round() if commit else self._next())

    def on_join(self, worker: int, time: float) -> Decision:
        self._waiting[worker] = None
        return Decision(start=self._next())

    def _next(self) -> Sequence[int]:
        """A new round if nobody is left in this one, nor anything gathered."""
        return () if self._computing or self._num_arrived else self._new_round()


def synchronous(backup: int = 0) -> Synchronous:
    """The server waits for all workers and commits their mean: minibatch SGD.

    With ``backup`` workers it waits for all but that many of them; the gradients of the others
    are too late, are dropped when they arrive, and their workers start again at once. Everyone
    who was in time waits for the commit.

    A worker that leaves is not waited for: the round commits without it, its share in the mean
    zero. Workers that come join the next round.

    Args:
      backup: number of workers not waited for, >= 0 and less than the number of workers.

    Returns:
      A protocol.

    Raises:
      TypeError: if ``backup`` is not an integer.
      ValueError: if ``backup < 0``.

    Example:
      >>> import async_optax as ao
      >>> times = ao.runtimes.deterministic([1.0, 1.5, 4.0])
      >>> ao.simulate_timeline(synchronous(), times, 3, num_commits=2).commit_times
      array([4., 8.])
      >>> ao.simulate_timeline(synchronous(backup=1), times, 3, num_commits=2).commit_times
      array([1.5, 3. ])

    References:
      Chen, Pan, Monga, Bengio, Jozefowicz, `Revisiting distributed synchronous SGD
      <https://arxiv.org/abs/1604.00981>`_, 2016, for backup workers.
    """
    require_count("backup", backup, at_least=0)
    return Synchronous(backup)
