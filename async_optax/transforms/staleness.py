"""Scaling of gradients by a function of their staleness."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from async_optax.transforms.precision import scale_or_drop
from async_optax.transforms.sweepable import sweepable
from async_optax.transforms.weights import WeightFn


@sweepable
def scale_by_staleness(weight_fn: WeightFn) -> optax.GradientTransformationExtraArgs:
    """Scales each gradient by a weight of its staleness: ``g * weight_fn(tau)``.

    Place it after any normalising transform and next to the learning rate: before Adam the
    weight would be normalised away.

    Args:
      weight_fn: maps the staleness tau, an int32 scalar, to a factor; see
        :mod:`async_optax.transforms.weights`.

    Returns:
      A transformation whose ``update`` requires ``staleness``, an int32 scalar >= 0. Updates
      keep their shapes and dtypes.

    Raises:
      TypeError: if ``weight_fn`` does not map the staleness to one number.
      ValueError: in ``update``, if ``staleness`` is negative or not a scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from async_optax.transforms import weights
      >>> tx = scale_by_staleness(weights.inverse())
      >>> updates, _ = tx.update(jnp.array([1.0, 2.0]), tx.init(None), staleness=4)
      >>> print(updates)
      [0.25 0.5 ]
    """
    _require_weight_fn(weight_fn)

    def update_fn(
        updates: optax.Updates,
        state: optax.EmptyState,
        params: optax.Params | None = None,
        *,
        staleness: ArrayLike,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.EmptyState]:
        del params, extra_args
        factor = jnp.asarray(weight_fn(staleness))
        if factor.shape:
            raise ValueError(f"staleness must be a scalar, got shape {factor.shape}")
        # A weight of zero drops the gradient, also one that is not finite.
        return jax.tree.map(lambda g: scale_or_drop(g, factor), updates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update_fn)


def _require_weight_fn(weight_fn: Any) -> None:
    try:
        weight = jax.eval_shape(weight_fn, jax.ShapeDtypeStruct((), jnp.int32))
    except TypeError:  # not callable, or a factory that was not called
        weight = None
    if getattr(weight, "shape", None) != ():
        raise TypeError(
            "weight_fn must map the staleness to one number, such as async_optax.weights."
            f"polynomial(0.5), got {weight_fn!r}"
        )
