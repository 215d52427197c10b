"""The plan: a timeline compiled for the device, as slots of live versions and waves of jobs."""

import dataclasses
import heapq

import numpy as np

from async_optax.timelines import Timeline


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """Accepted arrivals in their order, with the buffer slot each reads and writes.

    A version that a later job reads lives in a slot from its commit to its last read. After
    each arrival the parameters are written to ``write_slot``: the new version's slot if it
    has one, else a slot that nobody will read. Rejected arrivals are gone.

    Attributes:
      job: int32 ``[num_arrivals]``, row in the timeline; it seeds the job's randomness.
      worker: int32.
      staleness: int32.
      read_slot: int32, where the stale parameters lie.
      write_slot: int32, where the parameters go after this arrival.
      commit: bool.
      weight: float64.
      version: int32, the version after this arrival.
      time: float64, simulated time at which it is applied: that of the arrival, or of its commit
        if that comes later, when the server learns that it need not wait for a lost job.
      parent: int32, the last arrival that the job had to wait for: the one whose commit made the
        version that was read or, if workers keep a state, the one before by the same worker; -1 for
        none.
      num_workers: of the timeline.
      num_slots: the largest number of versions alive at once.
      num_rows: slots of the buffer: one more than ``num_slots`` if some version that nobody
        reads is made while all slots are taken.
    """

    job: np.ndarray
    worker: np.ndarray
    staleness: np.ndarray
    read_slot: np.ndarray
    write_slot: np.ndarray
    commit: np.ndarray
    weight: np.ndarray
    version: np.ndarray
    time: np.ndarray
    parent: np.ndarray
    num_workers: int
    num_slots: int
    num_rows: int

    @property
    def num_arrivals(self) -> int:
        """Number of accepted arrivals."""
        return len(self.job)

    @property
    def commits_every_arrival(self) -> bool:
        """Whether every arrival is a commit of its own, at full weight."""
        return bool(np.all(self.commit) and np.all(self.weight == 1))

    @property
    def always_fresh(self) -> bool:
        """Whether no job's parameters have been replaced when it arrives: slots are not needed."""
        return not self.staleness.any()


def compile_timeline(timeline: Timeline, workers_keep_state: bool = False) -> Plan:
    """Prunes rejected arrivals and assigns slots to versions by a linear scan.

    The number of slots is the least possible: a slot is handed on at the very arrival that
    reads its version last.

    Args:
      timeline: a valid timeline.
      workers_keep_state: whether a job needs the state that its worker's last one has left.

    Returns:
      A :class:`Plan`.

    Raises:
      ValueError: if the timeline breaks an invariant or accepts no arrival.

    Example:
      >>> import async_optax as ao
      >>> timeline = ao.simulate_timeline(
      ...     ao.protocols.asynchronous(), ao.runtimes.deterministic(), 3, num_commits=50
      ... )
      >>> compile_timeline(timeline).num_slots
      3
    """
    timeline.verify()
    job = np.flatnonzero(timeline.accepted).astype(np.int32)
    if not len(job):
        raise ValueError("the timeline accepts no arrival: there is nothing to run")
    read_version, commit = timeline.read_version[job], timeline.commit[job]
    time = timeline.time[job]
    # A commit without an arrival is made with the last one it has gathered, at its own time.
    alone = np.flatnonzero(timeline.commit & ~timeline.accepted)
    last = np.searchsorted(job, alone) - 1
    commit[last], time[last] = True, timeline.time[alone]
    read_slot, write_slot, num_slots, num_rows = _assign_slots(read_version, commit)
    made_at = np.concatenate([[-1], np.flatnonzero(commit)])
    parent = made_at[read_version]
    if workers_keep_state:
        parent = np.maximum(parent, _previous_of_worker(timeline.worker[job]))
    return Plan(
        job=job,
        worker=timeline.worker[job],
        staleness=timeline.staleness[job].astype(np.int32),
        read_slot=read_slot,
        write_slot=write_slot,
        commit=commit,
        weight=timeline.weight[job],
        version=np.cumsum(commit).astype(np.int32),
        time=time,
        parent=parent.astype(np.int32),
        num_workers=timeline.num_workers,
        num_slots=num_slots,
        num_rows=num_rows,
    )


def _previous_of_worker(worker: np.ndarray) -> np.ndarray:
    """The arrival before by the same worker; -1 for the first."""
    order = np.argsort(worker, kind="stable")
    follows = np.diff(worker[order]) == 0
    previous = np.full(len(worker), -1)
    previous[order[1:][follows]] = order[:-1][follows]
    return previous


def _assign_slots(
    read_version: np.ndarray, commit: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int, int]:
    num_arrivals, num_versions = len(commit), int(commit.sum()) + 1
    last_read = np.full(num_versions, -1)
    last_read[read_version] = np.arange(num_arrivals)  # the last assignment wins
    is_read, is_last_read = (
        (last_read >= 0).tolist(),
        (last_read[read_version] == np.arange(num_arrivals)).tolist(),
    )
    overflow = -1  # stands for the extra row until the number of slots is known
    slot_of = {0: 0}
    num_slots, version, target = 1, 0, 0
    free: list[int] = []
    reads, writes = [], []
    if not is_read[0]:
        free.append(0)
    for read, commits, last in zip(
        read_version.tolist(), commit.tolist(), is_last_read, strict=True
    ):
        reads.append(slot_of[read])
        if last:
            heapq.heappush(free, slot_of.pop(read))
        if commits:
            version += 1
            if is_read[version]:
                if not free:
                    free.append(num_slots)
                    num_slots += 1
                target = slot_of[version] = heapq.heappop(free)
            else:
                target = free[0] if free else overflow
        writes.append(target)
    write_slot = np.array(writes, np.int32)
    overflows = write_slot == overflow
    write_slot[overflows] = num_slots
    return np.array(reads, np.int32), write_slot, num_slots, num_slots + bool(overflows.any())


def cut_waves(plan: Plan, lanes: int, boundaries: np.ndarray) -> np.ndarray:
    """Cuts the arrivals greedily into waves whose gradients can be computed together.

    A wave starts when some version is current and takes the following arrivals as long as
    the version they read exists by then, a lane is free, and no boundary comes between. If workers
    keep a state, no worker is in a wave twice.

    Args:
      plan: the plan.
      lanes: largest number of arrivals in a wave, >= 1.
      boundaries: sorted positions in ``[0, num_arrivals]`` at which a wave must end, the
        last one being ``num_arrivals``.

    Returns:
      int64 ``[num_waves + 1]``: wave w holds the arrivals from ``starts[w]`` up to, and
      without, ``starts[w + 1]``.

    Example:
      >>> import async_optax as ao, numpy as np
      >>> timeline = ao.simulate_timeline(
      ...     ao.protocols.synchronous(), ao.runtimes.deterministic(), 4, num_commits=3
      ... )
      >>> cut_waves(compile_timeline(timeline), lanes=8, boundaries=np.array([12]))
      array([ 0,  4,  8, 12])
    """
    if lanes == 1:
        return np.arange(plan.num_arrivals + 1)
    parents, starts, start = plan.parent.tolist(), [0], 0
    for boundary in boundaries.tolist():
        while start < boundary:
            end = start + 1
            stop = min(start + lanes, boundary)
            while end < stop and parents[end] < start:
                end += 1
            starts.append(end)
            start = end
    return np.array(starts)
