"""How light a light tail is: theta of sub-Weibull laws."""

import dataclasses
from typing import Any

import numpy as np
import scipy.optimize
import scipy.special

from async_optax.theory.tails.samples import sizes_of

_FEWEST = 100
_LOW, _HIGH = 0.05, 20.0  # theta; beyond them the law is no longer of this kind


@dataclasses.dataclass(frozen=True)
class SubWeibull:
    """A generalised Gamma law fitted to magnitudes.

    Its density is proportional to ``t**(shape / theta - 1) * exp(-(t / scale)**(1 / theta))``.

    Attributes:
      theta: tail parameter: 1/2 is Gaussian, 1 exponential, larger heavier.
      shape: > 0, of the body; 1 is Weibull.
      scale: > 0, in the unit of the samples.
      at_bound: whether theta stopped at the end of what is searched, 0.05 to 20: then the samples
        are not of this kind (powers of t have theta = infinity).
    """

    theta: float
    shape: float
    scale: float
    at_bound: bool


def fit_sub_weibull(samples: Any) -> SubWeibull:
    """Fits a generalised Gamma law to the magnitudes, by maximum likelihood.

    A magnitude t has ``(t / scale)**(1 / theta)`` Gamma-distributed with the given shape. Beside
    Weibull laws, ``P(t > u) = exp(-(u / scale)**(1 / theta))``, of shape 1, the family has the
    half-normal law (theta 1/2, shape 1/2), all Gamma laws (theta 1) and norms of Gaussian vectors
    (theta 1/2, shape dim / 2). Hence theta is right for them at any threshold, where the slope
    of ``log t`` over ``log(-log P)`` is not: for Gaussians it tends to 1/2 too slowly to see.
    Where norms hardly vary, theta and shape cannot be told apart: look at the interval.

    Args:
      samples: real numbers of any shape, at least 100 that are not zero and not all equal.

    Returns:
      The fit.

    Raises:
      TypeError: if ``samples`` are not real numbers.
      ValueError: if there are too few, or all are equal.

    Example:
      >>> import numpy as np
      >>> rng = np.random.default_rng(0)
      >>> round(fit_sub_weibull(rng.standard_normal(100_000)).theta, 1)
      0.5
      >>> round(fit_sub_weibull(np.log(rng.random(100_000)) ** 2).theta, 1)
      2.0

    References:
      Vladimirova et al., `Sub-Weibull distributions <https://arxiv.org/abs/1905.04955>`_, 2020,
      for theta. Stacy, `A Generalization of the Gamma Distribution
      <https://doi.org/10.1214/aoms/1177704481>`_, 1962, for the law; fitting it here is ours.
    """
    logs = np.log(sizes_of(samples, _FEWEST))
    center = logs.mean()
    logs = logs - center
    if logs.std() < 1e-12 * max(1.0, abs(center)):
        raise ValueError("samples must differ, got equal magnitudes")

    def profile(log_power: float) -> tuple[float, float, float]:
        """Minus the log-likelihood per sample, and the shape and log scale that go with it."""
        powers = np.exp(log_power) * logs
        largest = powers.max()
        log_mean = largest + np.log(np.exp(powers - largest).mean())
        shape = _gamma_shape(log_mean)  # the mean of the logarithms is 0
        log_scale = log_mean - np.log(shape)
        value = scipy.special.gammaln(shape) + shape * log_scale + shape - log_power
        return value, shape, log_scale

    bounds = -np.log(_HIGH), -np.log(_LOW)
    # Several valleys are possible where the shape tends to infinity: start from the best of a grid.
    grid = np.linspace(*bounds, 25)
    at = int(np.argmin([profile(x)[0] for x in grid]))
    found = scipy.optimize.minimize_scalar(
        lambda x: profile(x)[0],
        bounds=(grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)]),
        method="bounded",
        options={"xatol": 1e-5},
    )
    log_power = float(found.x)
    _, shape, log_scale = profile(log_power)
    theta = float(np.exp(-log_power))
    at_bound = not bounds[0] + 1e-3 < log_power < bounds[1] - 1e-3
    return SubWeibull(theta, float(shape), float(np.exp(center + theta * log_scale)), at_bound)


def _gamma_shape(gap: float) -> float:
    """The shape k of a Gamma law with ``log(mean) - mean(log) = log(k) - digamma(k) = gap``."""
    gap = max(gap, 1e-12)
    shape = (3 - gap + np.sqrt((gap - 3) ** 2 + 24 * gap)) / (12 * gap)
    for _ in range(4):  # Newton's method in 1 / k, which is almost linear in the gap
        error = np.log(shape) - scipy.special.digamma(shape) - gap
        slope = 1 / shape - scipy.special.polygamma(1, shape)
        shape = 1 / (1 / shape + error / (shape**2 * slope))
    return float(shape)
