"""How random compute times move the stability limit, in the limit of many workers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy
from numpy.typing import ArrayLike

from async_optax.theory.arguments import checked_row
from async_optax.validation import require_number

_SPACING, _CHUNK, _HIGHEST = 0.01, 256, 200.0  # of the frequencies searched, per mean time


class TimeLaw(NamedTuple):
    """A law of compute times, in units of their mean.

    Attributes:
      name: how it was made.
      transform: maps complex s ``[num]`` to ``E exp(-s T / E T)``.
      limit: the load at which a mode stops converging, infinite if it never does; ``None`` if
        only the transform knows.
    """

    name: str
    transform: Callable[[np.ndarray], np.ndarray]
    limit: float | None


def fixed_times() -> TimeLaw:
    """All jobs take equally long: the limit is ``pi / 2``.

    Returns:
      A law.

    Example:
      >>> round(load_limit(fixed_times()), 4)
      1.5708
    """
    return TimeLaw("fixed", lambda s: np.exp(-s), np.pi / 2)


def gamma_times(shape: float) -> TimeLaw:
    """Times of the Gamma law, whose coefficient of variation is ``1 / sqrt(shape)``.

    The transform is ``(1 + s/al)^-al``. With ``w = al tan(pi / (2 al))`` the limit is
    ``w (1 + (w/al)^2)^(al/2)``. Up to ``al = 1``, exponential times, no load is too large: for
    ``al = 1`` the mode is the damped oscillator ``z^2 + z + load = 0``.

    Args:
      shape: al > 0.

    Returns:
      A law.

    Raises:
      TypeError: if ``shape`` is not a number.
      ValueError: if it is out of range.

    Example:
      >>> round(load_limit(gamma_times(4)), 3), load_limit(gamma_times(1))
      (2.274, inf)
    """
    require_number("shape", shape, above=0)
    limit = np.inf
    if shape > 1:
        # w (1 + (w/al)^2)^(al/2) in logarithms: it overflows as the shape falls to 1.
        angle = np.pi / (2 * shape)
        log_limit = np.log(shape * np.tan(angle)) - shape * np.log(np.cos(angle))
        limit = float(np.exp(log_limit)) if log_limit < 700 else np.inf
    return TimeLaw(f"gamma({shape:g})", lambda s: (1 + s / shape) ** -shape, limit)


def poisson_times(mean: float) -> TimeLaw:
    """Times that are a Poisson number of equal parts, ``mean`` of them on average.

    The transform is ``exp(mean (exp(-s / mean) - 1))``. With ``w = arcsin(pi / (2 mean))`` the
    limit is ``mean w exp(mean (1 - cos w))``; up to ``mean = pi / 2`` no load is too large.

    Args:
      mean: > 0.

    Returns:
      A law.

    Raises:
      TypeError: if ``mean`` is not a number.
      ValueError: if it is out of range.

    Example:
      >>> round(load_limit(poisson_times(16.0)), 3)
      1.7
    """
    require_number("mean", mean, above=0)
    limit = np.inf
    if mean > np.pi / 2:
        angle = np.arcsin(np.pi / (2 * mean))
        limit = float(mean * angle * np.exp(mean * (1 - np.cos(angle))))

    def transform(s: np.ndarray) -> np.ndarray:
        return np.exp(mean * np.expm1(-s / mean))

    return TimeLaw(f"poisson({mean:g})", transform, limit)


def empirical_times(samples: ArrayLike) -> TimeLaw:
    """Times as measured: each of the samples is equally likely.

    Args:
      samples: times > 0 in any unit, ``[num_samples]``.

    Returns:
      A law.

    Raises:
      TypeError: if they are not numbers.
      ValueError: if there are none, or one is out of range.

    Example:
      >>> round(load_limit(empirical_times([1.0, 1.0, 1.0])), 4)
      1.5708
    """
    times = checked_row("samples", samples, above=0)
    times = times / times.mean()

    def transform(s: np.ndarray) -> np.ndarray:
        return np.array([np.exp(-value * times).mean() for value in np.ravel(s)])

    return TimeLaw(f"empirical({len(times)} samples)", transform, None)


def load_limit(law: TimeLaw) -> float:
    """The load at which asynchronous gradient descent stops converging.

    M workers restart at once on times T. In seconds a mode of curvature h follows
    ``x'(t) = -(eta h M / E T) x(t - T)`` on average, whose roots solve
    ``s + load E exp(-s T / E T) = 0`` in units of the mean time, with ``load = eta h M``. The limit
    is the least load with a root on the imaginary axis: the largest stable learning rate is
    ``load_limit / (h M)``. Where only the transform is known, frequencies up to 200 per mean time
    are searched.

    Spread in the times is a gift: it blurs the delay, and the limit rises from ``pi/2``.

    Args:
      law: of the times of all workers.

    Returns:
      The limit; infinite if no load is too large.

    Raises:
      TypeError: if ``law`` is not a :class:`TimeLaw`.

    Example:
      >>> round(load_limit(gamma_times(100)), 3)
      1.59

    References:
      Our derivation, after Yu, Chen, Poor, `Distributed Stochastic Gradient Descent with Staleness
      <https://arxiv.org/abs/2406.11159>`_, 2025, known to us by its abstract. The limit is that of
      the mean, which many workers come close to: measured on timelines of 16, 64 and 256 workers it
      is 2.33, 2.34, 2.28 for ``al = 4`` (here 2.274), but for exponential times 7.5, 14, 33, about
      ``2 sqrt(M)`` and not infinite. With few workers, or irregular ones, or machines that differ
      for good, use :func:`async_optax.theory.replayed_limit`.
    """
    if not isinstance(law, TimeLaw):
        raise TypeError(f"law must be a TimeLaw such as gamma_times(4), got {law!r}")
    if law.limit is not None:
        return law.limit
    limit, start = np.inf, _SPACING
    # abs(transform) <= 1, so that a root at frequency w needs a load of w or more.
    while start < min(limit, _HIGHEST):
        frequencies = start + _SPACING * np.arange(_CHUNK + 1)
        needed = _needed_load(law, frequencies)
        crossings = (needed.imag[:-1] < 0) != (needed.imag[1:] < 0)
        for i in np.flatnonzero(crossings & (needed.real[:-1] > 0)):
            limit = min(limit, _refined(law, *frequencies[i : i + 2]))
        start = frequencies[-1]
    return limit


def _needed_load(law: TimeLaw, frequencies: np.ndarray) -> np.ndarray:
    """The complex load that would put a root at i times each frequency."""
    s = 1j * frequencies
    return -s / law.transform(s)


def _refined(law: TimeLaw, low: float, high: float) -> float:
    def imaginary(frequency: float) -> Any:
        return _needed_load(law, np.array([frequency])).imag[0]

    frequency = scipy.optimize.brentq(imaginary, low, high, xtol=1e-14)
    return float(_needed_load(law, np.array([frequency])).real[0])
