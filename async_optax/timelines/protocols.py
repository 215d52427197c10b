"""Protocols: who starts when, what is waited for, and when the server commits.

A protocol is an immutable description; ``policy(num_workers)`` makes the object that decides,
arrival by arrival, what the server does. The same decisions drive the simulated timeline and
can drive real workers.
"""

import dataclasses
import typing
from collections.abc import Sequence

from async_optax.validation import require_count


@dataclasses.dataclass(frozen=True)
class Decision:
    """What the server does with one arrival.

    Attributes:
      accept: whether the arrival's gradient is used; if not, ``weight`` is ignored.
      weight: its share in the commit it belongs to.
      commit: whether the server commits, which makes a new version.
      start: workers that now start a job on the version current after the commit.
      abort: workers whose running job is thrown away first.
    """

    accept: bool
    weight: float
    commit: bool
    start: Sequence[int]
    abort: Sequence[int] = ()


class Policy(typing.Protocol):
    """Decides on arrivals, in their order; all workers start on version 0."""

    def on_arrival(self, worker: int, staleness: int) -> Decision:
        """Returns what to do when ``worker`` delivers a job of that staleness."""


class Protocol(typing.Protocol):
    """An immutable description from which policies are made."""

    @property
    def name(self) -> str:
        """How the protocol was made, for tables and errors."""

    def policy(self, num_workers: int) -> Policy:
        """Returns a fresh policy.

        Raises:
          ValueError: if the protocol cannot run with that many workers.
        """


@dataclasses.dataclass(frozen=True)
class Asynchronous:
    """See :func:`asynchronous`."""

    name: str = "asynchronous"

    def policy(self, num_workers: int) -> Policy:
        """Returns a fresh policy."""
        require_count("num_workers", num_workers)
        return _AsynchronousPolicy()


class _AsynchronousPolicy:
    def on_arrival(self, worker: int, staleness: int) -> Decision:
        del staleness
        return Decision(accept=True, weight=1.0, commit=True, start=(worker,))


def asynchronous() -> Asynchronous:
    """Every arrival is a commit, and its worker starts again on the new version.

    The mean staleness is ``num_workers - 1``, whatever the compute times.

    Returns:
      A protocol.

    Example:
      >>> asynchronous().policy(num_workers=4).on_arrival(worker=2, staleness=3).commit
      True
    """
    return Asynchronous()


@dataclasses.dataclass(frozen=True)
class Buffered:
    """See :func:`buffered`."""

    size: int
    wait: bool

    @property
    def name(self) -> str:
        """How the protocol was made."""
        return f"buffered({self.size}, wait={self.wait})"

    def policy(self, num_workers: int) -> Policy:
        """Returns a fresh policy.

        Raises:
          ValueError: if it would wait for more uploads than there are workers.
        """
        require_count("num_workers", num_workers)
        if self.wait and self.size > num_workers:
            raise ValueError(
                f"buffered(size={self.size}, wait=True) waits for more workers than the "
                f"{num_workers} there are: size must be <= num_workers"
            )
        return _BufferedPolicy(self.size, self.wait)


class _BufferedPolicy:
    def __init__(self, size: int, wait: bool):
        self._size = size
        self._wait = wait
        self._uploaders: list[int] = []

    def on_arrival(self, worker: int, staleness: int) -> Decision:
        del staleness
        self._uploaders.append(worker)
        commit = len(self._uploaders) == self._size
        start: Sequence[int] = () if self._wait else (worker,)
        if commit:
            start = self._uploaders if self._wait else start
            self._uploaders = []
        return Decision(accept=True, weight=1 / self._size, commit=commit, start=start)


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
      >>> policy.on_arrival(worker=0, staleness=0).start
      ()
      >>> policy.on_arrival(worker=1, staleness=0).start
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


@dataclasses.dataclass(frozen=True)
class Synchronous:
    """See :func:`synchronous`."""

    name: str = "synchronous"

    def policy(self, num_workers: int) -> Policy:
        """Returns a fresh policy: a waiting buffer as large as the number of workers."""
        return Buffered(num_workers, wait=True).policy(num_workers)


def synchronous() -> Synchronous:
    """The server waits for all workers and commits their mean: minibatch SGD.

    Returns:
      A protocol.

    Example:
      >>> synchronous().policy(num_workers=2).on_arrival(worker=0, staleness=0).commit
      False
    """
    return Synchronous()
