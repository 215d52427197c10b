"""Delay compensation with the true curvature: a Hessian-vector product in place of g * g."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from async_optax.transforms.precision import working_dtype
from async_optax.transforms.sweepable import sweepable
from async_optax.validation import require_number


@sweepable
def compensate_delay_exact(
    strength: ArrayLike = 1.0,
) -> optax.GradientTransformationExtraArgs:
    """Corrects a stale gradient by the exact first-order term: ``g + strength * H(s) (x - s)``.

    H(s) is the Hessian, at the stale parameters s, of the loss whose gradient g is; its
    product with the drift ``x - s`` is ``jax.jvp`` of the gradient, about the cost of two
    more gradients. On a quadratic with ``strength=1`` the result is the gradient at x.

    Args:
      strength: >= 0; 0 turns the compensation off (and still pays for it).

    Returns:
      A stateless transformation whose ``update`` requires ``params`` (x), ``stale_params`` (s)
      and ``gradient_fn``, which maps parameters to the gradient of the same batch;
      :func:`async_optax.simulate` provides it. Updates keep their shapes and dtypes.

    Raises:
      ValueError: if ``strength`` is negative or not finite; in ``update``, if ``params`` or
        ``stale_params`` is ``None``, or parts of them are masked.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> gradient_fn = jax.grad(lambda x: jnp.sum(x**2) / 2)
      >>> tx = compensate_delay_exact()
      >>> x, s = jnp.array([1.5]), jnp.array([1.0])
      >>> updates, _ = tx.update(
      ...     gradient_fn(s), tx.init(x), x, stale_params=s, gradient_fn=gradient_fn
      ... )
      >>> print(updates)
      [1.5]

    References:
      The Taylor step that Zheng et al., `Asynchronous Stochastic Gradient Descent with Delay
      Compensation <https://arxiv.org/abs/1609.08326>`_, 2017, approximate by g * g.
    """
    require_number("strength", strength, at_least=0)

    def update_fn(
        updates: optax.Updates,
        state: optax.EmptyState,
        params: optax.Params | None = None,
        *,
        stale_params: optax.Params,
        gradient_fn: Callable[[optax.Params], optax.Updates],
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.EmptyState]:
        del extra_args
        if params is None or stale_params is None:
            raise ValueError("compensate_delay_exact needs params and stale_params, got None")
        nodes = jax.tree.leaves(params, is_leaf=_is_masked)
        if any(map(_is_masked, nodes)):
            raise ValueError(
                "compensate_delay_exact needs all parameters: it cannot stand under optax.masked "
                "or optax.partition"
            )
        drift = jax.tree.map(lambda x, s: x - s, params, stale_params)
        _, change = jax.jvp(gradient_fn, (stale_params,), (drift,))

        def correct(g: jax.Array, dg: jax.Array) -> jax.Array:
            dtype = working_dtype(g)
            factor = jnp.asarray(strength, dtype)
            corrected = (g.astype(dtype) + factor * dg.astype(dtype)).astype(g.dtype)
            # Without strength the correction is zero, not the NaN of 0 * inf.
            return jnp.where(factor == 0, g, corrected)

        return jax.tree.map(correct, updates, change), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update_fn)


def _is_masked(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)
