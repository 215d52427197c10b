"""A fixed number of fresh gradients per commit, from whoever is fast."""

import dataclasses

from async_optax.timelines.protocols.policy import CrewPolicy, Decision, Policy
from async_optax.validation import require_count


@dataclasses.dataclass(frozen=True)
class Rennala:
    """See :func:`rennala`."""

    batch_size: int
    stop: bool

    @property
    def name(self) -> str:
        """How the protocol was made."""
        return f"rennala({self.batch_size}{'' if self.stop else ', stop=False'})"

    def policy(self, num_workers: int, seed: int = 0) -> Policy:
        """Returns a fresh policy."""
        del seed
        require_count("num_workers", num_workers)
        return _FreshPolicy(self.batch_size, self.stop)


class _FreshPolicy(CrewPolicy):
    def __init__(self, batch_size: int, stop: bool):
        super().__init__()
        self._batch_size = batch_size
        self._stop = stop
        self._gathered = 0

    def on_arrival(self, worker: int, staleness: int, time: float) -> Decision:
        if staleness:
            return Decision(start=(worker,))
        self._gathered += 1
        if self._gathered < self._batch_size:
            return Decision(True, 1 / self._batch_size, start=(worker,))
        self._gathered = 0
        if not self._stop:
            return Decision(True, 1 / self._batch_size, True, (worker,))
        return Decision(True, 1 / self._batch_size, True, *self._restart_all_but(worker))


def rennala(batch_size: int, stop: bool = True) -> Rennala:
    """The server commits the mean of the first ``batch_size`` gradients at its current version.

    Whoever delivers starts again at once, on the same version until the commit; so fast workers
    contribute several. Nothing stale is used.

    Args:
      batch_size: B, gradients per commit, >= 1.
      stop: whether a commit throws away the jobs in flight and restarts everyone on the new
        version. Without, they are dropped when they arrive.

    Returns:
      A protocol.

    Raises:
      TypeError: if ``batch_size`` is not an integer or ``stop`` not a boolean.
      ValueError: if ``batch_size < 1``.

    Example:
      >>> import async_optax as ao
      >>> times = ao.runtimes.deterministic([1.0, 2.5])
      >>> timeline = ao.simulate_timeline(rennala(3), times, 2, num_commits=2)
      >>> timeline.worker
      array([0, 0, 1, 0, 0, 1], dtype=int32)
      >>> timeline.commit_times
      array([2.5, 5. ])

    References:
      Tyurin, Richtarik, `Optimal time complexities of parallel stochastic optimization methods
      under a fixed computation model <https://arxiv.org/abs/2305.12387>`_, 2023. There a worker
      finishes its job before it takes the new version: ``stop=False``.
    """
    require_count("batch_size", batch_size)
    if not isinstance(stop, bool):
        raise TypeError(f"stop must be True or False, got {stop!r}")
    return Rennala(batch_size, stop)
