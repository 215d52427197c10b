"""What Ringmaster and Rennala ask for, and the least time that any method needs."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from async_optax.theory.arguments import checked_row
from async_optax.validation import require_count, require_number


class RingmasterParameters(NamedTuple):
    """Parameters of Ringmaster.

    Attributes:
      max_staleness: for :func:`async_optax.protocols.ringmaster`.
      learning_rate: constant.
      num_commits: enough for the target.
    """

    max_staleness: int
    learning_rate: float
    num_commits: int


class RennalaParameters(NamedTuple):
    """Parameters of Rennala.

    Attributes:
      batch_size: for :func:`async_optax.protocols.rennala`.
      learning_rate: constant, of the mean of a batch.
      num_commits: enough for the target.
    """

    batch_size: int
    learning_rate: float
    num_commits: int


class TimeBound(NamedTuple):
    """The time that is needed, to a constant.

    Attributes:
      time: in the unit of the compute times.
      num_workers: how many of the fastest workers decide it.
    """

    time: float
    num_workers: int


def ringmaster_parameters(
    smoothness: float, noise_variance: float, target: float, initial_gap: float
) -> RingmasterParameters:
    """The staleness threshold, learning rate and length of a run of Ringmaster.

    With ``R = max(1, ceil(sigma^2 / eps))``: gradients with fewer than R commits between reading
    and arrival are applied, at ``gamma = min(1 / (2 R L), eps / (4 L sigma^2))``; after
    ``8 R L D / eps + 16 sigma^2 L D / eps^2`` commits the mean of norm(gradient)^2 is at most eps.

    Args:
      smoothness: L > 0, of the gradient: the largest curvature anywhere.
      noise_variance: sigma^2 >= 0, the mean of norm(noise)^2 of a gradient.
      target: eps > 0, for the mean of norm(gradient)^2.
      initial_gap: D > 0, the loss at the start minus its infimum.

    Returns:
      :class:`RingmasterParameters`; ``max_staleness`` is R - 1, as 0 is fresh here.

    Raises:
      TypeError: if an argument is not a number.
      ValueError: if one is out of range.

    Example:
      >>> ringmaster_parameters(2.0, noise_variance=1.0, target=0.1, initial_gap=1.0)
      RingmasterParameters(max_staleness=9, learning_rate=0.0125, num_commits=4800)

    References:
      Maranjyan, Tyurin, Richtarik, `Ringmaster ASGD <https://arxiv.org/abs/2501.16168>`_, 2025,
      Theorem 4.1. Certainty: memory.
    """
    _check(smoothness, noise_variance, target, initial_gap)
    threshold = _batch(noise_variance, target)
    rate = 1 / (2 * threshold * smoothness)
    if noise_variance:
        rate = min(rate, target / (4 * smoothness * noise_variance))
    scale = smoothness * initial_gap / target
    commits = 8 * threshold * scale + 16 * noise_variance / target * scale
    return RingmasterParameters(threshold - 1, rate, math.ceil(commits * (1 - 1e-12)))


def rennala_parameters(
    smoothness: float, noise_variance: float, target: float, initial_gap: float
) -> RennalaParameters:
    """The batch, learning rate and length of a run of Rennala.

    Batches of ``S = max(1, ceil(sigma^2 / eps))`` gradients at one version. Their mean has the
    noise ``sigma^2 / S``, so after K commits the mean of norm(gradient)^2 is at most
    ``2 D / (gamma K) + L gamma sigma^2 / S`` for ``gamma <= 1 / L``: it is eps for
    ``gamma = min(1 / L, eps S / (2 L sigma^2))`` and ``K = 4 D / (gamma eps)``.

    Args:
      smoothness: L > 0, of the gradient: the largest curvature anywhere.
      noise_variance: sigma^2 >= 0, the mean of norm(noise)^2 of a gradient.
      target: eps > 0, for the mean of norm(gradient)^2.
      initial_gap: D > 0, the loss at the start minus its infimum.

    Returns:
      :class:`RennalaParameters`.

    Raises:
      TypeError: if an argument is not a number.
      ValueError: if one is out of range.

    Example:
      >>> rennala_parameters(2.0, noise_variance=1.0, target=0.1, initial_gap=1.0)
      RennalaParameters(batch_size=10, learning_rate=0.25, num_commits=160)

    References:
      Tyurin, Richtarik, `Optimal Time Complexities of Parallel Stochastic Optimization Methods
      <https://arxiv.org/abs/2305.12387>`_, 2023. Certainty: memory for S and gamma; the number of
      commits is that of the standard lemma above, its constants ours.
    """
    _check(smoothness, noise_variance, target, initial_gap)
    size = _batch(noise_variance, target)
    rate = 1 / smoothness
    if noise_variance:
        rate = min(rate, target * size / (2 * smoothness * noise_variance))
    commits = 4 * initial_gap / (rate * target)
    return RennalaParameters(size, rate, math.ceil(commits * (1 - 1e-12)))


def gathering_time(times: ArrayLike, num_gradients: int) -> TimeBound:
    """How long workers take at most for a number of gradients: a bound by harmonic means.

    The least of ``(B + m) / sum_{i <= m} 1 / t_i`` over the m fastest workers. It bounds the time
    of a commit of ``rennala(B)``, and that of B consecutive commits of Ringmaster up to a factor 2.

    Args:
      times: compute times t_i > 0, ``[num_workers]``.
      num_gradients: B >= 1.

    Returns:
      :class:`TimeBound`.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range.

    Example:
      >>> gathering_time([1.0, 1.0, 10.0], 4)
      TimeBound(time=3.0, num_workers=2)

    References:
      Tyurin, Richtarik, `Optimal Time Complexities of Parallel Stochastic Optimization Methods
      <https://arxiv.org/abs/2305.12387>`_, 2023; Maranjyan, Tyurin, Richtarik, `Ringmaster ASGD
      <https://arxiv.org/abs/2501.16168>`_, 2025. Certainty: memory; confirmed on timelines.
    """
    fastest = np.sort(checked_row("times", times, above=0))
    require_count("num_gradients", num_gradients)
    counts = np.arange(1, len(fastest) + 1)
    bounds = (num_gradients + counts) / np.cumsum(1 / fastest)
    best = int(np.argmin(bounds))
    return TimeBound(float(bounds[best]), int(counts[best]))


def optimal_time(
    times: ArrayLike,
    smoothness: float,
    noise_variance: float,
    target: float,
    initial_gap: float,
) -> TimeBound:
    """The time that the best method needs on a smooth problem, to a constant.

    The least of ``(L D / eps + sigma^2 L D / (m eps^2)) / (mean_{i <= m} 1 / t_i)`` over the m
    fastest workers: no method needs less, and Rennala and Ringmaster need no more, up to constants.

    Args:
      times: compute times t_i > 0, ``[num_workers]``.
      smoothness: L > 0, of the gradient: the largest curvature anywhere.
      noise_variance: sigma^2 >= 0, the mean of norm(noise)^2 of a gradient.
      target: eps > 0, for the mean of norm(gradient)^2.
      initial_gap: D > 0, the loss at the start minus its infimum.

    Returns:
      :class:`TimeBound`.

    Raises:
      TypeError: if an argument is not made of numbers.
      ValueError: if one is out of range.

    Example:
      >>> optimal_time([1.0, 1.0, 50.0], 1.0, noise_variance=1.0, target=0.1, initial_gap=1.0)
      TimeBound(time=60.0, num_workers=2)

    References:
      Tyurin, Richtarik, `Optimal Time Complexities of Parallel Stochastic Optimization Methods
      <https://arxiv.org/abs/2305.12387>`_, 2023. Certainty: memory.
    """
    _check(smoothness, noise_variance, target, initial_gap)
    fastest = np.sort(checked_row("times", times, above=0))
    counts = np.arange(1, len(fastest) + 1)
    scale = smoothness * initial_gap / target
    bounds = (scale + noise_variance / target * scale / counts) * counts / np.cumsum(1 / fastest)
    best = int(np.argmin(bounds))
    return TimeBound(float(bounds[best]), int(counts[best]))


def _batch(noise_variance: float, target: float) -> int:
    # A ratio that is a whole number but for rounding is not rounded up.
    return max(1, math.ceil(noise_variance / target * (1 - 1e-12)))


def _check(smoothness: float, noise_variance: float, target: float, initial_gap: float) -> None:
    require_number("smoothness", smoothness, above=0)
    require_number("noise_variance", noise_variance, at_least=0)
    require_number("target", target, above=0)
    require_number("initial_gap", initial_gap, above=0)
