"""The precision in which sums and products of gradients are taken."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def working_dtype(*arrays: Any) -> jnp.dtype:
    """Returns float64 if any array is, else float32: low precision is for storage only.

    Example:
      >>> import jax.numpy as jnp
      >>> print(working_dtype(jnp.zeros(2, jnp.bfloat16)))
      float32
    """
    is_double = any(x.dtype == jnp.float64 for x in arrays)
    return jnp.dtype(jnp.float64 if is_double else jnp.float32)


def global_norm(updates: Any) -> jax.Array:
    """Returns the Euclidean norm of a pytree without overflow, in :func:`working_dtype`.

    ``m * norm(updates / m)`` with m the largest magnitude: finite whenever the norm is.

    Example:
      >>> import jax.numpy as jnp
      >>> print(global_norm([jnp.array([3e30]), jnp.array([4e30])]))
      5e+30
    """
    largest, relative_norm = scaled_norm(updates)
    return largest * relative_norm


def scaled_norm(updates: Any) -> tuple[jax.Array, jax.Array]:
    """Returns the largest magnitude m (1 if all are zero) and ``norm(updates / m)``."""
    leaves = jax.tree.leaves(updates)
    dtype = working_dtype(*leaves)
    largest = functools.reduce(
        jnp.maximum,
        [jnp.max(jnp.abs(x), initial=0).astype(dtype) for x in leaves],
        jnp.zeros([], dtype),
    )
    largest = jnp.where(largest > 0, largest, jnp.ones([], dtype))
    squares = [jnp.sum(jnp.square(x.astype(dtype) / largest)) for x in leaves]
    return largest, jnp.sqrt(sum(squares, jnp.zeros([], dtype)))


def scale_or_drop(g: jax.Array, factor: ArrayLike) -> jax.Array:
    """Returns ``factor * g`` in the dtype of g, and zero where the factor is zero.

    Example:
      >>> import jax.numpy as jnp
      >>> print(scale_or_drop(jnp.array([jnp.inf, 1.0]), 0.0))
      [0. 0.]
    """
    factor = jnp.asarray(factor).astype(g.dtype)
    return jnp.where(factor == 0, jnp.zeros_like(g), g * factor)
