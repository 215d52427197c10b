"""State kept per worker: arrays with a leading axis of workers, read and written by index."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike


def require_worker(worker: ArrayLike, num_workers: int) -> None:
    """Raises ``ValueError`` if a concrete ``worker`` is not in ``[0, num_workers)``."""
    if isinstance(worker, jax.core.Tracer):
        return
    if not np.all((np.asarray(worker) >= 0) & (np.asarray(worker) < num_workers)):
        raise ValueError(f"worker must be in [0, {num_workers}), got {worker}")


def zeros_per_worker(x: jax.Array, num_workers: int, dtype: DTypeLike | None = None) -> jax.Array:
    """Returns zeros ``[num_workers, *x.shape]``, every entry sharded like ``x``."""
    return jax.lax.broadcast(jnp.zeros_like(x, dtype=dtype), (num_workers,))


def read_worker(copies: jax.Array, worker: ArrayLike) -> jax.Array:
    """Returns a worker's entry; out of range it is NaN (or the lowest integer), never another's."""
    return _entry(copies, *_place(copies, worker))


def write_worker(copies: jax.Array, worker: ArrayLike, value: jax.Array) -> jax.Array:
    """Returns the copies with a worker's entry replaced; out of range nothing is written."""
    index, known = _place(copies, worker)
    # Slices, not a scatter: they are updated in place.
    written = jnp.where(known, value.astype(copies.dtype), _entry(copies, index, known))
    return jax.lax.dynamic_update_index_in_dim(copies, written, index, 0)


def _entry(copies: jax.Array, index: jax.Array, known: jax.Array) -> jax.Array:
    """Reads by a branch, which cannot be fused into what comes after a write.

    A read that is fused so needs the old array, and then the write copies all of it.
    """
    is_float = jnp.issubdtype(copies.dtype, jnp.floating)
    nobody = jnp.nan if is_float else jnp.iinfo(copies.dtype).min

    def read(copies: jax.Array) -> jax.Array:
        return jax.lax.dynamic_index_in_dim(copies, index, keepdims=False)

    # Of what is read only the type, which has its sharding, is left in the second branch.
    return jax.lax.cond(known, read, lambda copies: jnp.full_like(read(copies), nobody), copies)


def _place(copies: jax.Array, worker: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """An index within range, and whether it is the worker's."""
    worker = jnp.asarray(worker)
    index = jnp.clip(worker, 0, copies.shape[0] - 1)
    return index, index == worker
