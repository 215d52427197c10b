"""The protocols that a comparison takes if none are named."""

from async_optax.timelines import protocols
from async_optax.timelines.protocols import Protocol
from async_optax.validation import require_count


def default_protocols(num_workers: int) -> list[Protocol]:
    """Returns one protocol of each kind, with parameters that suit the number of workers.

    What needs more workers than there are, or would be another of the list, is left out.

    Args:
      num_workers: number of workers n, >= 1.

    Returns:
      Protocols, those that wait first.

    Raises:
      TypeError: if ``num_workers`` is not an integer.
      ValueError: if ``num_workers < 1``.

    Example:
      >>> [protocol.name for protocol in default_protocols(1)]
      ['synchronous', 'asynchronous']
      >>> len(default_protocols(16))
      12
    """
    require_count("num_workers", num_workers)
    if num_workers == 1:
        return [protocols.synchronous(), protocols.asynchronous()]
    half = num_workers // 2
    waiting: list[Protocol] = [
        protocols.synchronous(),
        protocols.synchronous(backup=max(1, num_workers // 16)),
    ]
    if half > 1:
        waiting += [protocols.buffered(half, wait=True), protocols.buffered(half, wait=False)]
    return [
        *waiting,
        protocols.softsync(1),
        protocols.bounded_staleness(4),
        protocols.rennala(num_workers),
        protocols.ringmaster(num_workers),
        protocols.asynchronous(),
        protocols.asynchronous("uniform"),
        protocols.round_robin(),
        protocols.token_control(num_workers, 4),
    ]
