"""Protocols side by side on the same workers."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from async_optax.cluster.statistics import ProtocolStatistics
from async_optax.timelines import simulate_timeline
from async_optax.timelines.protocols import Protocol, synchronous
from async_optax.timelines.runtimes import RuntimeModel
from async_optax.timelines.runtimes.streams import COMPUTE, DOWNLOAD, UPLOAD
from async_optax.validation import require_count, require_number, require_seed

_JOBS_PER_WORKER = 200
_MAX_ARRIVALS = 1e6  # per protocol: all timelines are kept for the pictures
_SAMPLE = 16
_NOTEWORTHY = 1.005
_SERVER_WAIT = 0.1  # share of their time that workers wait for a server that is too slow
_BASELINE = synchronous()


def compare_protocols(
    protocols: Sequence[Protocol],
    runtimes: RuntimeModel,
    num_workers: int,
    *,
    max_time: float,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[ProtocolStatistics]:
    """Simulates each protocol on the same workers, whose k-th jobs take equally long.

    A protocol that cannot run with these workers, or stalls, says so in its ``problem``; the
    others go on.

    Args:
      protocols: some of :mod:`async_optax.protocols`.
      runtimes: of the workers.
      num_workers: number of workers, >= 1.
      max_time: simulated time of each, > 0, in the unit of ``runtimes``.
      seed: of all times, an integer >= 0.
      progress: called with the number of protocols simulated, and in all.

    Returns:
      The statistics of each protocol, in their order.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if there are no protocols, a number is out of range, ``runtimes`` cannot serve
        that many workers, or more than a million arrivals are to be expected.

    Example:
      >>> import async_optax as ao
      >>> times = ao.runtimes.deterministic([1.0, 4.0])
      >>> rows = compare_protocols(
      ...     [ao.protocols.synchronous(), ao.protocols.asynchronous()], times, 2, max_time=40.0
      ... )
      >>> [(row.protocol, row.throughput, row.speedup) for row in rows]
      [('synchronous', 0.5, 1.0), ('asynchronous', 1.25, 2.5)]
    """
    if not protocols:
        raise ValueError("protocols must name at least one, got none")
    require_count("num_workers", num_workers)
    require_number("max_time", max_time, above=0)
    require_seed(seed)
    expected = _arrival_rate(runtimes, num_workers, seed) * max_time
    if expected > _MAX_ARRIVALS:
        raise ValueError(
            f"max_time={max_time:g} means about {expected:.2g} arrivals per protocol; at most "
            f"{_MAX_ARRIVALS:.0e} are allowed"
        )

    def measure(protocol: Protocol) -> ProtocolStatistics:
        try:
            timeline = simulate_timeline(
                protocol, runtimes, num_workers, max_time=max_time, seed=seed
            )
        except ValueError as error:
            return ProtocolStatistics(protocol.name, str(error))
        return ProtocolStatistics.measure(protocol.name, timeline)

    rows: list[ProtocolStatistics] = []
    for protocol in protocols:
        if progress:
            progress(len(rows), len(protocols))
        rows.append(measure(protocol))
    baselines = [row for row in rows if row.protocol == _BASELINE.name]
    baseline = (baselines[0] if baselines else measure(_BASELINE)).throughput
    if progress:
        progress(len(rows), len(protocols))
    return [
        dataclasses.replace(row, speedup=row.throughput / baseline if baseline else math.nan)
        for row in rows
    ]


def default_max_time(runtimes: RuntimeModel, num_workers: int, seed: int = 0) -> float:
    """Returns the time in which the median worker, never waiting, does about 200 jobs.

    To two digits, and less where all workers together would do more than half a million.

    Args:
      runtimes: of the workers.
      num_workers: number of workers, >= 1.
      seed: of the times.

    Returns:
      A time in the unit of ``runtimes``, at speed 1 and without waiting for the server.

    Raises:
      ValueError: if ``runtimes`` cannot serve that many workers.

    Example:
      >>> import async_optax as ao
      >>> default_max_time(ao.runtimes.two_speed(8.0), num_workers=16)
      900.0
    """
    require_count("num_workers", num_workers)
    require_seed(seed)
    jobs = min(_JOBS_PER_WORKER, max(1, int(_MAX_ARRIVALS / 2 / num_workers)))
    time = float(np.median(_time_of_jobs(runtimes, num_workers, seed, jobs)))
    most = _MAX_ARRIVALS / 2 / _arrival_rate(runtimes, num_workers, seed)
    return float(f"{min(time, most):.2g}")


def _time_of_jobs(runtimes: RuntimeModel, num_workers: int, seed: int, num_jobs: int) -> np.ndarray:
    """How long each worker's first jobs take together, ``[num_workers]``."""
    parts = [(runtimes, COMPUTE), (runtimes.download, DOWNLOAD), (runtimes.upload, UPLOAD)]
    return np.sum(
        [
            [
                sum(itertools.islice(times, num_jobs))
                for times in law.part_times(num_workers, seed, part)
            ]
            for law, part in parts
            if law is not None
        ],
        axis=0,
    )


