"""When a delayed mode first comes close to its minimum, by simulation."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from async_optax.theory.arguments import checked_kernel
from async_optax.validation import require_count, require_number, require_seed


class HittingTimes(NamedTuple):
    """When runs first reached their target.

    Attributes:
      commits: int64 ``[num_runs]``, commits until then; those of the whole run where it did not.
      reached: bool ``[num_runs]``, whether it did.
    """

    commits: np.ndarray
    reached: np.ndarray


def hitting_times(
    step: float,
    kernel: ArrayLike,
    *,
    target: float,
    noise: float = 0.0,
    momentum: float = 0.0,
    start: float = 1.0,
    num_runs: int = 1000,
    max_commits: int = 10_000,
    seed: int = 0,
) -> HittingTimes:
    """Simulates how many commits a delayed mode takes to come within a distance of its minimum.

    ``x_{k+1} = x_k + m (x_k - x_{k-1}) - a x_{k-tau_k} + noise e_k`` with independent standard
    normal e and staleness drawn from the kernel, at most k at commit k, from ``x_0 = start``. The
    time is the first k with ``abs(x_k) <= target``. All runs advance together.

    Args:
      step: a > 0, learning rate eta times curvature.
      kernel: probabilities of staleness 0, 1, ..., ``[max_staleness + 1]``, adding up to 1; such
        as :func:`async_optax.theory.constant_kernel`.
      target: > 0.
      noise: eta times the standard deviation of the gradient's noise, >= 0.
      momentum: m in [0, 1), of a heavy ball.
      start: x_0.
      num_runs: independent runs, >= 1.
      max_commits: where runs end, >= 1.
      seed: an integer in [0, 2**31).

    Returns:
      :class:`HittingTimes`.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range, or the kernel does not add up to 1.

    Example:
      >>> hitting_times(0.25, [0.0, 1.0], target=0.01, num_runs=1).commits
      array([10])
      >>> noisy = hitting_times(0.1, [0.0, 0.0, 1.0], target=0.05, noise=0.01, num_runs=100)
      >>> bool(noisy.reached.all())
      True
    """
    require_number("step", step, above=0)
    weights = checked_kernel(kernel)
    if abs(weights.sum() - 1) > 1e-6:
        raise ValueError(f"kernel must add up to 1, got a sum of {weights.sum():g}")
    require_number("target", target, above=0)
    require_number("noise", noise, at_least=0)
    require_number("momentum", momentum, at_least=0, below=1)
    require_number("start", start)
    require_count("num_runs", num_runs)
    require_count("max_commits", max_commits)
    require_seed(seed)
    draws = np.random.Generator(np.random.PCG64(seed))
    size, runs = len(weights), np.arange(num_runs)
    levels = np.cumsum(weights) / weights.sum()
    # Version k is in row k modulo the size; before the start all versions are the first.
    versions = np.full((size, num_runs), float(start))
    now, speed = np.full(num_runs, float(start)), np.zeros(num_runs)
    commits = np.where(np.abs(now) <= target, 0, max_commits)
    reached = commits == 0
    for k in range(max_commits):
        if reached.all():
            break
        staleness = np.searchsorted(levels, draws.random(num_runs), side="right")
        staleness = np.minimum(np.minimum(staleness, size - 1), k)
        speed = momentum * speed - step * versions[(k - staleness) % size, runs]
        if noise:
            speed += noise * draws.standard_normal(num_runs)
        now = now + speed
        versions[(k + 1) % size] = now
        first = ~reached & (np.abs(now) <= target)
        commits[first] = k + 1
        reached |= first
    return HittingTimes(commits, reached)
