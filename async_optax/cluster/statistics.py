"""What a protocol gets out of its workers, in numbers."""

import dataclasses
import math
from typing import Any

import numpy as np

from async_optax.timelines import Timeline

_NOT_NUMBERS = ("protocol", "problem", "timeline")


@dataclasses.dataclass(frozen=True, eq=False)
class ProtocolStatistics:
    """What a protocol gets out of its workers until a given time.

    Rates are per unit of time of the runtime model; shares are of the time a worker is there, and
    utilisation, waiting and aborted add up to 1. Staleness is that of accepted arrivals. What
    cannot be told is NaN: everything if the protocol does not run.

    Attributes:
      protocol: its name.
      problem: why it does not run with these workers, or ``""``.
      throughput: accepted arrivals per unit of time.
      speedup: ``throughput`` over that of ``synchronous()`` on the same workers.
      commit_rate: commits per unit of time.
      utilisation: share of its time that a worker spends on jobs that are not lost, transfers
        included; mean over workers.
      rejected: the part of it that goes into arrivals not accepted; mean over workers.
      least_utilisation: the same for the worker with the least.
      waiting: share that a worker waits, for others or for the server; mean over workers.
      aborted: share that a worker spends on jobs that are lost; mean over workers.
      staleness_mean: of the accepted arrivals.
      staleness_p99: the least that at least 99 % of them do not exceed.
      staleness_max: the largest.
      gradients_lost_to_waiting: how many more gradients the same workers had computed, had nobody
        waited: the sum over workers of the time waited divided by the mean time of the worker's
        jobs, transfers included. Who delivers none counts with the mean over all jobs.
      num_computed: jobs that arrived, accepted or not.
      num_rejected: jobs that arrived and were not accepted.
      num_lost: jobs that were aborted, expired, or failed with their worker.
      timeline: the simulated timeline, ``None`` if the protocol does not run.
    """

    protocol: str
    problem: str = ""
    throughput: float = math.nan
    speedup: float = math.nan
    commit_rate: float = math.nan
    utilisation: float = math.nan
    rejected: float = math.nan
    least_utilisation: float = math.nan
    waiting: float = math.nan
    aborted: float = math.nan
    staleness_mean: float = math.nan
    staleness_p99: float = math.nan
    staleness_max: float = math.nan
    gradients_lost_to_waiting: float = math.nan
    num_computed: float = math.nan
    num_rejected: float = math.nan
    num_lost: float = math.nan
    timeline: Timeline | None = dataclasses.field(default=None, repr=False)

    @classmethod
    def measure(cls, protocol: str, timeline: Timeline) -> "ProtocolStatistics":
        """Returns the statistics of a timeline; ``speedup`` is still unknown.

        Example:
          >>> import async_optax as ao
          >>> times = ao.runtimes.deterministic([1.0, 4.0])
          >>> timeline = ao.simulate_timeline(ao.protocols.synchronous(), times, 2, max_time=40.0)
          >>> measured = ProtocolStatistics.measure("synchronous", timeline)
          >>> measured.throughput, measured.waiting, measured.gradients_lost_to_waiting
          (0.5, 0.375, 30.0)
        """
        # What is not accepted and commits is no arrival, but the news that a job is lost.
        arrived = timeline.accepted | ~timeline.commit
        staleness = timeline.staleness[timeline.accepted]
        known = len(staleness) > 0
        utilisation = timeline.utilisation()
        return cls(
            protocol=protocol,
            throughput=timeline.throughput(),
            commit_rate=timeline.num_commits / timeline.end_time,
            utilisation=float(utilisation.mean()),
            rejected=float(timeline.rejected().mean()),
            least_utilisation=float(utilisation.min()),
            waiting=float(timeline.waiting().mean()),
            aborted=float(timeline.aborted().mean()),
            staleness_mean=float(staleness.mean()) if known else math.nan,
            staleness_p99=_p99(staleness) if known else math.nan,
            staleness_max=float(staleness.max()) if known else math.nan,
            gradients_lost_to_waiting=_lost_to_waiting(timeline, arrived),
            num_computed=int(arrived.sum()),
            num_rejected=int((arrived & ~timeline.accepted).sum()),
            num_lost=int(timeline.lost.aborted.sum()),
            timeline=timeline,
        )

    @property
    def useful(self) -> float:
        """Share of its time that a worker spends on arrivals that are accepted."""
        return self.utilisation - self.rejected

    def as_dict(self) -> dict[str, Any]:
        """Returns the numbers as plain data for JSON, ``None`` for what cannot be told."""
        row: dict[str, Any] = {"protocol": self.protocol, "problem": self.problem or None}
        for field in dataclasses.fields(self):
            if field.name not in _NOT_NUMBERS:
                value = getattr(self, field.name)
                row[field.name] = None if math.isnan(value) else value
        return row


def _p99(values: np.ndarray) -> float:
    return float(np.quantile(values, 0.99, method="inverted_cdf"))


def _lost_to_waiting(timeline: Timeline, arrived: np.ndarray) -> float:
    worker = timeline.worker[arrived]
    times = (timeline.sent_time - timeline.begin_time)[arrived]
    if not times.sum():
        return math.nan
    num_jobs = np.bincount(worker, minlength=timeline.num_workers)
    spent = np.bincount(worker, times, minlength=timeline.num_workers)
    mean_time = np.where(num_jobs > 0, spent / np.maximum(num_jobs, 1), times.mean())
    idle = timeline.idle_time()  # differences of long sums: it may be 1e-13 instead of 0
    return float(np.sum(np.where(idle > 1e-9 * timeline.end_time, idle, 0.0) / mean_time))
