"""The dominant root of ``z^(tau-1) (1-z) (z-m) = a``, exactly and for whole arrays."""

import numpy as np

_HALVINGS = 60


def principal_root(step: np.ndarray, lag: np.ndarray, momentum: np.ndarray) -> np.ndarray:
    """Returns the root of largest modulus, the one with imaginary part >= 0 of a pair.

    The roots z of ``f(z) = z^(tau-1) (1-z) (z-m) = a`` are the modes ``x_k = z^k`` of
    ``x_{k+1} = x_k + m (x_k - x_{k-1}) - a x_{k-tau}``. f has one maximum between m and 1, at

        z* = (tau (1+m) + sqrt(tau^2 (1+m)^2 - 4 m (tau^2-1))) / (2 (tau+1)).

    Up to ``a* = f(z*)`` the dominant root is real, in [z*, 1]. Beyond, it is one of a pair
    ``r exp(+-i w)`` with w in (0, pi/(tau+1)), where f is real only if r is the larger solution of

        sin((tau+1) w) r^2 - (1+m) sin(tau w) r + m sin((tau-1) w) = 0,

    and a increases with w: both cases are a bisection over one real number. The pair is
    dominant since on any circle abs(f) increases with abs(w): no two pairs have one modulus
    at one a, so they keep their order from a = 0 on.

    Args:
      step: a >= 0, float64.
      lag: tau >= 0, real; between integers only without momentum.
      momentum: m in [0, 1).

    Returns:
      complex128, of the arguments' common shape.
    """
    step, lag, momentum = np.broadcast_arrays(step, lag, momentum)
    roots = np.empty(step.shape, np.complex128)
    fresh = lag == 0
    turning = _turning_point(lag, momentum)
    with np.errstate(divide="ignore"):
        log_step, log_largest = np.log(step), _log_modulus(turning, 0.0, lag, momentum)
    real = ~fresh & (log_step <= log_largest)
    pair = ~fresh & ~real
    roots[fresh] = _fresh_roots(step[fresh], momentum[fresh])
    roots[real] = _real_roots(step[real], lag[real], momentum[real], turning[real])
    roots[pair] = _paired_roots(log_step[pair], lag[pair], momentum[pair])
    return roots


def turning_step(lag: np.ndarray, momentum: np.ndarray) -> np.ndarray:
    """Returns ``a* = f(z*)``, at which the dominant root is double and its modulus least."""
    lag, momentum = np.broadcast_arrays(lag, momentum)
    fresh = (1 - np.sqrt(momentum)) ** 2
    with np.errstate(divide="ignore"):
        later = np.exp(_log_modulus(_turning_point(lag, momentum), 0.0, lag, momentum))
    return np.where(lag == 0, fresh, later)


def _turning_point(lag: np.ndarray, momentum: np.ndarray) -> np.ndarray:
    linear = lag * (1 + momentum)
    discriminant = np.maximum(linear**2 - 4 * momentum * (lag**2 - 1), 0)
    return (linear + np.sqrt(discriminant)) / (2 * (lag + 1))


def _log_modulus(
    radius: np.ndarray, angle: np.ndarray | float, lag: np.ndarray, momentum: np.ndarray
) -> np.ndarray:
    """The logarithm of abs(f); at z = 0 without momentum it is a limit that the lag decides."""
    plain = momentum == 0
    power = np.where(plain, lag, lag - 1)
    chord = 4 * radius * np.sin(np.asarray(angle) / 2) ** 2  # abs(z-c)^2 = (r-c)^2 + c chord
    with np.errstate(divide="ignore", invalid="ignore"):
        stays = np.where(power == 0, 0.0, power * np.log(radius))
        squares = (1 - radius) ** 2 + chord
        if momentum.any():
            squares = squares * np.where(plain, 1, (radius - momentum) ** 2 + momentum * chord)
        return stays + np.log(squares) / 2


def _fresh_roots(step: np.ndarray, momentum: np.ndarray) -> np.ndarray:
    """The larger root of ``z^2 - (1 + m - a) z + m``."""
    half = (1 + momentum - step) / 2
    root = np.sqrt(np.asarray(half**2 - momentum, np.complex128))
    return half + np.where(half < 0, -1, 1) * root


def _real_roots(
    step: np.ndarray, lag: np.ndarray, momentum: np.ndarray, turning: np.ndarray
) -> np.ndarray:
    """Bisects over ``1 - z``, in which roots close to 1 keep their digits."""
    low, high = step / (1 - momentum), 1 - turning
    plain = momentum == 0
    power = np.where(plain, lag, lag - 1)
    for _ in range(_HALVINGS):
        gap = (low + high) / 2
        value = (1 - gap) ** power * gap * np.where(plain, 1, 1 - momentum - gap)
        below = value < step
        low, high = np.where(below, gap, low), np.where(below, high, gap)
    return 1 - (low + high) / 2


def _paired_roots(log_step: np.ndarray, lag: np.ndarray, momentum: np.ndarray) -> np.ndarray:
    low, high = np.zeros_like(lag), np.pi / (lag + 1)
    radius = np.ones_like(lag)
    for _ in range(_HALVINGS):
        angle = (low + high) / 2
        radius = _radius(angle, lag, momentum)
        below = _log_modulus(radius, angle, lag, momentum) < log_step
        low, high = np.where(below, angle, low), np.where(below, high, angle)
    angle = (low + high) / 2
    return _radius(angle, lag, momentum) * np.exp(1j * angle)


def _radius(angle: np.ndarray, lag: np.ndarray, momentum: np.ndarray) -> np.ndarray:
    now, ahead = np.sin(lag * angle), np.sin((lag + 1) * angle)
    linear = (1 + momentum) * now
    # sin((tau+1) w) sin((tau-1) w) = sin(tau w)^2 - sin(w)^2 keeps the root of a positive number.
    discriminant = ((1 - momentum) * now) ** 2 + 4 * momentum * np.sin(angle) ** 2
    return (linear + np.sqrt(discriminant)) / (2 * ahead)
