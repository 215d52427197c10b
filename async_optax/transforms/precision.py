"""The precision in which sums and products of gradients are taken."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
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


def difference(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns ``a - b`` in :func:`working_dtype`.

    Example:
      >>> import jax.numpy as jnp
      >>> print(difference(jnp.bfloat16(1.0), jnp.bfloat16(0.5)).dtype)
      float32
    """
    dtype = working_dtype(a, b)
    return a.astype(dtype) - b.astype(dtype)


def global_norm(updates: Any) -> jax.Array:
    """Returns the Euclidean norm of a pytree without overflow, in :func:`working_dtype`.

    It is finite whenever the norm is, although the sum of the squares may not be.

    Example:
      >>> import jax.numpy as jnp
      >>> print(global_norm([jnp.array([3e30]), jnp.array([4e30])]))
      5e+30
    """
    scale, relative_norm = scaled_norm(updates)
    return scale * relative_norm


def scaled_norm(updates: Any) -> tuple[jax.Array, jax.Array]:
    """Returns a scale m > 0 and ``norm(updates / m)``, both finite if all updates are.

    m is the norm itself where its square is in range, which takes a single pass over the
    updates. Elsewhere it is about the largest magnitude (1 if all are zero), in two more passes.
    """
    leaves = jax.tree.leaves(updates)
    dtype = working_dtype(*leaves)
    square = _sum_of_squares(leaves, dtype)
    # Squares below the smallest normal number may have been flushed to zero. All of them
    # together must be less than a rounding error.
    info, size = jnp.finfo(dtype), sum(x.size for x in leaves)
    in_range = (square > size * float(info.tiny / info.eps)) & jnp.isfinite(square)
    # Functions of the module: outside jit, new ones would compile again on each call.
    return jax.lax.cond(in_range, _by_square, _by_largest, square, leaves)


def _by_square(square: jax.Array, leaves: list[Any]) -> tuple[jax.Array, jax.Array]:
    del leaves
    return jnp.sqrt(square), jnp.ones_like(square)


def _by_largest(square: jax.Array, leaves: list[Any]) -> tuple[jax.Array, jax.Array]:
    dtype = square.dtype
    largest = functools.reduce(
        jnp.maximum,
        [jnp.max(jnp.abs(x), initial=0).astype(dtype) for x in leaves],
        jnp.zeros([], dtype),
    )
    # Compilers may multiply by the reciprocal instead, which must not be flushed to zero.
    bound = jnp.asarray(1 / jnp.finfo(dtype).tiny, dtype)
    largest = jnp.where(jnp.isinf(largest), largest, jnp.minimum(largest, bound))
    largest = jnp.where(largest > 0, largest, jnp.ones([], dtype))
    return largest, jnp.sqrt(_sum_of_squares([x.astype(dtype) / largest for x in leaves], dtype))


def _sum_of_squares(leaves: list[Any], dtype: jnp.dtype) -> jax.Array:
    return sum((jnp.sum(jnp.square(x.astype(dtype))) for x in leaves), jnp.zeros([], dtype))


def scale_or_drop(g: jax.Array, factor: ArrayLike) -> jax.Array:
    """Returns ``factor * g`` in the dtype of g, and zero where the factor is zero.

    Example:
      >>> import jax.numpy as jnp
      >>> print(scale_or_drop(jnp.array([jnp.inf, 1.0]), 0.0))
      [0. 0.]
    """
    factor = jnp.asarray(factor).astype(g.dtype)
    return jnp.where(factor == 0, jnp.zeros_like(g), g * factor)


def in_working_dtype(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Runs a transformation on updates in at least float32, its state included.

    Optax keeps moments in the dtype of the parameters: in float16 squares and a small eps are
    flushed to zero, and a zero gradient becomes 0 / 0.

    Args:
      inner: a transformation without extra arguments.

    Returns:
      A transformation; updates keep their dtypes.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> g = jnp.zeros(1, jnp.float16)
      >>> tx = in_working_dtype(optax.scale_by_adam())
      >>> print(tx.update(g, tx.init(g))[0])
      [0.]
    """

    def widened(tree: optax.Params) -> optax.Params:
        return jax.tree.map(lambda x: x.astype(working_dtype(x)), tree)

    def init_fn(params: optax.Params) -> optax.OptState:
        return inner.init(widened(params))

    def update_fn(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        out, state = inner.update(widened(updates), state, params)
        return jax.tree.map(lambda u, g: u.astype(g.dtype), out, updates), state

    return optax.GradientTransformation(init_fn, update_fn)
