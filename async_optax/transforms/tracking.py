"""The staleness-annotated state, for training loops written by hand."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from async_optax.transforms.gathering import require_gathering
from async_optax.transforms.lookahead import served_params
from async_optax.transforms.sweepable import sweepable
from async_optax.transforms.workers import read_worker, require_worker, write_worker
from async_optax.validation import require_count


class TrackStalenessState(NamedTuple):
    """State of :func:`track_staleness`.

    Attributes:
      version: int32 scalar, commits so far.
      read_versions: int32 ``[num_workers]``, the version each worker computes on.
      stale_params: like params with a leading axis ``[num_workers]``.
      inner_state: state of the wrapped transformation.
    """

    version: jax.Array
    read_versions: jax.Array
    stale_params: optax.Params
    inner_state: optax.OptState


@sweepable(static_argnames=("num_workers",))
def track_staleness(
    inner: optax.GradientTransformation, num_workers: int
) -> optax.GradientTransformationExtraArgs:
    """Keeps what each worker has read, and tells ``inner`` how stale its gradient is.

    When the gradient of worker j arrives at version v, with r the version that j read and
    s_j its parameters: ``inner`` is called with ``staleness = v - r``, ``stale_params = s_j``
    and ``worker = j``. Then v grows by one (by ``commit`` where that is given), and worker j
    reads the new version: ``r <- v``, ``s_j <- params + updates``, moved by the look-ahead of
    ``inner`` if it has one (:func:`served_params`). Apply the updates before the next call.

    A worker is taken to read the moment its gradient has been handled, and what it is served is
    the look-ahead of that moment; protocols in which it waits for a later commit, or is served a
    version as it was at its commit, need :func:`async_optax.simulate`.

    Args:
      inner: any transformation; extra arguments given by the caller reach it too.
      num_workers: number of workers, >= 1. The state holds that many copies of the
        parameters.

    Returns:
      A transformation whose ``update`` requires ``params`` and ``worker``, an int32 scalar
      in ``[0, num_workers)``. A concrete worker out of range raises; a traced one yields
      NaN updates through ``stale_params`` rather than another worker's.

    Raises:
      TypeError: if ``inner`` is not a transformation or ``num_workers`` not an integer.
      ValueError: if ``num_workers < 1``; in ``update``, if ``params`` is ``None``, a concrete
        ``worker`` is out of range, or ``commit`` is given and ``inner`` does not wait for it.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from async_optax.transforms import scale_by_staleness, weights
      >>> tx = track_staleness(
      ...     optax.chain(scale_by_staleness(weights.inverse()), optax.sgd(1.0)), num_workers=2
      ... )
      >>> params = jnp.array([8.0])
      >>> state = tx.init(params)
      >>> for worker in (0, 0, 1):
      ...     gradient = worker_params(state, worker)
      ...     updates, state = tx.update(gradient, state, params, worker=worker)
      ...     params = optax.apply_updates(params, updates)
      >>> print(params, state.version)
      [-4.] 3
    """
    require_count("num_workers", num_workers)
    if not isinstance(inner, optax.GradientTransformation):
        raise TypeError(f"inner must be a gradient transformation, got {inner!r}")
    inner = optax.with_extra_args_support(inner)

    def init_fn(params: optax.Params) -> TrackStalenessState:
        return TrackStalenessState(
            version=jnp.zeros([], jnp.int32),
            read_versions=jnp.zeros([num_workers], jnp.int32),
            stale_params=jax.tree.map(lambda x: jnp.stack([x] * num_workers), params),
            inner_state=inner.init(params),
        )

    def update_fn(
        updates: optax.Updates,
        state: TrackStalenessState,
        params: optax.Params | None = None,
        *,
        worker: ArrayLike,
        **extra_args: Any,
    ) -> tuple[optax.Updates, TrackStalenessState]:
        if params is None:
            raise ValueError("track_staleness needs params, got None")
        require_worker(worker, num_workers)
        if "commit" in extra_args:
            require_gathering(state.inner_state, params)
        updates, inner_state = inner.update(
            updates,
            state.inner_state,
            params,
            **extra_args,
            worker=worker,
            staleness=state.version - read_worker(state.read_versions, worker),
            stale_params=worker_params(state, worker),
        )
        version = state.version + jnp.asarray(extra_args.get("commit", True)).astype(jnp.int32)
        current = served_params(optax.apply_updates(params, updates), inner_state)
        return updates, TrackStalenessState(
            version=version,
            read_versions=write_worker(state.read_versions, worker, version),
            stale_params=jax.tree.map(
                lambda copies, x: write_worker(copies, worker, x), state.stale_params, current
            ),
            inner_state=inner_state,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def worker_params(state: TrackStalenessState, worker: ArrayLike) -> optax.Params:
    """Returns the parameters that a worker computes on: those it read last.

    Args:
      state: the state of :func:`track_staleness`.
      worker: int32 scalar in ``[0, num_workers)``.

    Returns:
      A pytree like the parameters.

    Raises:
      ValueError: if a concrete ``worker`` is out of range.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> state = track_staleness(optax.sgd(1.0), num_workers=3).init(jnp.array([8.0]))
      >>> print(worker_params(state, 2))
      [8.]
    """
    require_worker(worker, state.read_versions.shape[0])
    return jax.tree.map(lambda copies: read_worker(copies, worker), state.stale_params)
