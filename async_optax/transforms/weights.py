"""Weights: factors between 0 and 1 by which a stale gradient is scaled.

Each factory returns a function ``weight_fn(staleness) -> factor`` for
:func:`async_optax.transforms.scale_by_staleness`. The staleness tau counts the versions
committed between reading the parameters and arriving with the gradient: 0 is fresh. Papers
that count from 1 are converted, and say so. The functions are ``jax.tree_util.Partial``
nodes: their numbers are leaves, so sweeping them does not recompile.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jax.typing import ArrayLike

from async_optax.validation import require_number, require_staleness

WeightFn = Callable[[ArrayLike], jax.Array]


def _as_float(staleness: ArrayLike) -> jax.Array:
    require_staleness(staleness)
    return jnp.asarray(staleness).astype(float)


def constant() -> WeightFn:
    """Weight 1: staleness is ignored.

    Returns:
      A weight function.

    Example:
      >>> print(constant()(7))
      1.0
    """
    return Partial(_constant)


def _constant(staleness: ArrayLike) -> jax.Array:
    return jnp.ones_like(_as_float(staleness))


def inverse() -> WeightFn:
    """Weight ``1 / max(tau, 1)``.

    Returns:
      A weight function.

    Example:
      >>> print(inverse()(0), inverse()(4))
      1.0 0.25

    References:
      Zhang, Gupta, Lian, Liu, `Staleness-aware Async-SGD for Distributed Deep Learning
      <https://arxiv.org/abs/1511.05950>`_, 2016. Some implementations divide by tau + 1.
    """
    return Partial(_inverse)


def _inverse(staleness: ArrayLike) -> jax.Array:
    return 1 / jnp.maximum(_as_float(staleness), 1)


def polynomial(power: ArrayLike = 0.5) -> WeightFn:
    """Weight ``(1 + tau) ** -power``.

    Args:
      power: exponent >= 0; 0.5 is the choice of FedBuff and FedAsync.

    Returns:
      A weight function.

    Raises:
      ValueError: if ``power`` is negative or not finite.

    Example:
      >>> print(polynomial(0.5)(3))
      0.5

    References:
      Xie, Koyejo, Gupta, `Asynchronous Federated Optimization
      <https://arxiv.org/abs/1903.03934>`_, 2019; Nguyen et al., `Federated Learning with
      Buffered Asynchronous Aggregation <https://arxiv.org/abs/2106.06639>`_, 2022.
    """
    require_number("power", power, at_least=0)
    return Partial(_polynomial, power=power)


def _polynomial(staleness: ArrayLike, *, power: ArrayLike) -> jax.Array:
    return jnp.power(1 + _as_float(staleness), jnp.negative(power))


def hinge(slope: ArrayLike = 10.0, threshold: ArrayLike = 4) -> WeightFn:
    """Weight 1 up to the threshold b, ``1 / (a (tau - b) + 1)`` beyond it.

    Args:
      slope: a > 0.
      threshold: b >= 0, in versions.

    Returns:
      A weight function.

    Raises:
      ValueError: if an argument is out of range.

    Example:
      >>> print(hinge()(4), hinge(slope=1.0, threshold=4)(7))
      1.0 0.25

    References:
      Xie, Koyejo, Gupta, `Asynchronous Federated Optimization
      <https://arxiv.org/abs/1903.03934>`_, 2019.
    """
    require_number("slope", slope, above=0)
    require_number("threshold", threshold, at_least=0)
    return Partial(_hinge, slope=slope, threshold=threshold)


def _hinge(staleness: ArrayLike, *, slope: ArrayLike, threshold: ArrayLike) -> jax.Array:
    excess = jnp.maximum(_as_float(staleness) - threshold, 0)
    return 1 / (jnp.multiply(slope, excess) + 1)


def concurrency(num_workers: ArrayLike) -> WeightFn:
    """Weight ``n / max(n, tau + 1)``: full steps up to the usual staleness n - 1.

    Args:
      num_workers: n >= 1, jobs in flight.

    Returns:
      A weight function.

    Raises:
      ValueError: if ``num_workers`` is below 1.

    Example:
      >>> print(concurrency(8)(7), concurrency(8)(15))
      1.0 0.5

    References:
      Mishchenko, Bach, Even, Woodworth, `Asynchronous SGD Beats Minibatch SGD Under
      Arbitrary Delays <https://arxiv.org/abs/2206.07638>`_, 2022. Their delay counts
      arrivals since the worker's previous push: it is our tau + 1.
    """
    require_number("num_workers", num_workers, at_least=1)
    return Partial(_concurrency, num_workers=num_workers)


def _concurrency(staleness: ArrayLike, *, num_workers: ArrayLike) -> jax.Array:
    return jnp.divide(num_workers, jnp.maximum(num_workers, _as_float(staleness) + 1))


def cutoff(max_staleness: ArrayLike) -> WeightFn:
    """Weight 1 up to ``max_staleness``, 0 beyond: older gradients are ignored.

    Args:
      max_staleness: R >= 0, in versions.

    Returns:
      A weight function.

    Raises:
      ValueError: if ``max_staleness`` is negative.

    Example:
      >>> print(cutoff(8)(8), cutoff(8)(9))
      1.0 0.0

    References:
      Maranjyan, Tyurin, Richtarik, `Ringmaster ASGD: The First Asynchronous SGD with Optimal
      Time Complexity <https://arxiv.org/abs/2501.16168>`_, 2025. Theirs accepts tau < R.
    """
    require_number("max_staleness", max_staleness, at_least=0)
    return Partial(_cutoff, max_staleness=max_staleness)


def _cutoff(staleness: ArrayLike, *, max_staleness: ArrayLike) -> jax.Array:
    return (_as_float(staleness) <= max_staleness).astype(float)


def exponential(rate: ArrayLike) -> WeightFn:
    """Weight ``exp(-rate * tau)``.

    Args:
      rate: decay per version, >= 0.

    Returns:
      A weight function.

    Raises:
      ValueError: if ``rate`` is negative.

    Example:
      >>> print(exponential(0.0)(2))
      1.0

    References:
      Discussed, and discouraged for delays in the hundreds, by Zhang, Gupta, Lian, Liu,
      `Staleness-aware Async-SGD <https://arxiv.org/abs/1511.05950>`_, 2016.
    """
    require_number("rate", rate, at_least=0)
    return Partial(_exponential, rate=rate)


def _exponential(staleness: ArrayLike, *, rate: ArrayLike) -> jax.Array:
    return jnp.exp(-jnp.multiply(rate, _as_float(staleness)))


def delay_cap(concurrency: ArrayLike, smoothness: ArrayLike, learning_rate: ArrayLike) -> WeightFn:
    """Weight 1 up to the concurrency C, ``min(1, 1 / (4 L eta tau))`` beyond it.

    Args:
      concurrency: C >= 1, jobs in flight.
      smoothness: L > 0, the Lipschitz constant of the gradient.
      learning_rate: eta > 0, the step size that the weight multiplies.

    Returns:
      A weight function.

    Raises:
      ValueError: if an argument is out of range.

    Example:
      >>> weight_fn = delay_cap(concurrency=4, smoothness=1.0, learning_rate=0.25)
      >>> print(weight_fn(4), weight_fn(10))
      1.0 0.1

    References:
      Koloskova, Stich, Jaggi, `Sharper Convergence Guarantees for Asynchronous SGD for
      Distributed and Federated Learning <https://arxiv.org/abs/2206.08307>`_, 2022,
      Theorem 8. Anything below the cap is allowed there; this is the cap.
    """
    require_number("concurrency", concurrency, at_least=1)
    require_number("smoothness", smoothness, above=0)
    require_number("learning_rate", learning_rate, above=0)
    numbers = {"smoothness": smoothness, "learning_rate": learning_rate}
    return Partial(_delay_cap, concurrency=concurrency, **numbers)


def _delay_cap(
    staleness: ArrayLike,
    *,
    concurrency: ArrayLike,
    smoothness: ArrayLike,
    learning_rate: ArrayLike,
) -> jax.Array:
    tau = _as_float(staleness)
    safe_step = 1 / (4 * jnp.maximum(tau, 1))
    cap = jnp.minimum(1, safe_step / jnp.multiply(smoothness, learning_rate))
    return jnp.where(tau <= concurrency, jnp.ones_like(tau), cap)
