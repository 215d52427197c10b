"""Whether every job reads the version that it is applied to."""

import numpy as np

from async_optax.timelines.timeline import Timeline


def require_fresh_rows(timeline: Timeline) -> None:
    """Raises unless one worker computes all rows, each on the version that it is applied to.

    So it must be where an optimizer delays by itself what is seen of its parameters, as those of
    pipelines and of gossip in rounds do: delays of the timeline would come on top of its own.

    Args:
      timeline: who reads what.

    Raises:
      ValueError: if there are several workers, or naming the first row that is stale.

    Example:
      >>> require_fresh_rows(Timeline.from_staleness([0, 0, 0]))
      >>> require_fresh_rows(Timeline.from_staleness([0, 1, 0]))
      Traceback (most recent call last):
      ...
      ValueError: the timeline must have one worker, got 2: the optimizer has delays of its own, \
and is for timelines such as ao.pipeline.timeline(...) and ao.gossip.timeline(...)
    """
    reason = (
        "the optimizer has delays of its own, and is for timelines such as "
        "ao.pipeline.timeline(...) and ao.gossip.timeline(...)"
    )
    if timeline.num_workers != 1:
        raise ValueError(f"the timeline must have one worker, got {timeline.num_workers}: {reason}")
    stale = timeline.staleness > 0
    if stale.any():
        row = int(np.argmax(stale))
        raise ValueError(f"timeline row {row} has staleness {timeline.staleness[row]}: {reason}")
