"""The event loop that turns a protocol and a runtime model into a timeline."""

import heapq
import itertools

import numpy as np

from async_optax.timelines.protocols import Protocol
from async_optax.timelines.runtimes import RuntimeModel
from async_optax.timelines.timeline import LostJobs, Timeline
from async_optax.validation import require_count, require_number


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

    All workers start on version 0 at time 0. Arrivals are handled in the order of their
    times, ties in the order in which the jobs were started. Times come from one stream per
    worker: its k-th job takes equally long under every protocol.

    Args:
      protocol: one of :mod:`async_optax.protocols`.
      runtimes: one of :mod:`async_optax.runtimes`.
      num_workers: number of workers, >= 1.
      num_commits: stop right after that many commits, >= 1.
      max_time: or stop at that simulated time, > 0, in the unit of ``runtimes``.
      seed: of the compute times, an integer >= 0.

    Returns:
      A :class:`Timeline`.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if a number is out of range, if not exactly one of ``num_commits`` and
        ``max_time`` is given, if the protocol waits for more workers than there are, or if
        nothing arrives before ``max_time``.

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
    if (num_commits is None) == (max_time is None):
        raise ValueError(
            "give exactly one of num_commits and max_time, "
            f"got num_commits={num_commits} and max_time={max_time}"
        )
    if num_commits is not None:
        require_count("num_commits", num_commits)
    if max_time is not None:
        require_number("max_time", max_time, above=0)
    horizon = np.inf if max_time is None else float(max_time)
    job_times = runtimes.job_times(num_workers, seed)
    policy = protocol.policy(num_workers)

    order = itertools.count()
    # A job in flight: (arrival time, order of starting, worker, read version, start time).
    in_flight: list[tuple[float, int, int, int, float]] = []
    running: dict[int, int] = {}  # worker -> order of its job; an aborted job is not in it
    rows, lost = [], []
    version, time = 0, 0.0

    def start(worker: int) -> None:
        if worker in running:
            raise ValueError(f"{protocol.name} starts worker {worker}, which is still computing")
        job = next(order)
        running[worker] = job
        heapq.heappush(in_flight, (time + next(job_times[worker]), job, worker, version, time))

    for worker in range(num_workers):
        start(worker)
    while in_flight and in_flight[0][0] <= horizon:
        time, job, worker, read_version, start_time = heapq.heappop(in_flight)
        if running.get(worker) != job:
            continue
        del running[worker]
        decision = policy.on_arrival(worker, version - read_version)
        rows.append(
            (worker, read_version, version, start_time, time)
            + (decision.weight, decision.accept, decision.commit)
        )
        version += decision.commit
        for other in decision.abort:
            aborted = running.pop(other)
            started = next(entry[4] for entry in in_flight if entry[1] == aborted)
            lost.append((other, started, time, True))
        for other in decision.start:
            start(other)
        if version == num_commits:
            break
    if not rows:
        raise ValueError(
            f"nothing arrives before max_time={max_time} under {runtimes.name}: "
            f"the first job takes {in_flight[0][0]:.4g}"
        )
    if num_commits is not None and version < num_commits:
        raise ValueError(
            f"{protocol.name} stalls after {version} of {num_commits} commits: nobody computes"
        )
    end_time = time if max_time is None else horizon
    unfinished = sorted(entry for entry in in_flight if running.get(entry[2]) == entry[1])
    lost += [(entry[2], entry[4], end_time, False) for entry in unfinished]

    dtypes: dict[str, type] = {"worker": np.int32, "read_version": np.int32, "version": np.int32}
    dtypes |= {"start_time": np.float64, "time": np.float64, "weight": np.float64}
    dtypes |= {"accepted": np.bool_, "commit": np.bool_}
    columns = zip(dtypes.items(), zip(*rows, strict=True), strict=True)
    return Timeline(
        num_workers=num_workers,
        end_time=end_time,
        **{name: np.array(column, dtype) for (name, dtype), column in columns},
        lost=LostJobs(
            worker=np.array([row[0] for row in lost], np.int32),
            start_time=np.array([row[1] for row in lost], float),
            stop_time=np.array([row[2] for row in lost], float),
            aborted=np.array([row[3] for row in lost], bool),
        ),
    )
