"""Normalisation of updates: steps of one length, however heavy the tails."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from async_optax.transforms.precision import scaled_norm, working_dtype
from async_optax.transforms.schedules import value_at
from async_optax.transforms.sweepable import sweepable
from async_optax.validation import require_number


class ScaleByNormalizedMomentumState(NamedTuple):
    """State of :func:`scale_by_normalized_momentum`.

    Attributes:
      step: int32 scalar, updates so far.
      momentum: running mean of the gradients, like params, in at least float32.
    """

    step: jax.Array
    momentum: optax.Updates


@sweepable
def scale_by_normalized_momentum(
    decay: ArrayLike | optax.Schedule = 0.9, eps: ArrayLike = 1e-10
) -> optax.GradientTransformationExtraArgs:
    """Steps of length one along the gradients' running mean: ``m / (norm(m) + eps)``.

    ``m <- decay * m + (1 - decay) * g``, from zero. The norm is that of the whole tree, taken
    without overflow as in :func:`async_optax.transforms.clip_by_global_norm`. Like clipping
    this bounds every step, and it has no threshold.

    Args:
      decay: in [0, 1), or a schedule of the updates so far. 0 normalises each gradient.
      eps: > 0, so that a momentum of zero stays zero.

    Returns:
      A transformation. Updates keep their shapes and dtypes.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = scale_by_normalized_momentum(decay=0.0)
      >>> g = jnp.array([3e30, -4e30])
      >>> print(tx.update(g, tx.init(g))[0])
      [ 0.6 -0.8]

    References:
      Cutkosky, Mehta, `Momentum Improves Normalized SGD <https://arxiv.org/abs/2002.03305>`_,
      2020; for late gradients see :func:`async_optax.optimizers.normalized_momentum_sgd`.
    """
    if not callable(decay):
        require_number("decay", decay, at_least=0, below=1)
    require_number("eps", eps, above=0)

    def init_fn(params: optax.Params) -> ScaleByNormalizedMomentumState:
        # In bfloat16 a decay of 0.999 would be 1.
        zeros = jax.tree.map(lambda x: jnp.zeros_like(x, dtype=working_dtype(x)), params)
        return ScaleByNormalizedMomentumState(jnp.zeros([], jnp.int32), zeros)

    def update_fn(
        updates: optax.Updates,
        state: ScaleByNormalizedMomentumState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ScaleByNormalizedMomentumState]:
        del params, extra_args
        rate = value_at(decay, state.step)

        def advance(m: jax.Array, g: jax.Array) -> jax.Array:
            kept = jnp.asarray(rate, m.dtype)
            return kept * m + (1 - kept) * g.astype(m.dtype)

        momentum = jax.tree.map(advance, state.momentum, updates)
        largest, relative_norm = scaled_norm(momentum)
        # (m / largest) / (norm(m) / largest): each factor within range.
        length = relative_norm + jnp.asarray(eps, largest.dtype) / largest
        out = jax.tree.map(
            lambda m, g: (m.astype(largest.dtype) / largest / length).astype(g.dtype),
            momentum,
            updates,
        )
        step = optax.safe_increment(state.step)
        return out, ScaleByNormalizedMomentumState(step, momentum)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
