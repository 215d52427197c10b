"""Rounds: everyone computes on the same version, and the server waits for them."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from async_optax.timelines.protocols.draws import sample, uniforms
from async_optax.timelines.protocols.policy import Decision, Policy
from async_optax.validation import require_count


@dataclasses.dataclass(frozen=True)
class Synchronous:
    """See :func:`synchronous`."""

    backup: int = 0
    cohort: int | None = None

    @property
    def name(self) -> str:
        """How the protocol was made."""
        given = [f"backup={self.backup}"] * bool(self.backup)
        given += [f"cohort={self.cohort}"] * bool(self.cohort)
        return f"synchronous({', '.join(given)})" if given else "synchronous"

    def policy(self, num_workers: int, seed: int = 0) -> Policy:
        """Returns a fresh policy.

        Raises:
          ValueError: if the cohort is larger than the number of workers, or all of a round, or
            more, are backup.
        """
        require_count("num_workers", num_workers)
        if self.cohort is not None and self.cohort > num_workers:
            raise ValueError(
                f"{self.name} draws more workers than the {num_workers} there are: "
                "cohort must be <= num_workers"
            )
        size = num_workers if self.cohort is None else self.cohort
        if self.backup >= size:
            raise ValueError(
                f"{self.name} waits for nobody of {size} workers: backup must be < {size}"
            )
        return _RoundPolicy(self.backup, self.cohort, uniforms(seed))


class _RoundPolicy(Policy):
    """A round commits on ``needed`` fresh arrivals; who comes, or is late, may join the next.

    Without cohorts, a straggler starts again at once, on the version of the round that runs.
    """

    def __init__(self, backup: int, cohort: int | None, draws: Iterator[float]):
        self._backup = backup
        self._cohort = cohort
        self._draws = draws
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
        starting = list(self._waiting)
        if self._cohort is not None:
            starting = sample(starting, self._cohort, self._draws)
            self._computing = {}  # of who is late, nothing is expected
        for worker in starting:
            del self._waiting[worker]
        self._computing |= dict.fromkeys(starting)
        self._num_arrived = 0
        self._needed = max(1, len(self._computing) - self._backup)
        self._weight = 1 / self._needed
        return starting

    def on_arrival(self, worker: int, staleness: int, time: float) -> Decision:
        if staleness and self._cohort is None:
            return Decision(start=(worker,))
        self._waiting[worker] = None
        if staleness:
            return Decision(start=self._next())
        del self._computing[worker]
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


def synchronous(backup: int = 0, cohort: int | None = None) -> Synchronous:
    """The server waits for all workers and commits their mean: minibatch SGD.

    With ``backup`` workers it waits for all but that many of them; the gradients of the others
    are too late, are dropped when they arrive, and their workers start again at once. Everyone
    who was in time waits for the commit.

    With a ``cohort``, each round is computed by that many workers, drawn at random from those who
    are free: the rounds of federated averaging.

    A worker that leaves is not waited for: the round commits without it, its share in the mean
    zero. Workers that come join the next round.

    Args:
      backup: number of workers not waited for, >= 0 and less than there are in a round.
      cohort: workers per round, >= 1; ``None`` is all of them.

    Returns:
      A protocol.

    Raises:
      TypeError: if an argument is not an integer.
      ValueError: if ``backup < 0`` or ``cohort < 1``.

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
      McMahan et al., `Communication-efficient learning of deep networks from decentralized data
      <https://arxiv.org/abs/1602.05629>`_, 2017, for cohorts.
    """
    require_count("backup", backup, at_least=0)
    if cohort is not None:
        require_count("cohort", cohort)
    return Synchronous(backup, cohort)
