"""A single mode on a given timeline, row by row: what the server of a quadratic would do."""

import numpy as np
from numpy.typing import ArrayLike

from async_optax.theory.arguments import checked_row, require_timeline
from async_optax.theory.kernel_stability import kernel_stability_limit
from async_optax.theory.kernels import staleness_kernel
from async_optax.timelines import Timeline
from async_optax.validation import require_number

_RESCALED_EVERY = 16  # commits
_BLOCKS = 12  # of the second half, over which growth is fitted
_DIED_OUT = -2.0  # log(abs(x)) at the end, where the start is 0
_STEPS, _ROUNDS = 32, 3  # of the search for a limit


def replayed_growth(timeline: Timeline, steps: ArrayLike, momentum: float = 0.0) -> np.ndarray:
    """How fast a mode grows on a timeline, for many steps at once.

    Commit k moves the mode by ``v <- m v + sum_i w_i x_{r_i}``, ``x_{k+1} = x_k - a v``, the sum
    over the accepted arrivals i since the commit before, of weight w_i, that read version r_i; it
    starts at 1. Growth is the slope of log(abs(x)) over the second half of the run, fitted to the
    maxima of 12 blocks: the logarithm of a spectral radius where staleness is constant.

    Args:
      timeline: who computes on which version.
      steps: a >= 0, learning rate times curvature, ``[num_steps]``.
      momentum: m in [0, 1), of a heavy ball.

    Returns:
      float64 ``[num_steps]``, per commit; below 0 the mode dies out, ``-inf`` if it becomes 0.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range, or the timeline has fewer than 24 commits.

    Example:
      >>> import async_optax as ao
      >>> timeline = ao.Timeline.from_staleness([0, *[1] * 999])
      >>> growth = replayed_growth(timeline, [0.1, 0.25, 1.2])
      >>> np.exp(growth).round(2)  # radii 0.887, 0.5 and 1.095
      array([0.89, 0.5 , 1.1 ])
    """
    require_timeline(timeline)
    row = checked_row("steps", steps, at_least=0)
    require_number("momentum", momentum, at_least=0, below=1)
    return _growth_and_end(timeline, row, momentum)[0]


def replayed_limit(timeline: Timeline, momentum: float = 0.0) -> float:
    """The step at which a mode stops converging on a timeline.

    Looks for the least step at which :func:`replayed_growth` is positive and the mode ends above
    ``exp(-2)`` of its start, between a step too small to be unstable in any order and four times
    that of the mean, :func:`async_optax.theory.kernel_stability_limit`. (Growth alone would not do:
    a gradient that is very late pushes up a mode that has almost died out.) Nothing is assumed of
    how staleness is distributed, or depends on what came before. The answer is for this timeline:
    with regular workers it is good to 1 % after 100 commits for each worker, with irregular ones
    to 10 %.

    Args:
      timeline: who computes on which version.
      momentum: m in [0, 1), of a heavy ball.

    Returns:
      The limit of learning rate times curvature.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range, the timeline is too short, or the limit is not within
        the range of the search.

    Example:
      >>> import async_optax as ao
      >>> timeline = ao.Timeline.from_staleness([0, 1, 2, *[3] * 1500])
      >>> round(replayed_limit(timeline), 2)  # exactly 0.445
      0.45
    """
    require_timeline(timeline)
    kernel = staleness_kernel(timeline)
    # Below 3/2 / (largest staleness + 3/2) no order of staleness makes the mode grow.
    low = 0.75 * (1 - momentum) / (len(kernel) + 1) / kernel.sum()
    high = 4 * kernel_stability_limit(kernel, momentum)
    for _ in range(_ROUNDS):
        steps = np.geomspace(low, high, _STEPS)
        growth, end = _growth_and_end(timeline, steps, momentum)
        unstable = (growth > 0) & (end > _DIED_OUT)
        if unstable[0] or not unstable.any():
            raise ValueError(
                f"timeline: no limit of stability is found between steps {low:.3g} and {high:.3g}"
            )
        first = int(np.argmax(unstable))
        low, high = steps[first - 1], steps[first]
    return float(np.sqrt(low * high))


def _growth_and_end(
    timeline: Timeline, steps: np.ndarray, momentum: float
) -> tuple[np.ndarray, np.ndarray]:
    """Growth per commit, and log(abs(x)) at the end, where the start is 0: ``[num_steps]`` each."""
    if timeline.num_commits < 2 * _BLOCKS:
        raise ValueError(
            f"timeline must have at least {2 * _BLOCKS} commits, got {timeline.num_commits}"
        )
    sizes = _log_sizes(timeline, steps, momentum)
    second = sizes[len(sizes) % (2 * _BLOCKS) + len(sizes) // (2 * _BLOCKS) * _BLOCKS :]
    peaks = second.reshape(_BLOCKS, -1, len(steps)).max(axis=1)
    place = np.arange(_BLOCKS) - (_BLOCKS - 1) / 2
    dead = np.isneginf(peaks).any(axis=0)
    lost = ~dead & ~np.isfinite(peaks).all(axis=0)  # steps beyond all measure
    slopes = place @ np.where(dead | lost, 0.0, peaks) / (place @ place)
    growth = np.where(dead, -np.inf, slopes / (len(second) // _BLOCKS))
    return np.where(lost, np.inf, growth), np.where(lost, np.inf, peaks[-1])


def _log_sizes(timeline: Timeline, steps: np.ndarray, momentum: float) -> np.ndarray:
    """log(abs(x)) after each commit, ``[num_commits, num_steps]``."""
    num_commits = timeline.num_commits
    rows = np.flatnonzero(timeline.accepted & (timeline.version < num_commits))
    reads, weights = timeline.read_version[rows], timeline.weight[rows]
    bounds = np.searchsorted(timeline.version[rows], np.arange(num_commits + 1))
    # The oldest version that a commit or a later one reads: what is older need not be rescaled.
    oldest = np.minimum.accumulate(np.append(reads, num_commits)[::-1])[::-1][bounds[:-1]]
    mode = np.ones((num_commits + 1, len(steps)))
    speed, scale = np.zeros(len(steps)), np.zeros(len(steps))
    sizes = np.empty((num_commits, len(steps)))
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        for k in range(num_commits):
            which = slice(bounds[k], bounds[k + 1])
            speed = momentum * speed + weights[which] @ mode[reads[which]]
            mode[k + 1] = mode[k] - steps * speed
            sizes[k] = np.log(np.abs(mode[k + 1])) + scale
            if k % _RESCALED_EVERY == _RESCALED_EVERY - 1:
                live = mode[min(oldest[k], k + 1) : k + 2]
                size = np.maximum(np.abs(live).max(axis=0), np.abs(speed))
                size[size == 0] = 1.0
                live /= size
                speed = speed / size
                scale = scale + np.log(size)
    return sizes