def _arrival_rate(runtimes: RuntimeModel, num_workers: int, seed: int) -> float:
    """Arrivals per unit of time if nobody waits, by the first jobs of each worker."""
    return float(np.sum(_SAMPLE / _time_of_jobs(runtimes, num_workers, seed, _SAMPLE)))


def verdict(statistics: Sequence[ProtocolStatistics]) -> list[str]:
    """Says in words what asynchrony would do for these workers.

    Args:
      statistics: from :func:`compare_protocols`.

    Returns:
      A sentence for each: what asynchronous gains over synchronous, whether the server is too
      slow, what synchronous loses to waiting, what is gained without staleness, and what this
      comparison does not tell; those that can be told.

    Example:
      >>> import async_optax as ao
      >>> times = ao.runtimes.deterministic([1.0, 4.0])
      >>> ran = [ao.protocols.synchronous(), ao.protocols.asynchronous()]
      >>> for line in verdict(compare_protocols(ran, times, 2, max_time=40.0)):
      ...     print(line)
      asynchronous computes 2.5 times as many gradients per unit of time as synchronous, at a mean
      staleness of 0.98
      synchronous loses 30 of 50 gradients (60 %) to waiting
      more gradients are not yet faster training: that depends on method and tail
    """
    ran = {row.protocol: row for row in statistics if not row.problem}
    lines = []
    if "asynchronous" in ran and not math.isnan(ran["asynchronous"].speedup):
        row = ran["asynchronous"]
        lines.append(f"{_gain(row)}, at a mean staleness of {row.staleness_mean:.3g}")
        if row.waiting > _SERVER_WAIT:  # under it, for nothing else
            share = f"{100 * row.waiting:.0f} % of their time for the server"
            lines.append(f"even then workers wait {share}: it is the bottleneck")
    if _BASELINE.name in ran:
        row = ran[_BASELINE.name]
        lost, possible = row.gradients_lost_to_waiting, row.num_computed
        if not math.isnan(lost):
            possible += lost
            share = f"{100 * lost / possible:.3g} %"
            lines.append(
                f"{row.protocol} loses {lost:.0f} of {possible:.0f} gradients ({share}) to waiting"
            )
    fresh = [row for row in ran.values() if row.staleness_max == 0 and row.speedup > _NOTEWORTHY]
    if fresh:
        best = max(fresh, key=lambda row: row.speedup)
        lines.append(f"without any staleness, {_gain(best)}")
    if lines:
        lines.append("more gradients are not yet faster training: that depends on method and tail")
    return lines


def _gain(row: ProtocolStatistics) -> str:
    gradients = "gradients per unit of time as synchronous"
    times = f"{row.speedup:.2g}" if row.speedup < 99.5 else f"{row.speedup:.0f}"
    return f"{row.protocol} computes {times} times as many {gradients}"
