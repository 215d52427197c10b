"""Timelines of workers that never wait: independent renewals, merged by one sort."""

import numpy as np

from async_optax.timelines.protocols.uncoupled import UncoupledPolicy
from async_optax.timelines.runtimes.model import RuntimeModel
from async_optax.timelines.runtimes.streams import COMPUTE, stream
from async_optax.timelines.side_tables import LostJobs, Reason
from async_optax.timelines.timeline import Timeline

_FIRST_DRAWS = 4  # jobs per worker from which its speed is guessed
_SPARE = 1.02  # how many more jobs are drawn than expected, lest another round is needed
_GROWTH = 7  # how many times more jobs a round may draw than there are: a guess may be far off
_MOST = 2**31 - 1  # rows


def renewal_timeline(
    policy: UncoupledPolicy,
    model: RuntimeModel,
    num_workers: int,
    num_commits: int | None,
    max_time: float,
    seed: int,
) -> Timeline | None:
    """Returns the timeline that the event loop would, row for row, or ``None`` if it must decide.

    Everyone starts again at once, so the k-th job of a worker arrives at the sum of its first k
    times, and the rows are all these, sorted. Jobs that arrive together come in the order in
    which they started; the event loop must decide where that takes more than a look at when
    they started, and where nothing arrives.

    Args:
      policy: a fresh one.
      model: a law of compute times alone.
      num_workers: number of workers.
      num_commits: stop right after that many, or ``None``;
      max_time: or at that time.
      seed: of the times.
    """
    num_arrivals = None if num_commits is None else num_commits * policy.size
    renewals = _Renewals(model, num_workers, seed)
    time, worker = renewals.arrivals(renewals.extend(max_time, num_arrivals))
    if not len(time):
        return None
    start_time = np.empty_like(time)
    start_time[0] = 0.0
    start_time[1:] = time[:-1]
    first = np.flatnonzero(np.diff(worker, prepend=-1))  # of each worker
    start_time[first] = 0.0

    order = np.argsort(time, kind="stable")
    if (np.diff(time[order]) == 0).any():
        order = np.lexsort((worker, start_time, time))
    position = np.empty(len(order), np.int32)
    position[order] = np.arange(len(order), dtype=np.int32)
    # The place in the order of starting: first the workers, then whom each arrival starts.
    job = np.empty_like(position)
    job[1:] = position[:-1] + num_workers
    job[first] = worker[first]
    del position
    time, job = time[order], job[order]
    if ((time[1:] == time[:-1]) & (job[1:] < job[:-1])).any():
        return None
    time, job, order = time[:num_arrivals], job[:num_arrivals], order[:num_arrivals]
    worker, start_time = worker[order], start_time[order]
    del order

    version, weight, accepted, commit, token = policy.decide_all(job)
    version_after = np.concatenate([[0], version + commit]).astype(np.int32)
    end_time = max_time if num_arrivals is None else float(time[-1])
    last_start = np.zeros(num_workers)
    last_start[worker] = time  # the last assignment wins
    return Timeline(
        num_workers=num_workers,
        end_time=end_time,
        token=token,
        worker=worker,
        read_version=version_after[np.maximum(job - (num_workers - 1), 0)],
        start_time=start_time,
        time=time,
        version=version,
        weight=weight,
        accepted=accepted,
        commit=commit,
        lost=LostJobs(
            worker=np.arange(num_workers, dtype=np.int32),
            start_time=last_start,
            stop_time=np.full(num_workers, end_time),
            reason=np.full(num_workers, Reason.UNFINISHED, np.int8),
        ),
    )


class _Renewals:
    """Arrival times of every worker up to some time, drawn in rounds."""

    def __init__(self, model: RuntimeModel, num_workers: int, seed: int):
        self._model = model
        self._scales = model.scales(num_workers, seed)
        self._streams = [stream(seed, COMPUTE, worker) for worker in range(num_workers)]
        self._num_drawn = np.zeros(num_workers, np.int64)
        self._last = np.zeros(num_workers)  # arrival
        self._rounds: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._draw(np.arange(num_workers), np.full(num_workers, _FIRST_DRAWS))

    def _draw(self, workers: np.ndarray, counts: np.ndarray) -> None:
        """Draws so many further jobs of these workers."""
        ends = np.cumsum(counts)
        times = np.empty(ends[-1])
        spans = list(zip((ends - counts).tolist(), ends.tolist(), strict=True))
        for worker, (begin, end) in zip(workers.tolist(), spans, strict=True):
            self._streams[worker].random(out=times[begin:end])
        owner, scales = np.repeat(workers.astype(np.int32), counts), self._scales[workers]
        times = self._model.times(times, owner, np.repeat(scales, counts))
        # One after another, as a clock would: the same sums as in the event loop, to the bit.
        times[ends - counts] += self._last[workers]
        for begin, end in spans:
            np.cumsum(times[begin:end], out=times[begin:end])
        self._last[workers] = times[ends - 1]
        self._num_drawn[workers] += counts
        self._rounds.append((workers, ends, times))

    def extend(self, max_time: float, num_arrivals: int | None) -> float:
        """Draws all that arrives up to ``max_time``, or so many; returns a time by which it has."""
        while True:
            # All that arrives up to here is known.
            known = float(np.min(self._last))
            if num_arrivals is not None and self._count(known) >= num_arrivals:
                return known
            horizon = max_time if num_arrivals is None else self._guess(num_arrivals)
            workers = np.flatnonzero(self._last <= horizon)
            if num_arrivals is None and not len(workers):
                return horizon
            if not len(workers):
                workers = np.flatnonzero(self._last == known)
            last, num_drawn = self._last[workers], self._num_drawn[workers]
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                missing = _SPARE * (horizon - last) * num_drawn / last
            missing = np.minimum(np.nan_to_num(missing, nan=0.0), _GROWTH * num_drawn)
            if self._num_drawn.sum() + missing.sum() > _MOST:
                raise ValueError(
                    f"{self._model.name} makes more arrivals than the {_MOST} possible"
                )
            self._draw(workers, _FIRST_DRAWS + missing.astype(np.int64))

    def _count(self, horizon: float) -> int:
        return sum(int(np.count_nonzero(times <= horizon)) for _, _, times in self._rounds)

    def _guess(self, num_arrivals: int) -> float:
        """A time by which so many should have arrived, at the speeds seen so far."""
        rates = self._num_drawn / np.maximum(self._last, np.finfo(float).tiny)
        return _SPARE * num_arrivals / float(rates.sum())

    def arrivals(self, horizon: float) -> tuple[np.ndarray, np.ndarray]:
        """Returns times and workers of all arrivals up to ``horizon``, worker by worker."""
        times = np.concatenate([times for _, _, times in self._rounds])
        owner = np.concatenate(
            [
                np.repeat(workers.astype(np.int32), np.diff(ends, prepend=0))
                for workers, ends, _ in self._rounds
            ]
        )
        self._rounds.clear()
        kept = times <= horizon
        times, owner = times[kept], owner[kept]
        by_worker = np.argsort(owner, kind="stable")
        return times[by_worker], owner[by_worker]
