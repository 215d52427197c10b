"""Timelines of workers that never wait: independent renewals, merged by one sort."""

import numpy as np

from async_optax.timelines.protocols.uncoupled import UncoupledPolicy
from async_optax.timelines.runtimes.model import RuntimeModel
from async_optax.timelines.runtimes.streams import COMPUTE, stream
from async_optax.timelines.side_tables import LostJobs, Reason
from async_optax.timelines.timeline import Timeline

_FIRST_DRAWS = 4  # jobs per worker from which its speed is guessed
_SPARE = 1.02  # how many more jobs are drawn than expected, lest another round is needed


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
    horizon = max_time
    if num_arrivals is None:
        renewals.extend(max_time)
    else:
        horizon = renewals.extend_to(num_arrivals)
    time, worker = renewals.arrivals(horizon)
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
    order = order[:num_arrivals]
    time, worker, start_time, job = time[order], worker[order], start_time[order], job[order]
    del order
    if ((time[1:] == time[:-1]) & (job[1:] < job[:-1])).any():
        return None

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
        self._quantile = model.quantile
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
        times = self._quantile(times, np.repeat(workers.astype(np.int32), counts))
        times = times * np.repeat(self._scales[workers], counts)
        # One after another, as a clock would: the same sums as in the event loop, to the bit.
        times[ends - counts] += self._last[workers]
        for begin, end in spans:
            np.cumsum(times[begin:end], out=times[begin:end])
        self._last[workers] = times[ends - 1]
        self._num_drawn[workers] += counts
        self._rounds.append((workers, ends, times))

    def extend(self, horizon: float) -> None:
        """Draws until every worker's last arrival is later than ``horizon``."""
        while True:
            workers = np.flatnonzero(self._last <= horizon)
            if not len(workers):
                return
            last, num_drawn = self._last[workers], self._num_drawn[workers]
            with np.errstate(divide="ignore", invalid="ignore"):
                missing = (horizon - last) * num_drawn / last
            missing = np.nan_to_num(_SPARE * missing, nan=0.0, posinf=0.0)
            self._draw(workers, _FIRST_DRAWS + missing.astype(np.int64))

    def extend_to(self, num_arrivals: int) -> float:
        """Draws until so many arrive in all; returns a time by which they do."""
        rates = self._num_drawn / np.maximum(self._last, np.finfo(float).tiny)
        horizon = num_arrivals / rates.sum()
        while True:
            self.extend(horizon)
            found = sum(np.count_nonzero(times <= horizon) for _, _, times in self._rounds)
            if found >= num_arrivals:
                return horizon
            horizon *= max(1.01, 1.005 * num_arrivals / max(found, 1))

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
