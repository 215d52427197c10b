"""Delay compensation whose strength is fitted while training, by how well it has predicted."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from async_optax.transforms.precision import working_dtype
from async_optax.transforms.sweepable import sweepable
from async_optax.validation import require_number


class CompensateDelayDynamicState(NamedTuple):
    """State of :func:`compensate_delay_dynamic`.

    Attributes:
      step: int32 scalar, gradients so far.
      curvature: running mean of g * g, like params, in at least float32.
      gradient: the previous gradient, like params.
      point: the parameters at which that was taken, like params.
      explained: running mean of the inner product of what happened and what was predicted.
      predicted: running mean of the squared norm of what was predicted.
    """

    step: jax.Array
    curvature: optax.Updates
    gradient: optax.Updates
    point: optax.Params
    explained: jax.Array
    predicted: jax.Array


@sweepable
def compensate_delay_dynamic(
    decay: ArrayLike = 0.99, max_strength: ArrayLike = 100.0
) -> optax.GradientTransformationExtraArgs:
    """Corrects a stale gradient by a Taylor step whose strength is a running regression.

    Two arrivals in a row, g' taken at s' and g taken at s, show how the gradient changes
    between two points. With the running mean square h (of the gradients before) as the shape of
    the curvature, what was to be expected is ``z = h * (s - s')`` times a strength, which is
    fitted to what happened by least squares over the past::

        a <- decay * a + (1 - decay) * <g - g', z>
        b <- decay * b + (1 - decay) * <z, z>
        strength = clip(a / b, 0, max_strength)
        out: g + strength * h * (x - s)

    s was read before g' arrived unless one worker sent both: so the noise of the gradients is
    independent of z and cancels in the mean, and where h says nothing about the curvature the
    strength tends to zero.

    Args:
      decay: of all running means, in [0, 1).
      max_strength: >= 0; 0 turns the compensation off. In units of one over a squared
        gradient times the loss's curvature: for the mean gradient of B examples, likelihood
        theory expects about B.

    Returns:
      A transformation whose ``update`` requires ``params`` (x) and ``stale_params`` (s); three
      copies of the parameters. Updates keep their shapes and dtypes.

    Raises:
      ValueError: if a number is out of range; in ``update``, if ``params`` or
        ``stale_params`` is ``None``.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = compensate_delay_dynamic()
      >>> x = jnp.array([1.0])
      >>> updates, state = tx.update(2 * x, tx.init(x), x, stale_params=x)
      >>> updates, state = tx.update(x, state, x, stale_params=x / 2)
      >>> print(updates)
      [2.]

    References:
      Ours; see the measurements in ``experiments/adaptive``. The Taylor step is that of Zheng
      et al., `DC-ASGD <https://arxiv.org/abs/1609.08326>`_, 2017.
    """
    require_number("decay", decay, at_least=0, below=1)
    require_number("max_strength", max_strength, at_least=0)

    def init_fn(params: optax.Params) -> CompensateDelayDynamicState:
        wide = jax.tree.map(lambda x: jnp.zeros_like(x, dtype=working_dtype(x)), params)
        zeros = jax.tree.map(jnp.zeros_like, params)
        zero = jnp.zeros([], working_dtype(*jax.tree.leaves(params)))
        return CompensateDelayDynamicState(
            jnp.zeros([], jnp.int32), wide, zeros, jax.tree.map(jnp.asarray, params), zero, zero
        )

    def update_fn(
        updates: optax.Updates,
        state: CompensateDelayDynamicState,
        params: optax.Params | None = None,
        *,
        stale_params: optax.Params,
        **extra_args: Any,
    ) -> tuple[optax.Updates, CompensateDelayDynamicState]:
        del extra_args
        if params is None or stale_params is None:
            raise ValueError("compensate_delay_dynamic needs params and stale_params, got None")
        dtype = state.explained.dtype
        rate = jnp.asarray(decay, dtype)
        curvature = jax.tree.map(
            lambda h: h / (1 - rate ** jnp.maximum(state.step, 1)).astype(h.dtype), state.curvature
        )
        moved = jax.tree.map(_difference, stale_params, state.point)
        happened = jax.tree.map(_difference, updates, state.gradient)
        expected = jax.tree.map(lambda h, d: h * d, curvature, moved)
        explained = rate * state.explained + (1 - rate) * _inner(happened, expected, dtype)
        predicted = rate * state.predicted + (1 - rate) * _inner(expected, expected, dtype)
        known = predicted > 0
        ratio = explained / jnp.where(known, predicted, jnp.ones_like(predicted))
        strength = jnp.clip(ratio, 0, jnp.asarray(max_strength, dtype))
        strength = jnp.where(known, strength, jnp.zeros_like(strength))

        def correct(g: jax.Array, h: jax.Array, x: jax.Array, s: jax.Array) -> jax.Array:
            corrected = g.astype(h.dtype) + strength.astype(h.dtype) * h * _difference(x, s)
            unchanged = (x == s) | (strength == 0)
            return jnp.where(unchanged, g, corrected.astype(g.dtype))

        def refresh(h: jax.Array, g: jax.Array) -> jax.Array:
            kept = jnp.asarray(decay, h.dtype)
            return kept * h + (1 - kept) * jnp.square(g.astype(h.dtype))

        out = jax.tree.map(correct, updates, curvature, params, stale_params)
        return out, CompensateDelayDynamicState(
            step=optax.safe_increment(state.step),
            curvature=jax.tree.map(refresh, state.curvature, updates),
            gradient=jax.tree.map(lambda old, g: g.astype(old.dtype), state.gradient, updates),
            point=jax.tree.map(lambda old, s: s.astype(old.dtype), state.point, stale_params),
            explained=explained,
            predicted=predicted,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _difference(a: jax.Array, b: jax.Array) -> jax.Array:
    dtype = working_dtype(a)
    return a.astype(dtype) - b.astype(dtype)


def _inner(a: optax.Updates, b: optax.Updates, dtype: jnp.dtype) -> jax.Array:
    products = jax.tree.map(lambda x, y: jnp.sum(x * y).astype(dtype), a, b)
    return sum(jax.tree.leaves(products), jnp.zeros([], dtype))
