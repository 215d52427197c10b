"""Delay compensation whose strength is fitted while training, by how well it has predicted."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from async_optax.transforms.precision import difference, working_dtype
from async_optax.transforms.sweepable import sweepable
from async_optax.validation import require_number, require_staleness


class CompensateDelayDynamicState(NamedTuple):
    """State of :func:`compensate_delay_dynamic`.

    Attributes:
      step: int32 scalar, gradients so far.
      curvature: running mean of g * g without the previous gradient, like params, in at
        least float32.
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
    decay: ArrayLike = 0.9, max_ratio: ArrayLike = 1.0
) -> optax.GradientTransformationExtraArgs:
    """Corrects a stale gradient by a Taylor step whose strength is a running regression.

    Two arrivals in a row, g' taken at s' and g taken at s, show how the gradient changes
    between two points. With the running mean square as the shape of the curvature (h' of the
    gradients before g', and h of those before g), what was to be expected is
    ``z = h' * (s - s')`` times a strength, which is fitted to what happened by least squares
    over the past::

        a <- decay * a + (1 - decay) * <g - g', z>
        b <- decay * b + (1 - decay) * <z, z>
        q = h * (x - s)
        out: g + min(max(a / b, 0), max_ratio * norm(g) / norm(q)) * q

    A pair only counts if g is stale: then s was read before g' arrived, so the noise of both
    gradients is independent of z and cancels in the mean. Where h says nothing about the
    curvature, the strength tends to zero. No number has units: if the loss is scaled, the
    corrected gradient is scaled likewise. Clip first; a pair whose products are not finite
    does not count, but a large outlier spoils the fit for ``1 / (1 - decay)`` gradients.

    Args:
      decay: of all running means, in [0, 1).
      max_ratio: >= 0, the largest norm of a correction in units of its gradient's; 0 turns
        the compensation off.

    Returns:
      A transformation whose ``update`` requires ``params`` (x), ``stale_params`` (s) and
      ``staleness`` (int32 scalar). Its state has three copies of the parameters. Updates keep
      their shapes and dtypes.

    Raises:
      ValueError: if a number is out of range; in ``update``, if ``params`` or
        ``stale_params`` is ``None``.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = compensate_delay_dynamic(max_ratio=10.0)
      >>> x = jnp.array([1.0])  # the gradient at s is 2 * s
      >>> state = tx.init(x)
      >>> for s in (x, x / 2, x / 4):
      ...     updates, state = tx.update(2 * s, state, x, stale_params=s, staleness=1)
      >>> print(updates.round(2))
      [1.41]

    References:
      Ours; see ``experiments/adaptive`` for where it helps (little noise) and where it does not.
      The Taylor step is that of Zheng et al., `DC-ASGD <https://arxiv.org/abs/1609.08326>`_,
      2017.
    """
    require_number("decay", decay, at_least=0, below=1)
    require_number("max_ratio", max_ratio, at_least=0)

    def init_fn(params: optax.Params) -> CompensateDelayDynamicState:
        wide = jax.tree.map(lambda x: jnp.zeros_like(x, dtype=working_dtype(x)), params)
        zeros = jax.tree.map(jnp.zeros_like, params)
        dtype = working_dtype(*jax.tree.leaves(params))
        return CompensateDelayDynamicState(
            step=jnp.zeros([], jnp.int32),
            curvature=wide,
            gradient=zeros,
            point=jax.tree.map(jnp.copy, params),
            explained=jnp.zeros([], dtype),
            predicted=jnp.zeros([], dtype),
        )

    def update_fn(
        updates: optax.Updates,
        state: CompensateDelayDynamicState,
        params: optax.Params | None = None,
        *,
        stale_params: optax.Params,
        staleness: ArrayLike,
        **extra_args: Any,
    ) -> tuple[optax.Updates, CompensateDelayDynamicState]:
        del extra_args
        if params is None or stale_params is None:
            raise ValueError("compensate_delay_dynamic needs params and stale_params, got None")
        require_staleness(staleness)
        dtype = state.explained.dtype
        rate = jnp.asarray(decay, dtype)
        shape = _unbiased(state.curvature, rate, state.step - 1)

        happened = jax.tree.map(difference, updates, state.gradient)
        moved = jax.tree.map(difference, stale_params, state.point)
        expected = jax.tree.map(jnp.multiply, shape, moved)
        explained = rate * state.explained + (1 - rate) * _inner(happened, expected, dtype)
        predicted = rate * state.predicted + (1 - rate) * _inner(expected, expected, dtype)
        counts = (jnp.asarray(staleness) > 0) & jnp.isfinite(explained) & jnp.isfinite(predicted)
        explained = jnp.where(counts, explained, state.explained)
        predicted = jnp.where(counts, predicted, state.predicted)
        strength = jnp.maximum(_ratio(explained, predicted), 0)

        # Only now the gradient before: within the fit its square would meet itself.
        curvature_sum = jax.tree.map(
            lambda h, g: _refreshed(h, g, decay), state.curvature, state.gradient
        )
        curvature = _unbiased(curvature_sum, rate, state.step)
        drift = jax.tree.map(difference, params, stale_params)
        direction = jax.tree.map(jnp.multiply, curvature, drift)
        # The root of the ratio, not the ratio of the roots: one number to guard.
        room = jnp.sqrt(
            _ratio(_inner(updates, updates, dtype), _inner(direction, direction, dtype))
        )
        strength = jnp.minimum(strength, jnp.asarray(max_ratio, dtype) * room)

        def correct(g: jax.Array, q: jax.Array) -> jax.Array:
            corrected = g.astype(q.dtype) + strength.astype(q.dtype) * q
            unchanged = (q == 0) | (strength == 0)
            return jnp.where(unchanged, g, corrected.astype(g.dtype))

        return jax.tree.map(correct, updates, direction), CompensateDelayDynamicState(
            step=optax.safe_increment(state.step),
            curvature=curvature_sum,
            gradient=jax.tree.map(lambda old, g: g.astype(old.dtype), state.gradient, updates),
            point=jax.tree.map(lambda old, s: s.astype(old.dtype), state.point, stale_params),
            explained=explained,
            predicted=predicted,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _refreshed(h: jax.Array, g: jax.Array, decay: ArrayLike) -> jax.Array:
    kept = jnp.asarray(decay, h.dtype)
    fresh = kept * h + (1 - kept) * jnp.square(g.astype(h.dtype))
    return jnp.where(jnp.isfinite(fresh), fresh, h)


def _unbiased(mean: optax.Updates, rate: jax.Array, number: jax.Array) -> optax.Updates:
    """A running mean from zero, corrected for the number of terms so far."""
    weight = 1 - rate ** jnp.maximum(number, 1).astype(rate.dtype)
    return jax.tree.map(lambda h: h / weight.astype(h.dtype), mean)


def _inner(a: optax.Updates, b: optax.Updates, dtype: jnp.dtype) -> jax.Array:
    products = jax.tree.map(lambda x, y: jnp.sum(x.astype(dtype) * y.astype(dtype)), a, b)
    return sum(jax.tree.leaves(products), jnp.zeros([], dtype))


def _ratio(a: jax.Array, b: jax.Array) -> jax.Array:
    """``a / b``, and 0 where b is 0 or either overflowed."""
    known = (b > 0) & jnp.isfinite(b) & jnp.isfinite(a)
    return jnp.where(known, a / jnp.where(known, b, jnp.ones_like(b)), jnp.zeros_like(a))
