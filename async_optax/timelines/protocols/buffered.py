"""The server commits the mean of a fixed number of uploads."""

import dataclasses

from async_optax.timelines.protocols.policy import Decision, Policy
from async_optax.timelines.protocols.uncoupled import UncoupledPolicy
from async_optax.validation import require_count


@dataclasses.dataclass(frozen=True)
class Buffered:
    """See :func:`buffered`."""

    size: int
    wait: bool

    @property
    def name(self) -> str:
        """How the protocol was made."""
        return f"buffered({self.size}, wait={self.wait})"

    def policy(self, num_workers: int, seed: int = 0) -> Policy:
        """Returns a fresh policy.

        Raises:
          ValueError: if it would wait for more uploads than there are workers.
        """
        del seed
        require_count("num_workers", num_workers)
        if not self.wait:
            return UncoupledPolicy(self.size)
        if self.size > num_workers:
            raise ValueError(
                f"buffered(size={self.size}, wait=True) waits for more workers than the "
                f"{num_workers} there are: size must be <= num_workers"
            )
        return _WaitingPolicy(self.size)


class _WaitingPolicy(Policy):
    def __init__(self, size: int):
        self._size = size
        self._gathered = 0
        self._waiting: list[int] = []

    def on_arrival(self, worker: int, staleness: int, time: float) -> Decision:
        self._gathered += 1
        self._waiting.append(worker)
        if self._gathered < self._size:
            return Decision(True, 1 / self._size)
        waiting, self._waiting, self._gathered = self._waiting, [], 0
        return Decision(True, 1 / self._size, True, waiting)

    def on_leave(self, worker: int, num_lost: int, time: float) -> Decision:
        if worker in self._waiting:
            self._waiting.remove(worker)
        return Decision()


def buffered(size: int, wait: bool = False) -> Buffered:
    """The server commits the mean of every ``size`` uploads.

    With ``wait`` an uploader idles until the commit and starts on the new version; without,
    it starts again at once on the version the server has (the upload that completes the
    buffer commits first). ``buffered(1)`` is asynchronous.

    Args:
      size: uploads per commit, >= 1; with ``wait`` at most the number of workers.
      wait: whether uploaders wait for the commit.

    Returns:
      A protocol.

    Raises:
      TypeError: if ``size`` is not an integer or ``wait`` not a boolean.
      ValueError: if ``size < 1``.

    Example:
      >>> policy = buffered(2, wait=True).policy(num_workers=3)
      >>> policy.on_arrival(worker=0, staleness=0, time=1.0).start
      ()
      >>> policy.on_arrival(worker=1, staleness=0, time=1.5).start
      [0, 1]

    References:
      The two schemes of Sun et al., `Asynchronous Heavy-Tailed Optimization
      <https://arxiv.org/abs/2602.18002>`_, 2026 (read off their figure); without waiting it
      is Nguyen et al., `FedBuff <https://arxiv.org/abs/2106.06639>`_, 2022.
    """
    require_count("size", size)
    if not isinstance(wait, bool):
        raise TypeError(f"wait must be True or False, got {wait!r}")
    return Buffered(size, wait)
