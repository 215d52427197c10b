"""The delayed mode ``x_{k+1} = x_k - a x_{k-tau}``, exactly: its limit, its best step, its rate."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from async_optax.theory.arguments import (
    as_number,
    checked_momentum,
    checked_numbers,
    checked_row,
    checked_staleness,
)
from async_optax.theory.root_locus import principal_root, turning_step
from async_optax.validation import require_count, require_number

_HALVINGS = 60


def stability_limit(staleness: ArrayLike, momentum: ArrayLike = 0.0) -> Any:
    """The step at which asynchronous gradient descent stops converging.

    A mode of curvature h under the learning rate eta has the step ``a = eta h`` and moves by
    ``x_{k+1} = x_k + m (x_k - x_{k-1}) - a x_{k-tau}``. It converges if and only if
    ``0 < a < a_max`` with ``a_max = 2 sin(w/2) abs(exp(i w) - m)``, where w in (0, pi] solves
    ``(tau - 1/2) w + arg(exp(i w) - m) = pi/2``. Without momentum
    ``a_max = 2 sin(pi / (2 (2 tau + 1)))``, and with fresh gradients ``2 (1 + m)``.

    Args:
      staleness: tau, integers >= 0, the same at all commits.
      momentum: m in [0, 1), of a heavy ball as in ``optax.sgd(eta, momentum=m)``.

    Returns:
      The limit, a float, or float64 of the arguments' common shape.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range.

    Example:
      >>> stability_limit([0, 1, 3, 7]).round(4)
      array([2.    , 1.    , 0.445 , 0.2091])
      >>> round(stability_limit(7, momentum=0.9), 4)
      0.0158

    References:
      Without momentum: Levin, May, `A note on difference-delay equations
      <https://doi.org/10.1016/0040-5809(76)90043-5>`_, 1976. Certainty: memory; checked against
      the roots. With momentum: our derivation.
    """
    lag, ball = checked_staleness(staleness), checked_momentum(momentum)
    low, high = np.broadcast_arrays(np.zeros(np.broadcast_shapes(lag.shape, ball.shape)), np.pi)
    for _ in range(_HALVINGS):
        angle = (low + high) / 2
        phase = (lag - 0.5) * angle + np.arctan2(np.sin(angle), np.cos(angle) - ball)
        below = phase < np.pi / 2
        low, high = np.where(below, angle, low), np.where(below, high, angle)
    angle = np.where(ball == 0, np.pi / (2 * lag + 1), (low + high) / 2)
    return as_number(2 * np.sin(angle / 2) * np.abs(np.exp(1j * angle) - ball))


def best_step(staleness: ArrayLike, momentum: ArrayLike = 0.0) -> Any:
    """The step at which the delayed mode shrinks fastest.

    ``tau^tau / (tau+1)^(tau+1)`` without momentum: the mode then shrinks by ``tau / (tau+1)`` a
    commit. At this step the two largest roots meet on the real axis; see
    :func:`spectral_radius`. With fresh gradients and momentum, all steps from
    ``(1 - sqrt(m))^2`` to ``(1 + sqrt(m))^2`` are as good, and this is the first.

    Args:
      staleness: tau, integers >= 0.
      momentum: m in [0, 1), of a heavy ball.

    Returns:
      The step ``a``, a float, or float64 of the arguments' common shape.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range.

    Example:
      >>> best_step([0, 1, 3, 7]).round(5)
      array([1.     , 0.25   , 0.10547, 0.04909])

    References:
      Our derivation. Certainty: checked against the roots.
    """
    return as_number(turning_step(checked_staleness(staleness), checked_momentum(momentum)))


def dominant_root(step: ArrayLike, staleness: ArrayLike, momentum: ArrayLike = 0.0) -> Any:
    """The root that decides how the delayed mode behaves in the long run.

    The root of largest modulus of ``z^(tau-1) (z-1) (z-m) + a = 0``. Its modulus is what the mode
    shrinks by in a commit, its angle how far the mode turns. All arrays at once, by a bisection
    along the curve on which roots can lie, without matrices.

    Args:
      step: a >= 0.
      staleness: tau, integers >= 0.
      momentum: m in [0, 1), of a heavy ball.

    Returns:
      The root with imaginary part >= 0, a complex number, or complex128 of the common shape.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range.

    Example:
      >>> round(abs(dominant_root(0.25, 1)), 4)
      0.5
    """
    numbers = checked_numbers("step", step, at_least=0)
    return as_number(
        principal_root(numbers, checked_staleness(staleness), checked_momentum(momentum))
    )


def spectral_radius(step: ArrayLike, staleness: ArrayLike, momentum: ArrayLike = 0.0) -> Any:
    """The factor by which the delayed mode shrinks in a commit, in the long run.

    The modulus of :func:`dominant_root`, the spectral radius of :func:`companion_matrix`. Below 1
    the mode converges.

    Args:
      step: a >= 0.
      staleness: tau, integers >= 0.
      momentum: m in [0, 1), of a heavy ball.

    Returns:
      A float, or float64 of the arguments' common shape.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range.

    Example:
      >>> spectral_radius([0.1, 0.25, 1.0, 1.5], 1).round(4)
      array([0.8873, 0.5   , 1.    , 1.2247])
    """
    return as_number(np.abs(np.asarray(dominant_root(step, staleness, momentum))))


def companion_matrix(step: float, staleness: int, momentum: float = 0.0) -> np.ndarray:
    """The matrix that takes ``(x_k, x_{k-1}, ..., x_{k-n})`` to ``(x_{k+1}, x_k, ...)``.

    Args:
      step: a >= 0.
      staleness: tau >= 0.
      momentum: m in [0, 1), of a heavy ball.

    Returns:
      float64 ``[n + 1, n + 1]``, with n the larger of tau and, with momentum, 1.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range.

    Example:
      >>> companion_matrix(0.25, 1)
      array([[ 1.  , -0.25],
             [ 1.  ,  0.  ]])
    """
    require_number("step", step, at_least=0)
    require_count("staleness", staleness, at_least=0)
    require_number("momentum", momentum, at_least=0, below=1)
    size = max(staleness, 1 if momentum else 0) + 1
    matrix = np.eye(size, k=-1)
    matrix[0, 0] = 1 + momentum
    if momentum:
        matrix[0, 1] = -momentum
    matrix[0, staleness] -= step
    return matrix


def stability_map(steps: ArrayLike, staleness: ArrayLike, momentum: ArrayLike = 0.0) -> np.ndarray:
    """The spectral radius for every step, staleness and momentum.

    Args:
      steps: a >= 0, ``[num_steps]``.
      staleness: tau, integers >= 0, ``[num_staleness]``.
      momentum: m in [0, 1), a number or ``[num_momenta]``.

    Returns:
      float64 ``[num_staleness, num_steps]``, or ``[num_momenta, num_staleness, num_steps]``.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range.

    Example:
      >>> stability_map([0.1, 0.5], [0, 1, 3]) < 1
      array([[ True,  True],
             [ True,  True],
             [ True, False]])
    """
    row = checked_row("steps", steps, at_least=0)
    column = np.atleast_1d(checked_staleness(staleness))[:, None]
    balls = checked_momentum(momentum)
    return np.abs(principal_root(row, column, balls[..., None, None]))
