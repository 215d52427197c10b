"""Momentum for many workers."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from async_optax.transforms.sweepable import sweepable
from async_optax.transforms.workers import (
    read_worker,
    require_worker,
    write_worker,
    zeros_per_worker,
)
from async_optax.validation import require_count, require_number


class TracePerWorkerState(NamedTuple):
    """State of :func:`trace_per_worker`.

    Attributes:
      trace: momentum of each worker, like params with a leading axis ``[num_workers]``.
    """

    trace: optax.Updates


@sweepable(static_argnames=("num_workers", "nesterov"))
def trace_per_worker(
    num_workers: int, decay: ArrayLike = 0.9, nesterov: bool = False
) -> optax.GradientTransformationExtraArgs:
    """Keeps a momentum buffer for every worker: ``v_j <- decay * v_j + g``, out ``v_j``.

    With ``nesterov`` the output is ``g + decay * v_j``, with v_j after its update. A gradient
    of worker j only meets the momentum of j's own gradients, which were as stale as it is: one
    shared buffer would multiply the staleness by the momentum.

    Args:
      num_workers: number of workers, >= 1; the state holds that many copies.
      decay: momentum in [0, 1).
      nesterov: whether to look ahead; then this is DANA-Slim.

    Returns:
      A transformation whose ``update`` requires ``worker``, an int32 scalar in
      ``[0, num_workers)``. Updates keep their shapes and dtypes.

    Raises:
      ValueError: if a number is out of range; in ``update``, if a concrete ``worker`` is.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = trace_per_worker(num_workers=2, decay=0.5)
      >>> g = jnp.array([1.0])
      >>> state = tx.init(g)
      >>> for worker in (0, 0, 1):
      ...     updates, state = tx.update(g, state, worker=worker)
      ...     print(updates)
      [1.]
      [1.5]
      [1.]

    References:
      Hakimi, Barkai, Gabel, Schuster, `Taming Momentum in a Distributed Asynchronous
      Environment <https://arxiv.org/abs/1907.11612>`_, 2019 (Multi-ASGD; DANA-Slim).
    """
    require_count("num_workers", num_workers)
    require_number("decay", decay, at_least=0, below=1)

    def init_fn(params: optax.Params) -> TracePerWorkerState:
        zeros = jax.tree.map(lambda x: zeros_per_worker(x, num_workers), params)
        return TracePerWorkerState(zeros)

    def update_fn(
        updates: optax.Updates,
        state: TracePerWorkerState,
        params: optax.Params | None = None,
        *,
        worker: ArrayLike,
        **extra_args: Any,
    ) -> tuple[optax.Updates, TracePerWorkerState]:
        del params, extra_args
        require_worker(worker, num_workers)

        def advance(copies: jax.Array, g: jax.Array) -> jax.Array:
            old = read_worker(copies, worker)
            return jnp.asarray(decay, copies.dtype) * old + g.astype(copies.dtype)

        trace = jax.tree.map(advance, state.trace, updates)
        out = jax.tree.map(
            lambda g, v: (
                g + jnp.asarray(decay, g.dtype) * v.astype(g.dtype)
                if nesterov
                else v.astype(g.dtype)
            ),
            updates,
            trace,
        )
        copies = jax.tree.map(lambda c, v: write_worker(c, worker, v), state.trace, trace)
        return out, TracePerWorkerState(copies)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
