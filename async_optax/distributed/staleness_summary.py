"""How stale the arrivals of a run were, all and worker by worker."""

from typing import NamedTuple

import numpy as np

from async_optax.timelines import Timeline

SHARES = (0.1, 0.5, 0.9)


class StalenessSummary(NamedTuple):
    """The staleness of some arrivals.

    Attributes:
      num_arrivals: how many.
      mean: of their staleness, in commits.
      quantiles: the least staleness that 10, 50 and 90 % of them do not exceed.
      largest: of all.
    """

    num_arrivals: int
    mean: float
    quantiles: tuple[int, ...]
    largest: int


def staleness_by_worker(timeline: Timeline) -> dict[int | None, StalenessSummary]:
    """Summarises the staleness of the arrivals that were accepted.

    The mean over all workers says little: while all are busy and every arrival commits, it is one
    less than their number whatever their speeds. What each worker sees depends on all of them.

    Args:
      timeline: measured or simulated.

    Returns:
      For each worker of which something was accepted, in their order, and under ``None``, first,
      for all; empty if nothing was accepted.

    Example:
      >>> import async_optax as ao
      >>> model = ao.runtimes.two_speed(3.0)  # worker 1 takes three times as long
      >>> timeline = ao.simulate_timeline(ao.protocols.asynchronous(), model, 2, max_time=60.5)
      >>> for worker, found in staleness_by_worker(timeline).items():
      ...     print(worker, found.num_arrivals, round(found.mean, 1), found.quantiles)
      None 80 1.0 (0, 0, 3)
      0 60 0.3 (0, 0, 1)
      1 20 3.0 (3, 3, 3)
    """
    staleness, worker = timeline.staleness[timeline.accepted], timeline.worker[timeline.accepted]
    if not len(staleness):
        return {}
    found: dict[int | None, StalenessSummary] = {None: _summary(staleness)}
    return found | {int(one): _summary(staleness[worker == one]) for one in np.unique(worker)}


def _summary(staleness: np.ndarray) -> StalenessSummary:
    quantiles = np.quantile(staleness, SHARES, method="inverted_cdf")
    return StalenessSummary(
        len(staleness),
        float(staleness.mean()),
        tuple(int(value) for value in quantiles),
        int(staleness.max()),
    )
