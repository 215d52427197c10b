"""Open systems: workers that come, do one job and leave."""

from collections.abc import Sequence

import numpy as np

from async_optax.timelines.horizon import require_horizon
from async_optax.timelines.runtimes.model import RuntimeModel, require_law
from async_optax.timelines.runtimes.streams import VISITORS, stream
from async_optax.timelines.side_tables import Absences, LostJobs, Reason
from async_optax.timelines.timeline import Timeline
from async_optax.timelines.traces import commit_every
from async_optax.validation import require_count, require_number, require_seed

_GAPS, _TIMES = range(2)  # what a visitors' stream is for
_FIRST_VISITORS, _MOST_VISITORS = 64, 2**24


def open_arrivals(
    starts: float | Sequence[float] | np.ndarray,
    runtimes: RuntimeModel,
    *,
    size: int = 1,
    num_commits: int | None = None,
    max_time: float | None = None,
    seed: int = 0,
) -> Timeline:
    """Simulates workers that come, do one job each, and leave: nobody waits, nobody returns.

    Visitor k, who is worker k, starts at ``s[k]`` on the version of that time and arrives at
    ``s[k] + c[k] * q(u[k])``, where ``c`` are the machine scales, ``q`` the inverse distribution
    function of ``runtimes`` and ``u`` uniform. Every ``size`` arrivals commit, at weight
    ``1 / size`` each. At a rate, the number of jobs in flight is that of an M/G/infinity queue:
    its mean is the rate times the mean time of a job, and so is the mean staleness for size 1.

    Args:
      starts: the rate > 0 of a Poisson process, in visitors per unit of time; or the start
        times, ``[num_visitors]``, >= 0 and in order.
      runtimes: a plain law of times. At a rate it must serve any number of workers.
      size: arrivals per commit, >= 1.
      num_commits: stop right after that many commits, >= 1.
      max_time: or stop at that simulated time, > 0, in the unit of ``runtimes``.
      seed: of all times, an integer >= 0. Fewer commits are the first of more.

    Returns:
      A :class:`Timeline` with a worker per visitor that started. They are absent before and
      after their job; jobs still running at the end are among the lost.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if a number is out of range, if not exactly one of ``num_commits`` and
        ``max_time`` is given, if too few visitors are given for ``num_commits``, if nothing
        arrives before ``max_time``, or if ``runtimes`` is more than a law of compute times.

    Example:
      >>> from async_optax import runtimes
      >>> timeline = open_arrivals([0.0, 1.0, 1.5], runtimes.deterministic(2.0), num_commits=3)
      >>> timeline.time, timeline.staleness
      (array([2. , 3. , 3.5]), array([0, 1, 2], dtype=int32))
    """
    require_law("runtimes", runtimes)
    require_count("size", size)
    require_seed(seed)
    num_arrivals = None if num_commits is None else num_commits * size
    horizon = require_horizon(num_commits, max_time)
    if np.ndim(starts):
        start = _given_starts(np.asarray(starts))
        if num_arrivals is not None and len(start) < num_arrivals:
            raise ValueError(
                f"starts has {len(start)} visitors, but {num_commits} commits of {size} arrivals "
                f"take {num_arrivals}"
            )
        arrival = start + _job_times(runtimes, len(start), seed)
    else:
        require_number("starts", starts, above=0)
        rate = float(np.asarray(starts))
        start, arrival = _poisson(rate, runtimes, seed, num_arrivals, horizon)
    return _table(start, arrival, size, num_arrivals, horizon)


def _given_starts(given: np.ndarray) -> np.ndarray:
    require_number("starts", given, at_least=0, scalar=False)
    if given.ndim != 1 or not len(given):
        raise ValueError(f"starts must be a rate or start times, got shape {given.shape}")
    backwards = np.flatnonzero(np.diff(given) < 0)
    if len(backwards):
        row = backwards[0] + 1
        raise ValueError(
            f"starts must be in order, got {given[row]} after {given[row - 1]} for visitor {row}"
        )
    return given.astype(np.float64)


