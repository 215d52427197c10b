"""The delay equation ``x'(t) = -g x(t - T)``: its characteristic roots, damping, oscillation."""

from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike

from async_optax.theory.arguments import as_number, checked_numbers
from async_optax.validation import require_count

_NEAR = 1e-4  # distance to the branch point, of e x + 1, below which the series is used


def lambert_w(x: ArrayLike, branch: ArrayLike = 0) -> Any:
    """The solutions W of ``W exp(W) = x``, also at the branch point ``x = -1/e``.

    SciPy's function gives NaN at the branch point, where branches 0 and -1 meet, and may lose half
    the digits beside it. There we use the series in ``p = +-sqrt(2 (e x + 1))``:
    ``-1 + p - p^2/3 + 11 p^3/72 - 43 p^4/540 + 769 p^5/17280``.

    Args:
      x: real numbers.
      branch: integers; 0 is the principal one.

    Returns:
      A complex number, or complex128 of the arguments' common shape.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if ``x`` is not finite.

    Example:
      >>> import math
      >>> lambert_w(-1 / math.e), lambert_w(-1 / math.e, -1)
      ((-1+0j), (-1+0j))

    References:
      Corless et al., `On the Lambert W function <https://doi.org/10.1007/BF02124750>`_, 1996,
      for branches and series. Certainty: memory; checked by substitution.
    """
    numbers, branches = np.broadcast_arrays(checked_numbers("x", x), np.asarray(branch))
    if branches.dtype.kind not in "iu":
        raise TypeError(f"branch must be an integer, got dtype {branches.dtype}")
    square = 2 * _one_plus_e_times(numbers)
    near = (np.abs(square) < 2 * _NEAR) & ((branches == 0) | (branches == -1))
    root = np.sqrt(square.astype(np.complex128)) * np.where(branches == -1, -1, 1)
    series = np.polyval([769 / 17280, -43 / 540, 11 / 72, -1 / 3, 1, -1], root)
    roots = scipy.special.lambertw(np.where(near, 1.0, numbers), branches)
    return as_number(np.where(near, series, roots))


def _one_plus_e_times(x: np.ndarray) -> np.ndarray:
    """``e x + 1``, which at the double next to -1/e is 0."""
    value = np.e * x + 1
    return np.where(np.abs(value) < 4 * np.finfo(np.float64).eps, 0.0, value)


def characteristic_roots(gain: ArrayLike, delay: ArrayLike, num_pairs: int = 4) -> np.ndarray:
    """The roots z of ``z + g exp(-z T) = 0``, the rightmost first.

    Solutions of ``x'(t) = -g x(t - T)`` are sums of ``exp(z t)`` over the roots
    ``z_k = W_k(-g T) / T``, W_k the branches of Lambert's function; branch 0 is the rightmost.
    Branches k and ``-k-1`` are conjugate, but for 0 and -1, which are both real while
    ``g T <= 1/e`` and equal at ``1/e``. Without delay there is one root, ``-g``; the others are
    ``-inf``.

    An asynchronous run is such an equation in two ways: in commits, with ``g = eta h`` and T the
    staleness; in seconds, with ``g = eta h`` times the commits per second and T the age of a
    gradient. The product ``g T`` is the same. To second order in ``1 / T`` the discrete recursion
    has the delay ``tau + 1/2``: a commit acts half a commit after the version it is counted from.

    Args:
      gain: g > 0, per unit of time.
      delay: T >= 0, in that unit.
      num_pairs: how many pairs of branches, ``(0, -1), (1, -2), ...``, >= 1.

    Returns:
      complex128 ``[..., 2 * num_pairs]``, the rightmost first, of a pair the one with imaginary
      part >= 0 first.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range.

    Example:
      >>> characteristic_roots(0.1, 5.0, num_pairs=1).round(3)
      array([-0.159+0.154j, -0.159-0.154j])

    References:
      Yu, Chen, Poor, `Distributed Stochastic Gradient Descent with Staleness: A Stochastic Delay
      Differential Equation Based Framework <https://arxiv.org/abs/2406.11159>`_, 2025, see
      asynchronous SGD as such an equation. Certainty: abstract; the formulas are our derivation.
    """
    gains, delays = _checked(gain, delay)
    require_count("num_pairs", num_pairs)
    branches = np.array([branch for k in range(num_pairs) for branch in (k, -k - 1)])
    waits = delays[..., None]
    loads = -gains[..., None] * waits
    with np.errstate(divide="ignore", invalid="ignore"):
        roots = np.asarray(lambert_w(np.where(waits > 0, loads, -1.0), branches)) / waits
    at_once = np.where(branches == 0, -gains[..., None] + 0j, complex(-np.inf, 0))
    return np.where(waits > 0, roots, at_once)


def damping(gain: ArrayLike, delay: ArrayLike) -> Any:
    """The rate at which the delayed mode dies out: minus the real part of its rightmost root.

    ``-Re W_0(-g T) / T``, and g without delay. It is largest, ``e g``, at ``g T = 1/e``, and
    negative beyond ``g T = pi/2``.

    Args:
      gain: g > 0, per unit of time.
      delay: T >= 0, in that unit.

    Returns:
      A float, or float64 of the arguments' common shape, per unit of time.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range.

    Example:
      >>> damping(1.0, [0.0, 0.1, 0.5, 1.0]).round(3)
      array([1.   , 1.118, 1.588, 0.318])
    """
    return as_number(-characteristic_roots(gain, delay, 1)[..., 0].real)


def frequency(gain: ArrayLike, delay: ArrayLike) -> Any:
    """How fast the delayed mode swings: the imaginary part of its rightmost root.

    Args:
      gain: g > 0, per unit of time.
      delay: T >= 0, in that unit.

    Returns:
      A float, or float64 of the arguments' common shape, in radians per unit of time; 0 if the
      mode does not oscillate.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range.

    Example:
      >>> round(frequency(1.0, 1.0), 3)
      1.337
    """
    return as_number(characteristic_roots(gain, delay, 1)[..., 0].imag)


def oscillates(gain: ArrayLike, delay: ArrayLike) -> Any:
    """Whether the delayed mode overshoots: ``g T > 1/e``.

    Args:
      gain: g > 0, per unit of time.
      delay: T >= 0, in that unit.

    Returns:
      A boolean, or booleans of the arguments' common shape.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range.

    Example:
      >>> oscillates(1.0, [0.3, 0.4])
      array([False,  True])
    """
    gains, delays = _checked(gain, delay)
    return as_number(gains * delays > 1 / np.e)


def continuum_limit(delay: ArrayLike) -> Any:
    """The gain at which the delayed mode stops dying out: ``pi / (2 T)``.

    Args:
      delay: T > 0.

    Returns:
      A float, or float64 of the argument's shape, per unit of time.

    Raises:
      TypeError: if ``delay`` is of the wrong kind.
      ValueError: if it is out of range.

    Example:
      >>> round(continuum_limit(31 + 0.5), 5)  # 0.04986 is exact for a staleness of 31
      0.04987
    """
    return as_number(np.pi / 2 / checked_numbers("delay", delay, above=0))


def _checked(gain: ArrayLike, delay: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    gains, delays = np.broadcast_arrays(
        checked_numbers("gain", gain, above=0), checked_numbers("delay", delay, at_least=0)
    )
    return gains, delays
