"""Clipping thresholds and learning rates for heavy-tailed gradient noise."""

import math
from typing import NamedTuple

from async_optax.validation import require_count, require_number


class Clipping(NamedTuple):
    """How to clip.

    Attributes:
      learning_rate: constant.
      max_norm: clipping radius, in gradient units; infinite where clipping is of no use.
      gradient_norm: the root mean square of norm(gradient) over the run that the bound promises.
    """

    learning_rate: float
    max_norm: float
    gradient_norm: float


def clipped_rate(moment: float) -> float:
    """The exponent r in ``norm(gradient) ~ T^-r`` of clipped SGD under heavy-tailed noise.

    ``(al - 1) / (3 al - 2)``: 1/4 for finite variance, 0 as the mean is lost.

    Args:
      moment: al in (1, 2], the order up to which moments of the noise are finite.

    Returns:
      The exponent.

    Raises:
      TypeError: if ``moment`` is not a number.
      ValueError: if it is out of range.

    Example:
      >>> clipped_rate(2.0), clipped_rate(1.5)
      (0.25, 0.2)

    References:
      Zhang et al., `Why are Adaptive Methods Good for Attention Models?
      <https://arxiv.org/abs/1912.03194>`_, 2020, for smooth non-convex problems, synchronous.
      Certainty: memory. That it holds with stale gradients is the claim of Sun et al.,
      `Asynchronous Heavy-Tailed Optimization <https://arxiv.org/abs/2602.18002>`_, 2026, of which
      we know the abstract.
    """
    require_number("moment", moment, above=1, at_most=2)
    return (moment - 1) / (3 * moment - 2)


def clipping_for_moments(
    moment: float,
    noise_scale: float,
    smoothness: float,
    initial_gap: float,
    num_commits: int,
    *,
    concurrency: int = 1,
    gradient_norm: float = 0.0,
) -> Clipping:
    """The threshold and the learning rate when only a moment of order alpha is finite.

    A gradient clipped at c is off its mean by at most ``s^al c^(1-al)``, and has the second moment
    ``s^al c^(2-al)``, so that after T commits the mean of norm(gradient)^2 is at most

        2 D / (eta T) + L eta s^al c^(2-al) + s^(2 al) c^(2-2 al),

    where we set all constants to 1. We return the eta and c of which this is the minimum:

        c = (4 (al-1) s^(2 al) / ((2-al) A))^(2/(3 al-2)),   A = 2 sqrt(2 D L s^al / T),
        eta = sqrt(2 D / (T L s^al c^(2-al))),

    that is ``c ~ T^(1/(3 al-2))``, ``eta ~ T^(-al/(3 al-2))`` and norm(gradient) ~
    ``T^(-(al-1)/(3 al-2))``; c is at least ``2 G``, and eta at most ``1 / (4 L C)``, which keeps
    the C gradients in flight from acting on parameters that are too old.

    Args:
      moment: al in (1, 2], the order up to which moments are finite; for a tail index take a
        little less. At 2 no clipping is called for.
      noise_scale: s > 0, with ``E norm(noise)^al <= s^al``, in gradient units.
      smoothness: L > 0, of the gradient: the largest curvature anywhere.
      initial_gap: D > 0, the loss at the start minus its infimum.
      num_commits: T >= 1.
      concurrency: C >= 1, gradients in flight: the number of workers.
      gradient_norm: G >= 0, the norms of gradients that should pass unclipped.

    Returns:
      :class:`Clipping`.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range.

    Example:
      >>> found = clipping_for_moments(1.5, 1.0, 1.0, 1.0, num_commits=10_000)
      >>> round(found.learning_rate, 4), round(found.max_norm, 1), round(found.gradient_norm, 2)
      (0.0053, 52.5, 0.31)

    References:
      Zhang et al., `Why are Adaptive Methods Good for Attention Models?
      <https://arxiv.org/abs/1912.03194>`_, 2020. Certainty: memory for the exponents; the
      constants, and the bound on eta for gradients in flight, are ours.
    """
    require_number("moment", moment, above=1, at_most=2)
    require_number("noise_scale", noise_scale, above=0)
    require_number("smoothness", smoothness, above=0)
    require_number("initial_gap", initial_gap, above=0)
    require_count("num_commits", num_commits)
    require_count("concurrency", concurrency)
    require_number("gradient_norm", gradient_norm, at_least=0)
    power = noise_scale**moment
    slope = 2 * math.sqrt(2 * initial_gap * smoothness * power / num_commits)
    radius = math.inf
    if moment < 2:
        balance = 4 * (moment - 1) * power**2 / ((2 - moment) * slope)
        radius = max(balance ** (2 / (3 * moment - 2)), 2 * gradient_norm)
    variance = power * radius ** (2 - moment)
    rate = math.sqrt(2 * initial_gap / (num_commits * smoothness * variance))
    rate = min(rate, 1 / (4 * smoothness * concurrency))
    bound = 2 * initial_gap / (rate * num_commits) + smoothness * rate * variance
    bound += power**2 * radius ** (2 - 2 * moment)
    return Clipping(rate, radius, math.sqrt(bound))