def _job_times(runtimes: RuntimeModel, num_visitors: int, seed: int) -> np.ndarray:
    draws = stream(seed, VISITORS, _TIMES).random(num_visitors)
    times = runtimes.quantile(draws, np.arange(num_visitors))
    return runtimes.scales(num_visitors, seed) * times


def _poisson(
    rate: float,
    runtimes: RuntimeModel,
    seed: int,
    num_arrivals: int | None,
    max_time: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws visitors until those who are yet to come cannot change the table."""
    _require_any_number(runtimes, seed)
    expected = rate * max_time if num_arrivals is None else num_arrivals
    num_visitors = int(min(max(_FIRST_VISITORS, 1.1 * expected), _MOST_VISITORS))
    while max(num_visitors, expected) <= _MOST_VISITORS:
        gaps = -np.log1p(-stream(seed, VISITORS, _GAPS).random(num_visitors)) / rate
        start = np.cumsum(gaps)
        if num_arrivals is None:
            if start[-1] > max_time:
                return start, start + _job_times(runtimes, num_visitors, seed)
        else:
            arrival = start + _job_times(runtimes, num_visitors, seed)
            if np.count_nonzero(arrival <= start[-1]) >= num_arrivals:
                return start, arrival
        num_visitors *= 4
    raise ValueError(
        f"more than {_MOST_VISITORS} visitors start before it is over: the rate starts={rate:g} is "
        f"too high for {runtimes.name}"
    )


def _require_any_number(runtimes: RuntimeModel, seed: int) -> None:
    """Raises if the machines of the first visitors depend on how many come after them."""
    try:
        few = runtimes.scales(_FIRST_VISITORS, seed)
        same = np.array_equal(few, runtimes.scales(2 * _FIRST_VISITORS, seed)[:_FIRST_VISITORS])
    except ValueError as error:
        raise ValueError(
            f"runtimes must serve any number of visitors if starts is a rate: {error}"
        ) from error
    if not same:
        raise ValueError(
            "runtimes must give a visitor the same machine however many follow if starts is a "
            f"rate, got {runtimes.name}"
        )


def _table(
    start: np.ndarray,
    arrival: np.ndarray,
    size: int,
    num_arrivals: int | None,
    max_time: float,
) -> Timeline:
    order = np.argsort(arrival, kind="stable")  # ties: who started first
    if num_arrivals is None:
        end_time = max_time
        order = order[: np.searchsorted(arrival[order], end_time, side="right")]
        if not len(order):
            raise ValueError(
                f"nothing arrives before max_time={end_time:g}: the first job takes until "
                f"{arrival.min():.4g}"
            )
    else:
        order = order[:num_arrivals]
        end_time = float(arrival[order[-1]])
    start = start[: np.searchsorted(start, end_time, side="right")]
    unfinished = np.setdiff1d(np.arange(len(start)), order, assume_unique=True)
    left = np.full(len(start), end_time)
    left[order] = arrival[order]
    return Timeline(
        num_workers=len(start),
        end_time=end_time,
        **commit_every(size, order.astype(np.int32), start[order], arrival[order]),
        lost=LostJobs(
            worker=unfinished.astype(np.int32),
            start_time=start[unfinished],
            stop_time=np.full(len(unfinished), end_time),
            reason=np.full(len(unfinished), Reason.UNFINISHED, np.int8),
        ),
        absences=_before_and_after(start, left, end_time),
    )


def _before_and_after(start: np.ndarray, left: np.ndarray, end_time: float) -> Absences:
    """When visitors are away, who come at ``start`` and go at ``left``."""
    worker = np.tile(np.arange(len(start), dtype=np.int32), 2)
    begin = np.append(np.zeros(len(start)), left)
    end = np.append(start, np.full(len(start), end_time))
    away = end > begin
    return Absences(worker[away], begin[away], end[away])
