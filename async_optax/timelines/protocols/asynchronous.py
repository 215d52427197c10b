"""Every arrival is a commit; who gets the next job is the assignment."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from async_optax.timelines.protocols.draws import uniforms
from async_optax.timelines.protocols.policy import CrewPolicy, Decision, Policy
from async_optax.timelines.protocols.uncoupled import UncoupledPolicy
from async_optax.validation import require_choice, require_count


@dataclasses.dataclass(frozen=True)
class Asynchronous:
    """See :func:`asynchronous`."""

    assignment: str = "immediate"
    concurrency: int | None = None

    @property
    def name(self) -> str:
        """How the protocol was made."""
        if self.assignment == "immediate":
            return "asynchronous"
        concurrency = "" if self.concurrency is None else f", concurrency={self.concurrency}"
        return f"asynchronous({self.assignment}{concurrency})"

    def policy(self, num_workers: int, seed: int = 0) -> Policy:
        """Returns a fresh policy."""
        require_count("num_workers", num_workers)
        if self.assignment == "immediate":
            return UncoupledPolicy(1)
        draws = uniforms(seed)
        turns = (
            _shuffled(num_workers, draws)
            if self.assignment == "shuffled"
            else (int(num_workers * draw) for draw in draws)
        )
        return _AssigningPolicy(turns, self.concurrency or num_workers)


def _shuffled(num_workers: int, draws: Iterator[float]) -> Iterator[int]:
    while True:
        keys = [next(draws) for _ in range(num_workers)]
        yield from sorted(range(num_workers), key=keys.__getitem__)


class _AssigningPolicy(CrewPolicy):
    """Keeps ``concurrency`` jobs in flight; each goes to the worker whose turn it is."""

    queues = True

    def __init__(self, turns: Iterator[int], concurrency: int):
        super().__init__()
        self._turns = turns
        self._concurrency = concurrency
        self._in_flight = 0

    def begin(self, idle: Sequence[int], running: Mapping[int, int], version: int) -> Sequence[int]:
        super().begin(idle, running, version)
        self._in_flight = len(running)
        return self._assign()

    def _assign(self) -> list[int]:
        """Fills up to the concurrency; those who are away are passed over."""
        chosen: list[int] = []
        if self._present:
            while self._in_flight < self._concurrency:
                worker = next(self._turns)
                if worker in self._present:
                    chosen.append(worker)
                    self._in_flight += 1
        return chosen

    def on_arrival(self, worker: int, staleness: int, time: float) -> Decision:
        self._in_flight -= 1
        return Decision(True, 1.0, True, self._assign())

    def on_leave(self, worker: int, num_lost: int, time: float) -> Decision:
        super().on_leave(worker, num_lost, time)
        self._in_flight -= num_lost
        return Decision(start=self._assign())

    def on_join(self, worker: int, time: float) -> Decision:
        super().on_join(worker, time)
        return Decision(start=self._assign())


def asynchronous(assignment: str = "immediate", concurrency: int | None = None) -> Asynchronous:
    """Every arrival is a commit, and one new job is handed out on the new version.

    With the ``immediate`` assignment it goes to the worker that arrived: all workers are always
    busy, fast ones deliver more, and the mean staleness is ``num_workers - 1`` whatever the
    compute times. The others keep ``concurrency`` jobs in flight and give each to a worker
    drawn at random (``uniform``) or to all of them in turn, in a new random order each time round
    (``shuffled``): all deliver equally often, as federated learning on unlike data wants. A job
    for a busy worker waits in its queue, first in, first out, with the version it was given.

    Args:
      assignment: ``"immediate"``, ``"uniform"`` or ``"shuffled"``.
      concurrency: jobs in flight, >= 1; ``None`` is the number of workers. Only for assignments
        that are not immediate.

    Returns:
      A protocol.

    Raises:
      TypeError: if ``concurrency`` is not an integer.
      ValueError: if an argument is not allowed.

    Example:
      >>> policy = asynchronous().policy(num_workers=4)
      >>> policy.on_arrival(worker=2, staleness=3, time=1.0).start
      (2,)
      >>> asynchronous("shuffled").policy(num_workers=4).begin([0, 1, 2, 3], {}, version=0)
      [1, 3, 0, 2]

    References:
      Koloskova, Stich, Jaggi, `Sharper convergence guarantees for asynchronous SGD
      <https://arxiv.org/abs/2206.08307>`_, 2022 (uniform). Islamov, Safaryan, Alistarh, `AsGrad
      <https://arxiv.org/abs/2310.20452>`_, 2024 (shuffled).
    """
    require_choice("assignment", assignment, ("immediate", "uniform", "shuffled"))
    if concurrency is not None:
        require_count("concurrency", concurrency)
        if assignment == "immediate":
            raise ValueError(
                f"concurrency={concurrency} needs assignment='uniform' or 'shuffled': with "
                "'immediate' every worker has one job"
            )
    return Asynchronous(assignment, concurrency)
