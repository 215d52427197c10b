"""Sums over a whole data set in batches of bounded size."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from async_optax.validation import require_count


def in_batches(arrays: Any, batch_size: int) -> tuple[Any, jax.Array]:
    """Cuts arrays into batches, the last of which is filled up.

    Args:
      arrays: pytree of arrays ``[num_examples, ...]``.
      batch_size: examples per batch, >= 1; if there are fewer, all are one batch.

    Returns:
      Pytree of arrays ``[num_batches, batch_size, ...]`` on the device, and ``counts``, float32
      ``[num_batches, batch_size]``: 1, or 0 where the first example was put in to fill up.

    Example:
      >>> batches, counts = in_batches(np.arange(3), 2)
      >>> batches
      Array([[0, 1],
             [2, 0]], dtype=int32)
    """
    require_count("batch_size", batch_size)
    number = len(jax.tree.leaves(arrays)[0])
    batch_size = min(batch_size, number)
    num_batches = -(-number // batch_size)
    rows = np.arange(num_batches * batch_size)
    counts = (rows < number).astype(np.float32).reshape(num_batches, batch_size)
    rows = np.where(rows < number, rows, 0)
    cut = jax.tree.map(
        lambda x: jnp.asarray(np.asarray(x)[rows].reshape(num_batches, batch_size, *x.shape[1:])),
        arrays,
    )
    return cut, jnp.asarray(counts)


def sum_over(sums: Callable[[Any, jax.Array], Any], batches: Any, counts: jax.Array) -> Any:
    """Returns the sum of ``sums(batch, count)`` over batches, one at a time.

    Args:
      sums: from a batch and its counts to a pytree of numbers.
      batches: see :func:`in_batches`.
      counts: likewise.
    """

    def add(total: Any, now: tuple[Any, jax.Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, sums(*now)), None

    first = jax.tree.map(lambda x: x[0], (batches, counts))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(sums, *first))
    return jax.lax.scan(add, zeros, (batches, counts))[0]
