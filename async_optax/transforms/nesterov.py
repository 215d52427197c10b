"""Nesterov momentum whose look-ahead and discount make up for a delay."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from async_optax.transforms.precision import working_dtype
from async_optax.transforms.schedules import value_at
from async_optax.transforms.sweepable import sweepable
from async_optax.validation import require_number


class TraceNesterovDelayedState(NamedTuple):
    """State of :func:`trace_nesterov_delayed`.

    Attributes:
      step: int32 scalar, updates so far.
      trace: discounted momentum, like params, in at least float32.
    """

    step: jax.Array
    trace: optax.Updates


@sweepable
def trace_nesterov_delayed(
    momentum: ArrayLike | optax.Schedule = 0.99,
) -> optax.GradientTransformationExtraArgs:
    """Nesterov momentum that discounts the incoming gradient by ``1 - gamma``.

    ``v <- gamma_t * v + (1 - gamma_t) * g``, out ``gamma_(t+1) * v + (1 - gamma_t) * g``. The
    parameters are the look-ahead points themselves. In the papers' form, with the points w and
    ``d_t = gamma_t * (w_t - w_(t-1))``, this is ``w_(t+1) = w_t + d_t - eta * (1 - gamma_t) *
    g(w_(t-tau) + d_(t-tau))``: as gamma nears 1 the look-ahead points the way in which the
    server moves during the delay.

    Args:
      momentum: gamma in [0, 1), or a schedule of the updates so far.

    Returns:
      A transformation. Updates keep their shapes and dtypes.

    Raises:
      ValueError: if ``momentum`` is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = trace_nesterov_delayed(momentum=0.5)
      >>> g = jnp.array([4.0])
      >>> print(tx.update(g, tx.init(g))[0])
      [3.]

    References:
      Ajanthan et al., `Nesterov Method for Asynchronous Pipeline Parallel Optimization
      <https://arxiv.org/abs/2505.01099>`_, 2025. For constant gamma it is
      ``optax.trace(gamma, nesterov=True)`` of ``(1 - gamma) * g``. Their theory takes
      ``gamma_t = (t - 2) / t`` with t from 1; of our steps from 0 that is
      ``lambda t: jnp.maximum(t - 1.0, 0) / (t + 1.0)``.
    """
    if not callable(momentum):
        require_number("momentum", momentum, at_least=0, below=1)

    def init_fn(params: optax.Params) -> TraceNesterovDelayedState:
        # In bfloat16 a momentum of 0.999 would be 1, and its discount 0.
        zeros = jax.tree.map(lambda x: jnp.zeros_like(x, dtype=working_dtype(x)), params)
        return TraceNesterovDelayedState(jnp.zeros([], jnp.int32), zeros)

    def update_fn(
        updates: optax.Updates,
        state: TraceNesterovDelayedState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, TraceNesterovDelayedState]:
        del params, extra_args
        now, after = (value_at(momentum, state.step + i) for i in (0, 1))

        def discount(v: jax.Array, g: jax.Array) -> jax.Array:
            return g.astype(v.dtype) * (1 - jnp.asarray(now, v.dtype))

        discounted = jax.tree.map(discount, state.trace, updates)
        trace = jax.tree.map(
            lambda v, h: jnp.asarray(now, v.dtype) * v + h, state.trace, discounted
        )
        out = jax.tree.map(
            lambda v, h, g: (h + jnp.asarray(after, v.dtype) * v).astype(g.dtype),
            trace,
            discounted,
            updates,
        )
        return out, TraceNesterovDelayedState(optax.safe_increment(state.step), trace)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


class ScaleByNadamDelayedState(NamedTuple):
    """State of :func:`scale_by_nadam_delayed`.

    Attributes:
      step: int32 scalar, updates so far.
      momentum_product: float scalar, mu_1 * ... * mu_t.
      mu: first moment, like params, in at least float32.
      nu: second moment, likewise.
    """

    step: jax.Array
    momentum_product: jax.Array
    mu: optax.Updates
    nu: optax.Updates


@sweepable
def scale_by_nadam_delayed(
    b1: ArrayLike = 0.99,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    momentum_decay: ArrayLike = 0.004,
) -> optax.GradientTransformationExtraArgs:
    """NAdam with PyTorch's momentum schedule, whose ``1 - mu_t`` discounts delayed gradients.

    With t counting from 1, ``mu_t = b1 * (1 - 0.5 * 0.96**(t * momentum_decay))``::

        m <- b1 * m + (1 - b1) * g,  n <- b2 * n + (1 - b2) * g * g
        d = (1 - mu_t) / (1 - mu_1...mu_t) * g + mu_(t+1) / (1 - mu_1...mu_(t+1)) * m
        out: d / (sqrt(n / (1 - b2**t)) + eps)

    Args:
      b1: in [0, 1).
      b2: in [0, 1).
      eps: > 0, outside the root.
      momentum_decay: psi >= 0. The larger, the sooner mu_t rises from b1 / 2 to b1; beyond
        about 1000 it is b1 from the start, which is ``optax.scale_by_adam(nesterov=True)``.

    Returns:
      A transformation. Updates keep their shapes and dtypes.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = scale_by_nadam_delayed()
      >>> g = jnp.array([4.0, -1.0])
      >>> print(tx.update(g, tx.init(g))[0].round(2))
      [ 1.01 -1.01]

    References:
      Dozat, `Incorporating Nesterov Momentum into Adam
      <https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ>`_, 2016, with the schedule of
      ``torch.optim.NAdam``. As an optimizer for delays: Ajanthan et al., `Nesterov Method for
      Asynchronous Pipeline Parallel Optimization <https://arxiv.org/abs/2505.01099>`_, 2025,
      whose code sets b1 = 0.99.
    """
    require_number("b1", b1, at_least=0, below=1)
    require_number("b2", b2, at_least=0, below=1)
    require_number("eps", eps, above=0)
    require_number("momentum_decay", momentum_decay, at_least=0)

    def momentum_at(step: jax.Array) -> jax.Array:
        exponent = step.astype(float) * jnp.asarray(momentum_decay, float)
        return jnp.multiply(b1, 1 - 0.5 * 0.96**exponent)

    def init_fn(params: optax.Params) -> ScaleByNadamDelayedState:
        mu, nu = (
            jax.tree.map(lambda x: jnp.zeros_like(x, dtype=working_dtype(x)), params)
            for _ in range(2)
        )
        return ScaleByNadamDelayedState(jnp.zeros([], jnp.int32), jnp.ones([]), mu, nu)

    def update_fn(
        updates: optax.Updates,
        state: ScaleByNadamDelayedState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ScaleByNadamDelayedState]:
        del params, extra_args
        step = optax.safe_increment(state.step)
        now, after = momentum_at(step), momentum_at(step + 1)
        product = state.momentum_product * now
        from_gradient = (1 - now) / (1 - product)
        from_momentum = after / (1 - product * after)
        unbiased = 1 - jnp.asarray(b2, float) ** step.astype(float)

        def moment(order: int, decay: ArrayLike, old: jax.Array, g: jax.Array) -> jax.Array:
            rate = jnp.asarray(decay, old.dtype)
            return rate * old + (1 - rate) * g.astype(old.dtype) ** order

        mu = jax.tree.map(lambda m, g: moment(1, b1, m, g), state.mu, updates)
        nu = jax.tree.map(lambda n, g: moment(2, b2, n, g), state.nu, updates)

        def direction(g: jax.Array, m: jax.Array, n: jax.Array) -> jax.Array:
            gradient_part = from_gradient.astype(m.dtype) * g.astype(m.dtype)
            nesterov = gradient_part + from_momentum.astype(m.dtype) * m
            scale = jnp.sqrt(n / unbiased.astype(n.dtype)) + jnp.asarray(eps, n.dtype)
            return (nesterov / scale).astype(g.dtype)

        out = jax.tree.map(direction, updates, mu, nu)
        return out, ScaleByNadamDelayedState(step, product, mu, nu)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
