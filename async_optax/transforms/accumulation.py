"""Accumulation of arrivals between two commits of the server."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from async_optax.transforms.precision import scale_or_drop, working_dtype
from async_optax.transforms.sweepable import sweepable
from async_optax.validation import require_staleness


class AccumulateUntilCommitState(NamedTuple):
    """State of :func:`accumulate_until_commit`.

    Attributes:
      accumulated: weighted sum of the arrivals since the last commit, like params, in at
        least float32.
      largest_staleness: int32 scalar, of those arrivals.
      inner_state: state of the server's transformation.
    """

    accumulated: optax.Updates
    largest_staleness: jax.Array
    inner_state: optax.OptState


@sweepable
def accumulate_until_commit(
    inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Sums weighted arrivals and lets ``inner`` see the sum when the server commits.

    On each arrival ``acc <- acc + weight * g``. If it commits, ``inner`` transforms ``acc``
    and ``acc <- 0``; otherwise the updates are zero and the state of ``inner`` does not
    change. Place it between what is done per arrival (clipping, compensation, staleness
    weights) and the server's optimizer.

    Args:
      inner: the server's transformation. ``staleness``, where it is given, reaches it as the
        largest of the commit's arrivals with a weight; all other extra arguments are those of
        the committing arrival.

    Returns:
      A transformation whose ``update`` takes ``commit`` (bool scalar) and ``weight`` (float
      scalar, the share of this arrival in its commit), both or neither. Without them every
      arrival commits in full, which is plain asynchronous: nothing is accumulated and
      nothing is paid for.

    Raises:
      TypeError: if ``inner`` is not a transformation; in ``update``, if only one of
        ``commit`` and ``weight`` is given.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> tx = accumulate_until_commit(optax.sgd(1.0))
      >>> g = jnp.array([2.0])
      >>> state = tx.init(g)
      >>> updates, state = tx.update(g, state, commit=False, weight=0.5)
      >>> print(updates)
      [0.]
      >>> updates, state = tx.update(3 * g, state, commit=True, weight=0.5)
      >>> print(updates)
      [-4.]
    """
    if not isinstance(inner, optax.GradientTransformation):
        raise TypeError(f"inner must be a gradient transformation, got {inner!r}")
    inner = optax.with_extra_args_support(inner)

    def init_fn(params: optax.Params) -> AccumulateUntilCommitState:
        accumulated = jax.tree.map(lambda x: jnp.zeros_like(x, dtype=working_dtype(x)), params)
        return AccumulateUntilCommitState(accumulated, jnp.zeros([], jnp.int32), inner.init(params))

    def update_fn(
        updates: optax.Updates,
        state: AccumulateUntilCommitState,
        params: optax.Params | None = None,
        *,
        commit: ArrayLike | None = None,
        weight: ArrayLike | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, AccumulateUntilCommitState]:
        if commit is None and weight is None:
            out, inner_state = inner.update(updates, state.inner_state, params, **extra_args)
            inner_state = _cast_like(inner_state, state.inner_state)
            return _cast_like(out, updates), state._replace(inner_state=inner_state)
        if commit is None or weight is None:
            missing = "commit" if commit is None else "weight"
            raise TypeError(f"commit and weight go together: {missing} is missing")

        largest = state.largest_staleness
        if "staleness" in extra_args:
            require_staleness(extra_args["staleness"])
            counted = jnp.where(jnp.asarray(weight) == 0, 0, extra_args["staleness"])
            largest = jnp.maximum(largest, counted.astype(jnp.int32))
            extra_args["staleness"] = largest

        # Called within the branches: a sum passed through a branch would be copied.
        def gather(acc: optax.Updates, updates: optax.Updates) -> optax.Updates:
            return jax.tree.map(
                lambda a, g: a + scale_or_drop(g.astype(a.dtype), weight), acc, updates
            )

        # Made out here: within a branch, the zeros of a concrete array lose its sharding.
        nothing = jax.tree.map(jnp.zeros_like, updates)

        def commit_fn(
            acc: optax.Updates, updates: optax.Updates, inner_state: optax.OptState
        ) -> Any:
            acc = gather(acc, updates)
            total = jax.tree.map(lambda a, g: a.astype(g.dtype), acc, updates)
            out, new_state = inner.update(total, inner_state, params, **extra_args)
            inner_state = _cast_like(new_state, inner_state)
            zeros = jax.tree.map(jnp.zeros_like, acc)
            fresh = jnp.zeros_like(largest)
            return _cast_like(out, updates), AccumulateUntilCommitState(zeros, fresh, inner_state)

        def wait_fn(acc: optax.Updates, updates: optax.Updates, inner_state: optax.OptState) -> Any:
            return nothing, AccumulateUntilCommitState(gather(acc, updates), largest, inner_state)

        operands = state.accumulated, updates, state.inner_state
        if isinstance(commit, bool):
            return commit_fn(*operands) if commit else wait_fn(*operands)
        return jax.lax.cond(commit, commit_fn, wait_fn, *operands)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _cast_like(new: Any, old: Any) -> Any:
    """``new`` in the dtypes of ``old``: hyperparameters that are arrays would promote them."""
    return jax.tree.map(lambda n, o: n if n.dtype == o.dtype else n.astype(o.dtype), new, old)
