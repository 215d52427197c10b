"""Staleness kernels: how much of a commit is how stale."""

import numpy as np
import scipy

from async_optax.theory.arguments import require_timeline
from async_optax.timelines import Timeline
from async_optax.validation import require_count, require_number

_LEFT_OUT = 1e-12  # of the mass of a law without end


def staleness_kernel(timeline: Timeline, skip: int | None = None) -> np.ndarray:
    """The mean weight in a commit of gradients of each staleness.

    Entry j is the sum of the weights of accepted arrivals of staleness j, divided by the number of
    commits. It adds up to 1 when every arrival commits, or commits are means; the server moves on
    average by ``x_{k+1} = x_k - a sum_j kernel[j] x_{k-j}``.

    Args:
      timeline: who computes on which version.
      skip: commits left out at the start, where staleness still grows; ``None`` is a tenth.

    Returns:
      float64 ``[max_staleness + 1]``.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if ``skip`` is negative or leaves no commit, or nothing is accepted after it.

    Example:
      >>> staleness_kernel(Timeline.from_staleness([0, 1, 2, 2, 1, 2]), skip=2)
      array([0.  , 0.25, 0.75])
    """
    require_timeline(timeline)
    if skip is None:
        skip = timeline.num_commits // 10
    require_count("skip", skip, at_least=0)
    left = timeline.num_commits - skip
    if left < 1:
        raise ValueError(f"skip must be < num_commits = {timeline.num_commits}, got {skip}")
    rows = timeline.accepted & (timeline.version >= skip)
    rows &= timeline.version < timeline.num_commits  # what no commit uses any more
    kernel = np.bincount(timeline.staleness[rows], timeline.weight[rows])
    if not kernel.any():
        raise ValueError(f"timeline: nothing is accepted after the first {skip} commits")
    return kernel / left


def constant_kernel(staleness: int) -> np.ndarray:
    """All gradients are equally stale, as with equal workers that take turns.

    Args:
      staleness: tau >= 0.

    Returns:
      float64 ``[tau + 1]``.

    Raises:
      TypeError: if ``staleness`` is not an integer.
      ValueError: if it is negative.

    Example:
      >>> constant_kernel(2)
      array([0., 0., 1.])
    """
    require_count("staleness", staleness, at_least=0)
    return np.eye(staleness + 1)[-1]


def poisson_kernel(mean: float) -> np.ndarray:
    """Staleness of a Poisson law, cut where 1e-12 of it is left.

    Args:
      mean: > 0; with n workers that restart at once it is n - 1.

    Returns:
      float64, adding up to 1.

    Raises:
      TypeError: if ``mean`` is not a number.
      ValueError: if it is out of range.

    Example:
      >>> poisson_kernel(1.0)[:3].round(3)
      array([0.368, 0.368, 0.184])
    """
    require_number("mean", mean, above=0)
    return _cut(scipy.stats.poisson(mean))


def geometric_kernel(mean: float) -> np.ndarray:
    """Staleness of a geometric law from 0, that of memoryless workers, cut where 1e-12 is left.

    Args:
      mean: > 0; with n equal workers of exponential compute times it is n - 1.

    Returns:
      float64, adding up to 1.

    Raises:
      TypeError: if ``mean`` is not a number.
      ValueError: if it is out of range.

    Example:
      >>> geometric_kernel(1.0)[:3].round(3)
      array([0.5  , 0.25 , 0.125])
    """
    require_number("mean", mean, above=0)
    return _cut(scipy.stats.geom(1 / (1 + mean), loc=-1))


def _cut(law: "scipy.stats.rv_frozen") -> np.ndarray:
    kernel = law.pmf(np.arange(int(law.isf(_LEFT_OUT)) + 1))
    return kernel / kernel.sum()
