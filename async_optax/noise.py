"""Heavy-tailed noise models for gradients.

Each factory returns a function ``noise(key, updates)`` that draws independent noise for every
coordinate of a pytree; :meth:`async_optax.Problem.with_noise` adds it to every gradient of a
problem. Draws come from uniforms through closed forms, without rejection: fast, and as
reproducible as ``jax.random.uniform``. A float32 uniform has about 2**-24 as its smallest
value, which bounds what a tail can reach in a single draw. The numbers are pytree leaves:
sweeping them compiles nothing.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jax.typing import ArrayLike

from async_optax.transforms.precision import working_dtype
from async_optax.validation import require_number

NoiseModel = Callable[[jax.Array, Any], Any]


def alpha_stable(alpha: ArrayLike, scale: ArrayLike = 1.0) -> NoiseModel:
    """Symmetric alpha-stable noise, by the method of Chambers, Mallows and Stuck.

    With V uniform on (-pi/2, pi/2) and W exponential::

        scale * sin(a V) / cos(V)**(1/a) * (cos((1 - a) V) / W)**((1 - a) / a)

    The characteristic function is ``exp(-abs(scale * t)**a)``: alpha = 2 is Gaussian with
    variance ``2 scale**2``, alpha = 1 is Cauchy; below 2 the variance is infinite.

    Args:
      alpha: tail index a in (0, 2].
      scale: > 0, in gradient units.

    Returns:
      A noise model.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> draws = alpha_stable(1.2)(jax.random.key(0), jnp.zeros(100_000))
      >>> print(jnp.median(jnp.abs(draws)).round(1))
      1.0

    References:
      Chambers, Mallows, Stuck, `A Method for Simulating Stable Random Variables
      <https://doi.org/10.1080/01621459.1976.10480344>`_, 1976.
    """
    require_number("alpha", alpha, above=0, at_most=2)
    require_number("scale", scale, above=0)
    return Partial(_alpha_stable, alpha=alpha, scale=scale)


def _alpha_stable(key: jax.Array, updates: Any, *, alpha: ArrayLike, scale: ArrayLike) -> Any:
    def draw(key: jax.Array, size: int, dtype: jnp.dtype) -> jax.Array:
        first, second = _open_uniform(key, (2, size), dtype)
        angle = jnp.pi * (first - 0.5)
        waiting = -jnp.log(second)
        # In logarithms: the powers of cos(angle) overflow long before their product does.
        exponent = (1 - alpha) / alpha
        log_size = exponent * (jnp.log(jnp.cos((1 - alpha) * angle)) - jnp.log(waiting))
        log_size -= jnp.log(jnp.cos(angle)) / alpha
        return jnp.multiply(scale, jnp.sin(alpha * angle) * jnp.exp(log_size))

    return _fill(key, updates, draw)


def student_t(df: ArrayLike, scale: ArrayLike = 1.0) -> NoiseModel:
    """Student-t noise, by Bailey's polar method.

    With U, V uniform: ``scale * sqrt(df * (U**(-2/df) - 1)) * cos(2 pi V)``. Moments of order
    ``df`` and above are infinite; the limit of large ``df`` is Gaussian.

    Args:
      df: degrees of freedom > 0, the tail index.
      scale: > 0, in gradient units.

    Returns:
      A noise model.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> draws = student_t(2.0)(jax.random.key(0), jnp.zeros(100_000))
      >>> print(jnp.median(jnp.abs(draws)).round(1))
      0.8

    References:
      Bailey, `Polar Generation of Random Variates with the t-Distribution
      <https://doi.org/10.1090/S0025-5718-1994-1219702-8>`_, 1994.
    """
    require_number("df", df, above=0)
    require_number("scale", scale, above=0)
    return Partial(_student_t, df=df, scale=scale)


def _student_t(key: jax.Array, updates: Any, *, df: ArrayLike, scale: ArrayLike) -> Any:
    def draw(key: jax.Array, size: int, dtype: jnp.dtype) -> jax.Array:
        first, second = _open_uniform(key, (2, size), dtype)
        # expm1 keeps the digits of small radii when df is large.
        radius = jnp.sqrt(df * jnp.expm1(-2 / df * jnp.log(first)))
        return jnp.multiply(scale, radius * jnp.cos(2 * jnp.pi * second))

    return _fill(key, updates, draw)


def sub_weibull(theta: ArrayLike, scale: ArrayLike = 1.0) -> NoiseModel:
    """Symmetric sub-Weibull noise: ``P(abs(x) > t) = exp(-(t / scale)**(1 / theta))``.

    A random sign times ``scale * W**theta`` with W exponential: theta = 1/2 has Gaussian
    tails, theta = 1 is Laplace, larger is heavier; all moments are finite.

    Args:
      theta: tail parameter > 0.
      scale: > 0, in gradient units.

    Returns:
      A noise model.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> draws = sub_weibull(1.0)(jax.random.key(0), jnp.zeros(100_000))
      >>> print(jnp.mean(jnp.abs(draws)).round(2))
      1.0

    References:
      Vladimirova et al., `Sub-Weibull distributions <https://arxiv.org/abs/1905.04955>`_,
      2020. In the norm of Erickson, Johansson, `2606.13287
      <https://arxiv.org/abs/2606.13287>`_, 2026, sigma is ``scale * 2**theta``.
    """
    require_number("theta", theta, above=0)
    require_number("scale", scale, above=0)
    return Partial(_sub_weibull, theta=theta, scale=scale)


def _sub_weibull(key: jax.Array, updates: Any, *, theta: ArrayLike, scale: ArrayLike) -> Any:
    def draw(key: jax.Array, size: int, dtype: jnp.dtype) -> jax.Array:
        # One uniform serves both: its half decides the sign, its place in the half the size.
        signed = 2 * _open_uniform(key, (size,), dtype) - 1
        return jnp.multiply(scale, jnp.sign(signed) * jnp.power(-jnp.log(jnp.abs(signed)), theta))

    return _fill(key, updates, draw)


def gaussian(scale: ArrayLike = 1.0) -> NoiseModel:
    """Gaussian noise with standard deviation ``scale``.

    Args:
      scale: > 0, in gradient units.

    Returns:
      A noise model.

    Raises:
      ValueError: if ``scale`` is out of range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> draws = gaussian(3.0)(jax.random.key(0), jnp.zeros(100_000))
      >>> print(jnp.std(draws).round(1))
      3.0
    """
    require_number("scale", scale, above=0)
    return Partial(_gaussian, scale=scale)


def _gaussian(key: jax.Array, updates: Any, *, scale: ArrayLike) -> Any:
    def draw(key: jax.Array, size: int, dtype: jnp.dtype) -> jax.Array:
        return jnp.multiply(scale, jax.random.normal(key, (size,), dtype))

    return _fill(key, updates, draw)


def _open_uniform(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """Uniform on (0, 1): the middles of the intervals that the draws are the lower ends of."""
    return jax.random.uniform(key, shape, dtype) + jnp.finfo(dtype).eps / 2


def _fill(
    key: jax.Array, updates: Any, draw: Callable[[jax.Array, int, jnp.dtype], jax.Array]
) -> Any:
    """Draws once for all leaves, in at least float32, and cuts the draw into the leaves."""
    leaves, treedef = jax.tree.flatten(updates)
    if not leaves:
        return updates
    dtype = working_dtype(*leaves)
    draws = draw(key, sum(leaf.size for leaf in leaves), dtype)
    filled, start = [], 0
    for leaf in leaves:
        piece = draws[start : start + leaf.size]
        filled.append(piece.reshape(leaf.shape).astype(leaf.dtype))
        start += leaf.size
    return jax.tree.unflatten(treedef, filled)
