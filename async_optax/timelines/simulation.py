"""From a protocol and a runtime model to a timeline."""

from async_optax.timelines.event_loop import EventLoop
from async_optax.timelines.horizon import require_horizon
from async_optax.timelines.protocols.policy import Protocol
from async_optax.timelines.protocols.uncoupled import UncoupledPolicy
from async_optax.timelines.renewals import renewal_timeline
from async_optax.timelines.runtimes.model import RuntimeModel
from async_optax.timelines.timeline import Timeline
from async_optax.validation import require_count, require_seed


def simulate_timeline(
    protocol: Protocol,
    runtimes: RuntimeModel,
    num_workers: int,
    *,
    num_commits: int | None = None,
    max_time: float | None = None,
    seed: int = 0,
) -> Timeline:
    """Simulates who reads, computes, arrives and commits, and when.

    All workers that are there start on version 0 at time 0. Arrivals are handled in the order
    of their times, ties in the order in which the jobs were started. Times come from one stream
    per worker: its k-th job computes equally long under every protocol.

    Where nobody waits for anybody, arrivals are renewals and are merged by one sort; otherwise
    an event loop handles them one by one. Both give the same rows.

    Args:
      protocol: one of :mod:`async_optax.protocols`.
      runtimes: one of :mod:`async_optax.runtimes`.
      num_workers: number of workers, >= 1.
      num_commits: stop right after that many commits, >= 1.
      max_time: or stop at that simulated time, > 0, in the unit of ``runtimes``.
      seed: of all times and random decisions, an integer >= 0.

    Returns:
      A :class:`Timeline`.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if a number is out of range, if not exactly one of ``num_commits`` and
        ``max_time`` is given, if the protocol waits for more workers than there are, if
        nothing arrives before ``max_time``, or if the run stalls: nobody computes and nobody
        will, or nothing is accepted any more.

    Example:
      >>> import async_optax as ao
      >>> timeline = ao.simulate_timeline(
      ...     ao.protocols.asynchronous(), ao.runtimes.two_speed(4.0), 4, num_commits=10
      ... )
      >>> timeline.staleness
      array([0, 1, 1, 1, 1, 1, 6, 7, 3, 3], dtype=int32)
      >>> timeline.time
      array([1., 1., 2., 2., 3., 3., 4., 4., 4., 4.])
    """
    if not callable(getattr(protocol, "policy", None)) or isinstance(protocol, type):
        raise TypeError(
            f"protocol must be a protocol such as protocols.asynchronous(), got {protocol!r}"
        )
    if not isinstance(runtimes, RuntimeModel):
        raise TypeError(f"runtimes must be a model such as runtimes.gamma(), got {runtimes!r}")
    require_count("num_workers", num_workers)
    require_seed(seed)
    horizon = require_horizon(num_commits, max_time)
    policy = protocol.policy(num_workers, seed)
    if isinstance(policy, UncoupledPolicy) and runtimes.only_computes:
        timeline = renewal_timeline(policy, runtimes, num_workers, num_commits, horizon, seed)
        if timeline is not None:
            return timeline
    return EventLoop(protocol.name, policy, runtimes, num_workers, seed).run(num_commits, horizon)
