"""Timelines of pipelines: one row per micro-batch, with the time that bubbles cost."""

from collections.abc import Sequence

import numpy as np

from async_optax.timelines.side_tables import LostJobs, MadeFor
from async_optax.timelines.timeline import Timeline
from async_optax.validation import require_count, require_number


def bubble_fraction(num_stages: int, num_micro_batches: int) -> float:
    """Returns the share of its time that each stage of a synchronous pipeline waits.

    ``(P - 1) / (M + P - 1)`` for P equally fast stages and M micro-batches per update: while the
    pipeline fills and drains, a stage waits for as long as P - 1 micro-batches take.

    Args:
      num_stages: P >= 1.
      num_micro_batches: M >= 1.

    Returns:
      A number in [0, 1).

    Raises:
      TypeError: if an argument is not an integer.
      ValueError: if it is out of range.

    Example:
      >>> bubble_fraction(num_stages=4, num_micro_batches=9)
      0.25

    References:
      Huang et al., `GPipe: Efficient Training of Giant Neural Networks using Pipeline Parallelism
      <https://arxiv.org/abs/1811.06965>`_, 2019. Certainty: full text.
    """
    require_count("num_stages", num_stages)
    require_count("num_micro_batches", num_micro_batches)
    return (num_stages - 1) / (num_micro_batches + num_stages - 1)


