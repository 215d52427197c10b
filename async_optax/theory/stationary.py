"""How far gradient noise keeps a delayed mode from its minimum."""

from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike

from async_optax.theory.arguments import (
    as_number,
    checked_momentum,
    checked_numbers,
    checked_staleness,
)
from async_optax.theory.recursion import companion_matrix, stability_limit


def stationary_variance(step: ArrayLike, staleness: ArrayLike, momentum: ArrayLike = 0.0) -> Any:
    """The variance that a delayed mode keeps under gradient noise, exactly.

    ``x_{k+1} = x_k + m (x_k - x_{k-1}) - a x_{k-tau} + e_k`` with independent e of variance 1 has,
    without momentum, with ``w = 2 arcsin(a / 2)`` and ``u = pi/4 - w (2 tau + 1) / 4``, the
    variance

        1 / (2 a cos(w tau + u) / cos(u) - a^2),

    which is ``1 / (2 a - a^2)`` for fresh gradients, and grows without bound towards the limit.
    With momentum a discrete Lyapunov equation is solved.

    Args:
      step: a > 0, learning rate eta times curvature h.
      staleness: tau, integers >= 0.
      momentum: m in [0, 1), of a heavy ball.

    Returns:
      The variance in units of ``(eta sigma)^2``, sigma the standard deviation of the gradient's
      noise in this direction: a float, or float64 of the arguments' common shape. Infinite where
      the mode does not converge.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range.

    Example:
      >>> stationary_variance(0.1, [0, 4, 8, 12]).round(2)
      array([ 5.26,  7.98, 13.29, 30.99])

    References:
      Our derivation: the autocovariance is ``C cos(w j + u)`` for lags j from 0 to tau. In the
      continuum it is that of Kuechler, Mensch, `Langevins stochastic differential equation extended
      by a time-delayed term <https://doi.org/10.1080/17442509208833780>`_, 1992. Certainty: memory;
      checked against a long recursion and a Lyapunov equation.
    """
    steps, lags, balls = np.broadcast_arrays(
        checked_numbers("step", step, above=0),
        checked_staleness(staleness),
        checked_momentum(momentum),
    )
    stable = steps < np.asarray(stability_limit(lags.astype(int), balls))
    half = np.arcsin(np.where(stable, steps, 1.0) / 2 * (balls == 0))
    shift = np.pi / 4 - half * (2 * lags + 1) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.cos(2 * half * lags + shift) / np.cos(shift)
        variance = np.where(stable, 1 / (2 * steps * ratio - steps**2), np.inf)
    for index in np.argwhere(stable & (balls > 0)):
        at = tuple(index)
        variance[at] = _lyapunov(float(steps[at]), int(lags[at]), float(balls[at]))
    return as_number(variance)


def variance_inflation(step: ArrayLike, staleness: ArrayLike, momentum: ArrayLike = 0.0) -> Any:
    """How much larger staleness makes the variance that noise leaves behind.

    :func:`stationary_variance` divided by that of fresh gradients at the same step and momentum.

    Args:
      step: a > 0, learning rate times curvature.
      staleness: tau, integers >= 0.
      momentum: m in [0, 1), of a heavy ball.

    Returns:
      A factor >= 1, a float, or float64 of the arguments' common shape.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range.

    Example:
      >>> round(variance_inflation(0.05, 10), 3), round(continuum_inflation(0.05, 10), 3)
      (1.692, 1.686)
    """
    fresh = stationary_variance(step, np.zeros_like(np.asarray(staleness)), momentum)
    return as_number(np.asarray(stationary_variance(step, staleness, momentum)) / fresh)


def continuum_inflation(gain: ArrayLike, delay: ArrayLike) -> Any:
    """The factor by which a delay multiplies the variance in the continuum.

    ``(1 + sin(g T)) / cos(g T)``: 1 without delay, about ``1 + g T`` for a small one, infinite from
    ``g T = pi/2`` on.

    Args:
      gain: g > 0, per unit of time.
      delay: T >= 0, in that unit.

    Returns:
      A factor >= 1, a float, or float64 of the arguments' common shape.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range.

    Example:
      >>> continuum_inflation(0.1, [0, 5, 10, 15]).round(2)
      array([ 1.  ,  1.69,  3.41, 28.24])

    References:
      Kuechler, Mensch, `Langevins stochastic differential equation extended by a time-delayed term
      <https://doi.org/10.1080/17442509208833780>`_, 1992. Certainty: memory; it is the limit of
      :func:`variance_inflation`.
    """
    turn = checked_numbers("gain", gain, above=0) * checked_numbers("delay", delay, at_least=0)
    stable = turn < np.pi / 2
    inside = np.where(stable, turn, 0.0)
    return as_number(np.where(stable, (1 + np.sin(inside)) / np.cos(inside), np.inf))


def _lyapunov(step: float, staleness: int, momentum: float) -> float:
    matrix = companion_matrix(step, staleness, momentum)
    noise = np.zeros_like(matrix)
    noise[0, 0] = 1.0
    return float(scipy.linalg.solve_discrete_lyapunov(matrix, noise)[0, 0])
