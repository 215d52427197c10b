"""Clipping of gradients: by their global norm, and coordinate by coordinate."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from async_optax.transforms.precision import scaled_norm
from async_optax.transforms.sweepable import sweepable
from async_optax.validation import require_number


@sweepable
def clip_by_global_norm(max_norm: ArrayLike) -> optax.GradientTransformationExtraArgs:
    """Scales a gradient down to a global norm of at most c: ``g * min(1, c / norm(g))``.

    The norm is summed in at least float32. Where the sum of the squares leaves its range, it
    is ``m * norm(g / m)`` with m the largest magnitude of all coordinates: a heavy-tailed
    coordinate of 1e30 neither overflows the sum (which would turn the whole update into zeros)
    nor loses digits in bfloat16. Gradients within the ball are left untouched, bit for bit;
    non-finite ones stay non-finite.

    Args:
      max_norm: the threshold c > 0, in the units of the gradient.

    Returns:
      A stateless transformation; updates keep their shapes and dtypes.

    Raises:
      ValueError: if ``max_norm`` is not a finite number > 0.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = clip_by_global_norm(1.0)
      >>> print(tx.update(jnp.array([3e30, 4e30]), tx.init(None))[0])
      [0.6 0.8]

    References:
      Pascanu, Mikolov, Bengio, `On the difficulty of training Recurrent Neural Networks
      <https://arxiv.org/abs/1211.5063>`_, 2013. Same rule as
      ``optax.clip_by_global_norm``, which squares before it scales.
    """
    require_number("max_norm", max_norm, above=0)

    def update_fn(
        updates: optax.Updates, state: optax.EmptyState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.EmptyState]:
        del params
        return clip_to_norm(updates, max_norm), state

    return optax.with_extra_args_support(
        optax.GradientTransformation(optax.init_empty_state, update_fn)
    )


def clip_to_norm(updates: optax.Updates, max_norm: ArrayLike) -> optax.Updates:
    """Returns ``updates`` scaled down to a global norm of at most ``max_norm``."""
    scale, relative_norm = scaled_norm(updates)
    radius = jnp.asarray(max_norm, scale.dtype)
    within = relative_norm * scale <= radius
    # Two factors, each within range even where their product is not.
    factor = radius / relative_norm

    def clip(g: jax.Array) -> jax.Array:
        clipped = g.astype(scale.dtype) / scale * factor
        return jnp.where(within, g, clipped.astype(g.dtype))

    return jax.tree.map(clip, updates)


class BiClipState(NamedTuple):
    """Number of updates seen, for thresholds that follow a schedule."""

    step: jax.Array


@sweepable
def bi_clip(
    lower: ArrayLike | optax.Schedule, upper: ArrayLike | optax.Schedule
) -> optax.GradientTransformationExtraArgs:
    """Clips each coordinate's magnitude from both sides: ``sign(g) * clip(|g|, d, u)``.

    Coordinates that are exactly zero stay zero, so that parameters without a gradient
    (unused embeddings) do not move. Infinite coordinates become u, NaN stays NaN. ``lower=0``
    is plain coordinate-wise clipping; ``lower=upper`` is sign descent.

    Args:
      lower: d >= 0, a number or a schedule of the update count.
      upper: u > 0 with u >= d, likewise.

    Returns:
      A transformation; its state counts updates. Updates keep their shapes and dtypes.

    Raises:
      ValueError: if a number is out of range or ``lower`` exceeds ``upper``.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = bi_clip(0.5, 1.0)
      >>> gradient = jnp.array([-3.0, 0.7, 0.1, 0.0])
      >>> print(tx.update(gradient, tx.init(gradient))[0])
      [-1.   0.7  0.5  0. ]

    References:
      Lee, Zaheer, Li, `Efficient Distributed Optimization under Heavy-Tailed Noise
      <https://arxiv.org/abs/2502.04164>`_, 2025 (BiClip; our reading).
    """
    if not callable(lower):
        require_number("lower", lower, at_least=0)
    if not callable(upper):
        require_number("upper", upper, above=0)
    if not callable(lower) and not callable(upper):
        _require_ordered(lower, upper)

    def init_fn(params: optax.Params) -> BiClipState:
        del params
        return BiClipState(step=jnp.zeros([], jnp.int32))

    def update_fn(
        updates: optax.Updates, state: BiClipState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, BiClipState]:
        del params
        low, high = _at(lower, state.step), _at(upper, state.step)

        def clip(g: jax.Array) -> jax.Array:
            return jnp.sign(g) * jnp.clip(
                jnp.abs(g), jnp.asarray(low, g.dtype), jnp.asarray(high, g.dtype)
            )

        return jax.tree.map(clip, updates), BiClipState(optax.safe_increment(state.step))

    return optax.with_extra_args_support(optax.GradientTransformation(init_fn, update_fn))


def _at(value: ArrayLike | Callable, step: jax.Array) -> ArrayLike:
    return value(step) if callable(value) else value


def _require_ordered(lower: ArrayLike, upper: ArrayLike) -> None:
    if isinstance(lower, jax.core.Tracer) or isinstance(upper, jax.core.Tracer):
        return
    # NumPy, not JAX: within a trace even concrete values would become tracers.
    if np.any(np.asarray(lower) > np.asarray(upper)):
        raise ValueError(f"lower must be <= upper, got lower={lower} and upper={upper}")