def pipeline_delays(
    num_stages: int, num_micro_batches: int = 1, *, round_up: bool = False
) -> tuple[int, ...]:
    """Returns by how many updates each stage of an asynchronous pipeline is behind.

    In the steady state of one forward, one backward, ``P - 1 - i`` backward passes of other
    micro-batches fall between the two passes of a micro-batch at stage i, counted from 0. With an
    update every M micro-batches, the last micro-batch of each update is
    ``floor((P - 1 - i) / M)`` updates behind, the first one ``ceil((P - 1 - i) / M)``, and
    their mean is ``(P - 1 - i) / M``. One delay for all of them is a choice: the truth lies between
    rounding down and rounding up.

    Args:
      num_stages: P >= 1.
      num_micro_batches: M >= 1, per update, as for :func:`pipeline_timeline`.
      round_up: whether the delay is that of an update's first micro-batch, else of its last.

    Returns:
      P integers, for the argument ``delays`` of the methods of
      :mod:`async_optax.optimizers.pipelines`.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if it is out of range.

    Example:
      >>> pipeline_delays(4), pipeline_delays(4, num_micro_batches=2)
      ((3, 2, 1, 0), (1, 1, 0, 0))
      >>> pipeline_delays(4, num_micro_batches=2, round_up=True)
      (2, 1, 1, 0)

    References:
      Ajanthan et al., `Nesterov Method for Asynchronous Pipeline Parallel Optimization
      <https://arxiv.org/abs/2505.01099>`_, 2025: ``floor((2 (P - i) + 1) / (2 M))`` with i from
      1, which is the same as rounding down. Certainty: secondary sources; rounding up, and what
      each micro-batch sees, from the schedule.
    """
    require_count("num_stages", num_stages)
    require_count("num_micro_batches", num_micro_batches)
    if not isinstance(round_up, bool):
        raise TypeError(f"round_up must be True or False, got {round_up!r}")
    added = num_micro_batches - 1 if round_up else 0
    return tuple((behind + added) // num_micro_batches for behind in reversed(range(num_stages)))


def pipeline_timeline(
    num_stages: int,
    num_updates: int,
    *,
    num_micro_batches: int = 1,
    synchronous: bool = False,
    stage_times: float | Sequence[float] = 1.0,
    whole_batches: bool = False,
) -> Timeline:
    """Makes the timeline of a pipeline, as one worker that delivers one micro-batch after another.

    Stage i takes ``stage_times[i]`` for the forward and backward passes of one update's data, and
    ``stage_times[i] / M`` for each of its M micro-batches. With c the slowest stage's time and s
    the sum of them all, a full pipeline makes an update every c, and filling and draining it costs
    ``(s - c) / M``: once if it is asynchronous, at every update if it is synchronous (GPipe). With
    equal times this is ``(P - 1) / M`` of an update, the bubble of :func:`bubble_fraction`.

    All micro-batches of an update have weight ``1 / M``, and its last one commits. Each reads the
    version that it is applied to, so staleness here is 0: by how much the stages of an
    asynchronous pipeline are behind is the business of
    :func:`async_optax.transforms.delay_stages`, for which :func:`pipeline_delays` counts
    micro-batches in updates. The timeline knows how many stages it is for, and whether they are
    drained: a run whose optimizer delays no stages is refused if it is asynchronous, and one
    that delays them if it is synchronous. The worker is the slowest stage: its idle time
    is the bubble.

    Args:
      num_stages: P >= 1.
      num_updates: >= 1.
      num_micro_batches: M >= 1, per update. Micro-batches are what the problem's ``batch``
        returns: an update sees M of them.
      synchronous: whether the pipeline is drained at each update.
      stage_times: a number > 0 for all stages, or one for each, in any unit.
      whole_batches: one row per update instead of M, for problems whose ``batch`` returns the
        data of a whole update. The times are those of M micro-batches; so is the gradient, as
        the mean over equal micro-batches is the mean over the batch.

    Returns:
      A timeline.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if a number is out of range, or there is not one time per stage.

    Example:
      >>> synchronous = pipeline_timeline(3, 2, num_micro_batches=4, synchronous=True)
      >>> asynchronous = pipeline_timeline(3, 2, num_micro_batches=4)
      >>> print(synchronous.commit_times, asynchronous.commit_times)
      [1.5 3. ] [1.5 2.5]
      >>> print(1 - synchronous.utilisation()[0], bubble_fraction(3, 4))
      0.33333333333333337 0.3333333333333333

    References:
      Huang et al. 2019 (GPipe, see :func:`bubble_fraction`); Narayanan et al., `PipeDream
      <https://dl.acm.org/doi/10.1145/3341301.3359646>`_, 2019. That all transfers are hidden
      behind computation is our simplification.
    """
    require_count("num_stages", num_stages)
    require_count("num_updates", num_updates)
    require_count("num_micro_batches", num_micro_batches)
    for name, flag in (("synchronous", synchronous), ("whole_batches", whole_batches)):
        if not isinstance(flag, bool):
            raise TypeError(f"{name} must be True or False, got {flag!r}")
    times = _checked_times(stage_times, num_stages)
    slowest = float(times.max())
    fill = float(times.sum() - slowest) / num_micro_batches
    per_update = 1 if whole_batches else num_micro_batches
    row = np.arange(num_updates * per_update)
    version = row // per_update
    # Multiples rather than sums, so that a row starts exactly when the one before it ends.
    filled = fill * (version + 1 if synchronous else np.ones(len(row)))
    unit = slowest / per_update
    time = filled + unit * (row + 1)
    return Timeline(
        num_workers=1,
        end_time=float(time[-1]),
        worker=np.zeros(len(row), np.int32),
        read_version=version.astype(np.int32),
        version=version.astype(np.int32),
        start_time=filled + unit * row,
        time=time,
        weight=np.full(len(row), 1 / per_update),
        accepted=np.ones(len(row), bool),
        commit=row % per_update == per_update - 1,
        lost=LostJobs.none(),
        made_for=MadeFor(
            MadeFor.SYNCHRONOUS_PIPELINE if synchronous else MadeFor.ASYNCHRONOUS_PIPELINE,
            num_stages,
        ),
    )


def _checked_times(stage_times: float | Sequence[float], num_stages: int) -> np.ndarray:
    require_number("stage_times", np.asarray(stage_times), above=0, scalar=False)
    times = np.asarray(stage_times, np.float64)
    if times.shape not in ((), (num_stages,)):
        raise ValueError(
            f"stage_times must be one number, or one for each of {num_stages} stages, got shape "
            f"{times.shape}"
        )
    return np.broadcast_to(times, num_stages)
