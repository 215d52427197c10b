"""Scaling of gradients by a function of their staleness."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

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
      TypeError: if ``weight_fn`` is not callable.

    Example:
      >>> import jax.numpy as jnp
      >>> from async_optax.transforms import weights
      >>> tx = scale_by_staleness(weights.inverse())
      >>> updates, _ = tx.update(jnp.array([1.0, 2.0]), tx.init(None), staleness=4)
      >>> print(updates)
      [0.25 0.5 ]
    """
    if not callable(weight_fn):
        raise TypeError(
            f"weight_fn must be a function of the staleness, got {weight_fn!r}; "
            "see async_optax.weights"
        )

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
        return jax.tree.map(lambda g: g * factor.astype(g.dtype), updates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update_fn)
