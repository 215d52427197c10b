"""Batches from arrays that fit on the device."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from async_optax.data.narrowing import device_dtype, narrowed
from async_optax.data.sampling import Rows, require_rows


def in_memory(arrays: Any, rows: Rows) -> Callable[[jax.Array, jax.Array], Any]:
    """Gathers batches from arrays: ``batch(key, worker) = arrays[rows(key, worker)]``.

    The arrays go to the device once. They and the numbers of ``rows`` are leaves of what is
    returned, so a compiled program takes them as arguments and serves other data of the same
    shapes. A row that the data does not have is NaN, or the lowest integer (the highest if
    unsigned), never another row.

    Args:
      arrays: pytree of arrays with one leading axis of examples, ``[num_examples, ...]``.
        64-bit numbers are narrowed to 32 bits, unless JAX computes in double precision.
      rows: ``rows(key, worker) -> int32 [batch_size]``; see :func:`uniform_rows` and
        :func:`partition_rows`.

    Returns:
      ``batch(key, worker)``, for :class:`async_optax.Problem`: a pytree like ``arrays`` of
      arrays ``[batch_size, ...]``.

    Raises:
      TypeError: if a leaf is no array of numbers, or ``rows`` is of the wrong kind.
      ValueError: if leading axes differ, there is no example, an integer does not fit 32
        bits, or ``rows`` draws from more examples than there are.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from async_optax.data import uniform_rows
      >>> data = {"x": jnp.arange(12.0).reshape(6, 2), "y": jnp.arange(6)}
      >>> batch = in_memory(data, uniform_rows(6, batch_size=4))
      >>> jax.tree.map(jnp.shape, batch(jax.random.key(0), 0))
      {'x': (4, 2), 'y': (4,)}
    """
    named = [
        ("arrays" + jax.tree_util.keystr(path), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(arrays)
    ]
    if not named:
        raise ValueError(f"arrays must hold at least one array, got {arrays!r}")
    for name, leaf in named:
        shape = np.shape(leaf)
        if not shape or shape[0] == 0:
            raise ValueError(f"{name} must have a leading axis of examples, got shape {shape}")
    sizes = {name: len(leaf) for name, leaf in named}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"arrays must have equally many examples, got {sizes}")
    require_rows(rows, sizes[named[0][0]])
    on_device = [_to_device(name, leaf) for name, leaf in named]
    return Partial(_gather, jax.tree.unflatten(jax.tree.structure(arrays), on_device), rows)


def _to_device(name: str, leaf: Any) -> jax.Array:
    if isinstance(leaf, jax.Array):
        return leaf
    return jnp.asarray(narrowed(name, np.asarray(leaf), device_dtype(name, leaf)))


def _gather(arrays: Any, rows: Rows, key: jax.Array, worker: jax.Array) -> Any:
    drawn = rows(key, worker)
    return jax.tree.map(lambda x: _take(x, drawn), arrays)


def _take(x: jax.Array, rows: jax.Array) -> jax.Array:
    return x.at[rows].get(mode="fill", wrap_negative_indices=False)
