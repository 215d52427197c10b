"""State kept per worker: arrays with a leading axis of workers, read and written by index."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify
from jax.typing import ArrayLike, DTypeLike


def require_worker(worker: ArrayLike, num_workers: int) -> None:
    """Raises ``ValueError`` if a concrete ``worker`` is not in ``[0, num_workers)``.

    A traced one is checked under ``jax.experimental.checkify.checkify``, and only there.
    """
    if isinstance(worker, jax.core.Tracer):
        checkify.debug_check(
            jnp.all((worker >= 0) & (worker < num_workers)),
            f"worker must be in [0, {num_workers}), got {{worker}}",
            worker=worker,
        )
        return
    if not np.all((np.asarray(worker) >= 0) & (np.asarray(worker) < num_workers)):
        raise ValueError(f"worker must be in [0, {num_workers}), got {worker}")


def zeros_per_worker(x: jax.Array, num_workers: int, dtype: DTypeLike | None = None) -> jax.Array:
    """Returns zeros ``[num_workers, *x.shape]``, every entry sharded like ``x``."""
    return jax.lax.broadcast(jnp.zeros_like(x, dtype=dtype), (num_workers,))


def read_worker(copies: jax.Array, worker: ArrayLike) -> jax.Array:
    """Returns a worker's entry; out of range it is NaN (or the lowest integer), never another's."""
    return copies.at[_never_negative(copies, worker)].get(mode="fill")


def write_worker(copies: jax.Array, worker: ArrayLike, value: jax.Array) -> jax.Array:
    """Returns the copies with a worker's entry replaced; out of range nothing is written."""
    return copies.at[_never_negative(copies, worker)].set(value, mode="drop")


def _never_negative(copies: jax.Array, worker: ArrayLike) -> jax.Array:
    # A negative index would wrap around: it is sent out of range at the other end.
    return jnp.where(jnp.asarray(worker) < 0, copies.shape[0], worker)
