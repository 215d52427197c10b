"""Protocols under which whoever arrives starts again at once: nobody waits for anybody."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from async_optax.timelines.protocols.policy import Decision, Policy
from async_optax.validation import require_count


class UncoupledPolicy(Policy):
    """Commits every ``size`` arrivals at equal weights; whoever arrives starts again at once.

    Arrival times then do not depend on decisions, and all decisions follow from the order of
    the arrivals (:meth:`decide_all`).

    Jobs carry tokens if there is a ``tolerance``: the j-th job handed out has token
    ``floor(j / size)``, the version at which it would arrive if all jobs were equally fast. An
    arrival more than ``tolerance`` versions behind its token has no weight.
    """

    def __init__(self, size: int, tolerance: int | None = None):
        self.size = size
        self._tolerance = tolerance
        self.issues_tokens = tolerance is not None
        self._gathered = 0
        self._version = 0
        self._handed_out = 0
        self._tokens: dict[int, int] = {}  # of each worker's running job
        self._first_version = 0

    def begin(self, idle: Sequence[int], running: Mapping[int, int], version: int) -> Sequence[int]:
        """Hands the first tokens out; jobs in flight count as handed out when they read."""
        self._version = self._first_version = version
        self._tokens = {worker: version - staleness for worker, staleness in running.items()}
        self._handed_out = len(running)
        for worker in idle:
            self._hand_out(worker)
        return idle

    def _hand_out(self, worker: int) -> None:
        self._tokens[worker] = self._first_version + self._handed_out // self.size
        self._handed_out += 1

    def on_arrival(self, worker: int, staleness: int, time: float) -> Decision:
        """Accepts it, commits if it is the last of its commit, and starts its worker again."""
        self._gathered += 1
        commit = self._gathered == self.size
        if commit:
            self._gathered = 0
        if self._tolerance is None:
            return Decision(True, 1 / self.size, commit, (worker,))
        token = self._tokens[worker]
        within = self._version - token <= self._tolerance
        self._version += commit
        self._hand_out(worker)
        # Someone must be accepted for a commit: the last one, with no weight if too late.
        return Decision(
            within or commit, 1 / self.size if within else 0.0, commit, (worker,), token=token
        )

    def on_join(self, worker: int, time: float) -> Decision:
        """Starts the worker, with a token of its own."""
        self._hand_out(worker)
        return Decision(start=(worker,))

    def on_leave(self, worker: int, num_lost: int, time: float) -> Decision:
        """Hands the lost job's place in the ideal order to the next one."""
        self._handed_out -= num_lost
        return Decision()

    def decide_all(
        self, job: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
        """Returns the decisions on all arrivals at once, when everyone starts at version 0.

        Args:
          job: int ``[num_arrivals]``, the place of each arrival's job in the order of starting.

        Returns:
          The columns ``version`` (before), ``weight``, ``accepted``, ``commit``, and ``token`` or
          ``None``.
        """
        row = np.arange(len(job), dtype=np.int32)
        version = row // np.int32(self.size)
        commit = row % np.int32(self.size) == self.size - 1
        weight = np.full(len(job), 1 / self.size)
        if self._tolerance is None:
            return version, weight, np.ones(len(job), bool), commit, None
        token = job // np.int32(self.size)
        late = version - token > self._tolerance
        weight[late] = 0.0
        return version, weight, ~late | commit, commit, token


@dataclasses.dataclass(frozen=True)
class Softsync:
    """See :func:`softsync`."""

    splits: int

    @property
    def name(self) -> str:
        """How the protocol was made."""
        return f"softsync({self.splits})"

    def policy(self, num_workers: int, seed: int = 0) -> Policy:
        """Returns a fresh policy.

        Raises:
          ValueError: if there are fewer workers than ``splits``.
        """
        del seed
        require_count("num_workers", num_workers)
        if self.splits > num_workers:
            raise ValueError(
                f"softsync({self.splits}) needs >= {self.splits} workers, got {num_workers}"
            )
        return UncoupledPolicy(num_workers // self.splits)


def softsync(splits: int) -> Softsync:
    """The server commits the mean of every ``floor(num_workers / splits)`` uploads; nobody waits.

    ``softsync(1)`` gathers as many uploads as there are workers, from whom ever they come;
    ``softsync(num_workers)`` is asynchronous. The staleness is about ``splits``.

    Args:
      splits: n of "n-softsync", >= 1 and at most the number of workers.

    Returns:
      A protocol.

    Raises:
      TypeError: if ``splits`` is not an integer.
      ValueError: if ``splits < 1``.

    Example:
      >>> softsync(2).policy(num_workers=5).on_arrival(worker=0, staleness=0, time=1.0).weight
      0.5

    References:
      Zhang, Gupta, Lian, Liu, `Staleness-aware async-SGD
      <https://arxiv.org/abs/1511.05950>`_, 2016. There each gradient is also divided by its
      staleness: that is the method's business, :func:`async_optax.optimizers.staleness_aware_sgd`.
    """
    require_count("splits", splits)
    return Softsync(splits)


@dataclasses.dataclass(frozen=True)
class TokenControl:
    """See :func:`token_control`."""

    global_batch: int
    tolerance: int

    @property
    def name(self) -> str:
        """How the protocol was made."""
        return f"token_control({self.global_batch}, tolerance={self.tolerance})"

    def policy(self, num_workers: int, seed: int = 0) -> Policy:
        """Returns a fresh policy."""
        del seed
        require_count("num_workers", num_workers)
        return UncoupledPolicy(self.global_batch, self.tolerance)


def token_control(global_batch: int, tolerance: int = 4) -> TokenControl:
    """Commits as many gradients as the synchronous run would; what is too late has no weight.

    The j-th job handed out carries the token ``floor(j / M)``, M = ``global_batch``: the version
    at which it would arrive in the ideal order. Every M arrivals the server commits
    ``sum(g) / M`` over those with ``version - token <= tolerance``; the divisor stays M. So the
    learning rate of a synchronous run with M workers needs no tuning anew.

    The timeline records both measures: ``staleness`` (version minus version read) and
    ``data_staleness`` (version minus token, negative for who is ahead of the ideal order). An
    arrival without weight is not accepted, unless it completes the batch.

    Args:
      global_batch: M, gradients per commit, >= 1.
      tolerance: largest data staleness that counts, >= 0.

    Returns:
      A protocol.

    Raises:
      TypeError: if an argument is not an integer.
      ValueError: if one is out of range.

    Example:
      >>> import async_optax as ao
      >>> timeline = ao.simulate_timeline(
      ...     token_control(4, tolerance=0), ao.runtimes.two_speed(4.0), 4, num_commits=3
      ... )
      >>> timeline.data_staleness
      array([ 0,  0, -1, -1,  0,  0,  1,  1,  0,  0, -1, -1], dtype=int32)
      >>> timeline.accepted.astype(int)
      array([1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1])

    References:
      Su et al., `GBA: a tuning-free approach to switch between synchronous and asynchronous
      training <https://arxiv.org/abs/2205.11048>`_, 2022. Our reading: the paper's constants and
      code are not known to us, and ``tolerance`` 3 or 4 is from memory.
    """
    require_count("global_batch", global_batch)
    require_count("tolerance", tolerance, at_least=0)
    return TokenControl(global_batch, tolerance)
