"""Learning rates for a timeline, or for a protocol on a cluster, and a curvature."""

import dataclasses

import numpy as np

from async_optax.theory.arguments import require_timeline
from async_optax.theory.kernel_stability import kernel_stability_limit
from async_optax.theory.kernels import staleness_kernel
from async_optax.theory.replay import replayed_growth, replayed_limit
from async_optax.timelines import Timeline, simulate_timeline
from async_optax.timelines.protocols import Protocol
from async_optax.timelines.runtimes import RuntimeModel
from async_optax.validation import require_count, require_number, require_seed

_COMMITS, _COMMITS_PER_WORKER = 2000, 100
_STEPS, _ROUNDS, _SMALLEST = 48, 2, 1 / 200  # of the search for the best


@dataclasses.dataclass(frozen=True, eq=False)
class StepSizes:
    """Learning rates, and what they promise on a quadratic without noise.

    Attributes:
      largest: the largest learning rate at which the stiffest mode converges.
      largest_in_mean: the same for the mean of runs with staleness drawn independently; where the
        two differ, runs differ.
      best: the learning rate at which the slowest mode shrinks fastest.
      radius: the factor by which the slowest mode then shrinks in a commit.
      rate: ``-log(radius)`` times the commits per unit of time: the rate in simulated time.
      commits_per_time: commits per unit of simulated time.
      gradients_per_commit: accepted arrivals per commit.
      mean_staleness: of accepted arrivals, by weight.
      max_staleness: of accepted arrivals.
      kernel: float64 ``[max_staleness + 1]``, see :func:`async_optax.theory.staleness_kernel`.
    """

    largest: float
    largest_in_mean: float
    best: float
    radius: float
    rate: float
    commits_per_time: float
    gradients_per_commit: float
    mean_staleness: float
    max_staleness: int
    kernel: np.ndarray

    def __repr__(self) -> str:
        return (
            f"StepSizes(largest={self.largest:.4g}, best={self.best:.4g}, rate={self.rate:.4g}, "
            f"mean_staleness={self.mean_staleness:.4g})"
        )


def step_sizes(
    timeline: Timeline,
    curvature: float,
    *,
    smallest_curvature: float | None = None,
    momentum: float = 0.0,
) -> StepSizes:
    """The largest stable and the best learning rate on a timeline.

    Runs a mode over the rows of the timeline, at many steps at once
    (:func:`async_optax.theory.replayed_growth`). Modes of curvatures from ``h_min`` to ``h_max``
    all converge if ``eta h_max`` is below the limit; the best eta is that at which the larger
    growth of ``eta h_min`` and ``eta h_max`` is least.

    Args:
      timeline: who computes on which version, for 100 commits or more for each worker.
      curvature: h_max > 0, the largest eigenvalue of the Hessian, such as
        :func:`async_optax.theory.hessian_eigenvalues` finds.
      smallest_curvature: h_min in (0, h_max], of the slowest mode that matters; ``None`` is h_max.
      momentum: m in [0, 1), of a heavy ball at the server.

    Returns:
      :class:`StepSizes`.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range, or the timeline is too short.

    Example:
      >>> import async_optax as ao
      >>> timeline = ao.simulate_timeline(
      ...     ao.protocols.asynchronous(), ao.runtimes.deterministic(), 8, num_commits=2000
      ... )
      >>> sizes = step_sizes(timeline, curvature=2.0)
      >>> round(sizes.best, 4), round(sizes.mean_staleness, 1)  # exactly 0.0245
      (0.0247, 7.0)

    References:
      Our derivation. Certainty: exact for quadratics on this timeline, up to its length. The
      curvature of a network changes as it trains, and under noise a smaller learning rate than
      ``best`` may end lower: see :func:`async_optax.theory.stationary_variance`.
    """
    require_timeline(timeline)
    require_number("curvature", curvature, above=0)
    slowest = curvature if smallest_curvature is None else smallest_curvature
    require_number("smallest_curvature", slowest, above=0, at_most=curvature)
    kernel = staleness_kernel(timeline)
    in_mean = kernel_stability_limit(kernel, momentum)
    largest = replayed_limit(timeline, momentum)
    step, growth = _best_step(timeline, momentum, largest, slowest / curvature)
    commits_per_time = timeline.num_commits / float(timeline.commit_times[-1])
    rows = timeline.accepted & (timeline.version < timeline.num_commits)
    return StepSizes(
        largest=largest / curvature,
        largest_in_mean=in_mean / curvature,
        best=step / curvature,
        radius=float(np.exp(growth)),
        rate=-growth * commits_per_time,
        commits_per_time=commits_per_time,
        gradients_per_commit=np.count_nonzero(rows) / timeline.num_commits,
        mean_staleness=float(kernel @ np.arange(len(kernel)) / kernel.sum()),
        max_staleness=int(timeline.staleness[rows].max()),
        kernel=kernel,
    )


def step_sizes_for(
    protocol: Protocol,
    runtimes: RuntimeModel,
    num_workers: int,
    curvature: float,
    *,
    smallest_curvature: float | None = None,
    momentum: float = 0.0,
    num_commits: int | None = None,
    seed: int = 0,
) -> StepSizes:
    """The largest stable and the best learning rate for a protocol on a cluster.

    Simulates the timeline, and takes :func:`step_sizes` of it.

    Args:
      protocol: one of :mod:`async_optax.protocols`.
      runtimes: one of :mod:`async_optax.runtimes`.
      num_workers: >= 1.
      curvature: h_max > 0, the largest eigenvalue of the Hessian.
      smallest_curvature: h_min in (0, h_max]; ``None`` is h_max.
      momentum: m in [0, 1), of a heavy ball at the server.
      num_commits: length of the timeline; ``None`` is 2000, and 100 more for each worker.
      seed: of the timeline.

    Returns:
      :class:`StepSizes`.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range, or the protocol cannot run on so many workers.

    Example:
      >>> import async_optax as ao
      >>> times = ao.runtimes.gamma(cv=0.5)
      >>> synchronous = step_sizes_for(ao.protocols.synchronous(), times, 8, curvature=2.0)
      >>> asynchronous = step_sizes_for(ao.protocols.asynchronous(), times, 8, curvature=2.0)
      >>> round(synchronous.largest, 2), round(asynchronous.largest, 2)
      (1.0, 0.16)
    """
    require_count("num_workers", num_workers)
    require_seed(seed)
    if num_commits is None:
        num_commits = _COMMITS + _COMMITS_PER_WORKER * num_workers
    timeline = simulate_timeline(
        protocol, runtimes, num_workers, num_commits=num_commits, seed=seed
    )
    return step_sizes(timeline, curvature, smallest_curvature=smallest_curvature, momentum=momentum)


def _best_step(
    timeline: Timeline, momentum: float, limit: float, ratio: float
) -> tuple[float, float]:
    """The step of the stiffest mode at which the slower of two grows least, and how it grows."""
    low, high = limit * _SMALLEST, limit
    for _ in range(_ROUNDS):
        steps = np.geomspace(low, high, _STEPS)
        growth = replayed_growth(timeline, np.concatenate([steps, ratio * steps]), momentum)
        slower = growth.reshape(2, -1).max(axis=0)
        best = int(np.argmin(slower))
        low, high = steps[max(best - 2, 0)], steps[min(best + 2, _STEPS - 1)]
    return float(steps[best]), float(slower[best])
