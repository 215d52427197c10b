"""Trials with a time limit: a job that takes too long is thrown away and tried anew."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from async_optax.timelines.protocols.policy import CrewPolicy, Decision, Policy
from async_optax.validation import require_count, require_number


@dataclasses.dataclass(frozen=True)
class MindFlayer:
    """See :func:`mindflayer`."""

    time_limit: float | tuple[float, ...]
    batch_size: int | None
    success_probability: float

    @property
    def name(self) -> str:
        """How the protocol was made."""
        limit = self.time_limit
        shown = f"{limit:g}" if isinstance(limit, float) else f"{len(limit)} limits"
        batch = "" if self.batch_size is None else f", batch_size={self.batch_size}"
        return f"mindflayer({shown}{batch})"

    def policy(self, num_workers: int, seed: int = 0) -> Policy:
        """Returns a fresh policy.

        Raises:
          ValueError: if there is not one time limit for all, or one per worker.
        """
        del seed
        require_count("num_workers", num_workers)
        limits = [self.time_limit] * num_workers if isinstance(self.time_limit, float) else None
        limits = list(self.time_limit) if limits is None else limits  # type: ignore[arg-type]
        if len(limits) != num_workers:
            raise ValueError(f"time_limit has {len(limits)} entries for {num_workers} workers")
        return _TrialPolicy(limits, self.batch_size or num_workers, self.success_probability)


class _TrialPolicy(CrewPolicy):
    def __init__(self, limits: Sequence[float], batch_size: int, success_probability: float):
        super().__init__()
        self.time_limits = limits
        self._batch_size = batch_size
        self._weight = 1 / (batch_size * success_probability)
        self._trials = self._successes = 0

    def on_arrival(self, worker: int, staleness: int, time: float) -> Decision:
        self._successes += 1
        return self._after_trial((worker,), accept=True)

    def on_timeout(self, worker: int, time: float) -> Decision:
        return self._after_trial((worker,))

    def on_leave(self, worker: int, num_lost: int, time: float) -> Decision:
        decision = super().on_leave(worker, num_lost, time)
        return self._after_trial(()) if num_lost else decision

    def _after_trial(self, free: tuple[int, ...], accept: bool = False) -> Decision:
        self._trials += 1
        if self._trials < self._batch_size:
            return Decision(accept, self._weight, start=free)
        commit = self._successes > 0
        self._trials = self._successes = 0
        if not commit:  # nothing to commit: everyone's version is still the current one
            return Decision(start=free)
        return Decision(accept, self._weight, True, *self._restart_all_but(*free))


def mindflayer(
    time_limit: float | Sequence[float],
    batch_size: int | None = None,
    success_probability: float = 1.0,
) -> MindFlayer:
    """A job beyond its time limit is thrown away; a commit gathers ``batch_size`` trials.

    All compute on the server's current version. A trial is a job that arrives, or that its
    worker throws away after ``time_limit``, and either way the worker tries anew at once. After
    ``batch_size`` trials the server commits ``sum(g) / (batch_size * success_probability)`` over
    those that arrived, and restarts everyone. If none did, it commits nothing and counts afresh. A
    job that is lost with its worker is a trial that failed.

    Args:
      time_limit: from a job's start until it is sent, > 0; one for all, or one per worker.
      batch_size: B, trials per commit, >= 1; ``None`` is the number of workers.
      success_probability: of a trial, in (0, 1], to correct the mean for the failed ones. With
        several workers, short jobs finish more often before the batch is full: then the share of
        trials that arrive is larger than the probability that one does.

    Returns:
      A protocol.

    Raises:
      TypeError: if an argument is no number.
      ValueError: if one is out of range.

    Example:
      >>> import async_optax as ao
      >>> timeline = ao.simulate_timeline(
      ...     mindflayer(2.0), ao.runtimes.pareto(0.8), 4, num_commits=50
      ... )
      >>> bool((timeline.time - timeline.start_time).max() <= 2.0)
      True

    References:
      Maranjyan, Shaikh Omar, Richtarik, `MindFlayer SGD: efficient parallel SGD in the presence of
      heterogeneous and random worker compute times <https://arxiv.org/abs/2410.04285>`_, 2024. Our
      reading: there each worker has a number of trials of its own per commit.
    """
    require_number("time_limit", np.asarray(time_limit), above=0, scalar=False)
    if batch_size is not None:
        require_count("batch_size", batch_size)
    require_number("success_probability", success_probability, above=0, at_most=1)
    limits = np.asarray(time_limit, float)
    if limits.ndim > 1 or not limits.size:
        raise ValueError(f"time_limit must be a number or one per worker, got shape {limits.shape}")
    limit = float(limits) if limits.ndim == 0 else tuple(limits.tolist())
    return MindFlayer(limit, batch_size, float(success_probability))
