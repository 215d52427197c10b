"""Delay compensation: estimates of the gradient at the current parameters from a stale one."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from async_optax.transforms.precision import working_dtype
from async_optax.transforms.sweepable import sweepable
from async_optax.validation import require_number


@sweepable
def compensate_delay(strength: ArrayLike = 0.04) -> optax.GradientTransformationExtraArgs:
    """Corrects a stale gradient by a Taylor step: ``g + strength * g * g * (x - s)``.

    Here g is the gradient taken at the stale parameters s, x are the current parameters and
    products are element-wise: ``strength * g * g`` stands for the diagonal of the Hessian.
    They are taken in at least float32.
    The correction is quadratic in g: after clipping at c the natural unit of the strength is
    ``1 / c**2``. At tau = 0, where x = s, gradients pass unchanged, bit for bit.

    Args:
      strength: >= 0; 0 turns the compensation off.

    Returns:
      A stateless transformation whose ``update`` requires ``params`` (x) and
      ``stale_params`` (s, a pytree like ``params``). Updates keep their shapes and dtypes.

    Raises:
      ValueError: if ``strength`` is negative or not finite; in ``update``, if ``params`` or
        ``stale_params`` is ``None``.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = compensate_delay(strength=0.5)
      >>> x, s, g = jnp.array([1.0]), jnp.array([0.5]), jnp.array([2.0])
      >>> print(tx.update(g, tx.init(x), x, stale_params=s)[0])
      [3.]

    References:
      Zheng et al., `Asynchronous Stochastic Gradient Descent with Delay Compensation
      <https://arxiv.org/abs/1609.08326>`_, 2017. The outer product is the Hessian's estimate
      for likelihood losses only: on a quadratic it is wrong.
    """
    require_number("strength", strength, at_least=0)

    def update_fn(
        updates: optax.Updates,
        state: optax.EmptyState,
        params: optax.Params | None = None,
        *,
        stale_params: optax.Params,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.EmptyState]:
        del extra_args
        if params is None or stale_params is None:
            raise ValueError("compensate_delay needs params and stale_params, got None")

        def compensate(g: jax.Array, x: jax.Array, s: jax.Array) -> jax.Array:
            dtype = working_dtype(g, x)
            wide, factor = g.astype(dtype), jnp.asarray(strength, dtype)
            drift = x.astype(dtype) - s.astype(dtype)
            # Not g * g first: a large gradient must not overflow when its correction is small.
            compensated = wide + factor * drift * wide * wide
            # Without drift or strength the correction is zero, not the NaN of 0 * inf.
            unchanged = (drift == 0) | (factor == 0)
            return jnp.where(unchanged, g, compensated.astype(g.dtype))

        return jax.tree.map(compensate, updates, params, stale_params), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update_fn)