def clipping_for_sub_weibull(
    theta: float,
    noise_scale: float,
    smoothness: float,
    target: float,
    *,
    concurrency: int = 1,
    heterogeneity: float = 0.0,
    constant: float = 4.0,
) -> Clipping:
    """The threshold and the learning rate when the noise is sub-Weibull: all moments are finite.

    With ``W = K_th s^2 + 2 z^2``, ``K_th = 2 Gamma(2 th + 1)``, and
    ``q = max(1, log(2 + K W / eps^2)^th)``:

        c = eps + 2 z + 4 s q + sqrt(8 W),
        eta = min(1 / (K C L), eps^2 / (K L (eps^2 + (s^2 + z^2) q^2)), eps / (K c C L)).

    Neither depends on the largest delay: C gradients in flight move the server by at most
    ``eta c C``.

    Args:
      theta: th > 0, tail parameter: 1/2 Gaussian, 1 exponential, larger is heavier.
      noise_scale: s > 0, with ``E exp((norm(noise) / s)^(1 / th)) <= 2``, in gradient units.
      smoothness: L > 0, of the gradient: the largest curvature anywhere.
      target: eps > 0, for the mean of norm(gradient).
      concurrency: C >= 1, gradients in flight: the number of workers.
      heterogeneity: z >= 0, norm of a worker's gradient minus that of all.
      constant: K > 0.

    Returns:
      :class:`Clipping`; ``gradient_norm`` is the target.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range.

    Example:
      >>> found = clipping_for_sub_weibull(0.5, 1.0, 1.0, target=0.1, concurrency=16)
      >>> round(found.max_norm, 1), float(f"{found.learning_rate:.1g}")
      (14.4, 0.0001)

    References:
      Erickson, Johansson, `Clipping Makes Distributed and Federated Asynchronous SGD Robust to
      Stragglers <https://arxiv.org/abs/2606.13287>`_, 2026, which gives orders. Certainty:
      secondary sources for the form of c and eta; the constant K = 4, the same as in
      ``eta <= 1 / (4 L C)`` of Koloskova et al. 2022, and K_th, from the tail
      ``2 exp(-(t/s)^(1/th))``, are ours.
    """
    require_number("theta", theta, above=0)
    require_number("noise_scale", noise_scale, above=0)
    require_number("smoothness", smoothness, above=0)
    require_number("target", target, above=0)
    require_count("concurrency", concurrency)
    require_number("heterogeneity", heterogeneity, at_least=0)
    require_number("constant", constant, above=0)
    variance = 2 * math.gamma(2 * theta + 1) * noise_scale**2 + 2 * heterogeneity**2
    tail = max(1.0, math.log(2 + constant * variance / target**2) ** theta)
    radius = target + 2 * heterogeneity + 4 * noise_scale * tail + math.sqrt(8 * variance)
    spread = (noise_scale**2 + heterogeneity**2) * tail**2
    rate = min(
        1 / (constant * concurrency * smoothness),
        target**2 / (constant * smoothness * (target**2 + spread)),
        target / (constant * radius * concurrency * smoothness),
    )
    return Clipping(rate, radius, target)
