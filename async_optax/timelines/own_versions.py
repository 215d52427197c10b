"""Whether each worker starts again on what its own arrival made."""

import numpy as np

from async_optax.timelines.timeline import Timeline
from async_optax.validation import require_count


def require_own_versions(timeline: Timeline, num_workers: int | None = None) -> None:
    """Raises unless each job reads the version that its own worker's last arrival made.

    A version may be served as one worker's copy, the one of the worker that has just arrived:
    so it is in asynchronous gossip and in elastic averaging. Nobody else may read it then. Row i,
    of worker w, must read version ``version[p] + 1`` where p is the last row of w before i, or
    version 0, which is the same for all, if there is none; and every row must commit by itself.

    Args:
      timeline: who reads what.
      num_workers: how many workers there must be; ``None``: any number.

    Raises:
      ValueError: naming the first row that breaks this.

    Example:
      >>> from async_optax.timelines import protocols, runtimes, simulate_timeline
      >>> own = simulate_timeline(
      ...     protocols.asynchronous(), runtimes.gamma(), 4, num_commits=20
      ... )
      >>> require_own_versions(own)
      >>> require_own_versions(Timeline.from_staleness([0, 1, 0]))
      Traceback (most recent call last):
      ...
      ValueError: timeline row 2: worker 0 reads version 2, but what its last arrival made is \
version 1: each worker must go on at once from its own copy, as under protocols.asynchronous()
    """
    if num_workers is not None:
        require_count("num_workers", num_workers)
        if timeline.num_workers != num_workers:
            raise ValueError(
                f"the timeline must have one worker per agent, {num_workers}, got "
                f"{timeline.num_workers}"
            )
    alone = timeline.commit & (timeline.weight == 1) & timeline.accepted
    if not alone.all():
        row = int(np.argmin(alone))
        raise ValueError(
            f"timeline row {row} does not commit by itself in full: workers that keep copies of "
            "their own need a protocol in which every arrival does, such as "
            "protocols.asynchronous()"
        )
    due = _own_versions(timeline)
    own = timeline.read_version == due
    if not own.all():
        row = int(np.argmin(own))
        raise ValueError(
            f"timeline row {row}: worker {timeline.worker[row]} reads version "
            f"{timeline.read_version[row]}, but what its last arrival made is version "
            f"{due[row]}: each worker must go on at once from its own copy, as under "
            "protocols.asynchronous()"
        )


def _own_versions(timeline: Timeline) -> np.ndarray:
    """The version that the row's worker made last before it, or 0."""
    order = np.argsort(timeline.worker, kind="stable")
    worker, made = timeline.worker[order], timeline.version[order] + 1
    due = np.zeros(len(order), np.int64)
    due[1:] = np.where(worker[1:] == worker[:-1], made[:-1], 0)
    unsorted = np.empty_like(due)
    unsorted[order] = due
    return unsorted
