"""Gap-aware scaling: gradients are divided by how far the server has moved since they were read."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from async_optax.transforms.lookahead import TraceWithLookAheadState, trace_with_look_ahead
from async_optax.transforms.precision import difference, global_norm, working_dtype
from async_optax.transforms.schedules import next_step, value_at
from async_optax.transforms.sweepable import sweepable
from async_optax.transforms.workers import require_worker
from async_optax.validation import (
    require_choice,
    require_count,
    require_learning_rate,
    require_number,
)

GRANULARITIES = ("coordinate", "layer", "global")


class ScaleByGapMomentumState(NamedTuple):
    """State of :func:`scale_by_gap_momentum`.

    Attributes:
      step: int32 scalar, gradients so far.
      commits: int32 scalar, commits so far.
      largest_rate: float scalar, the largest learning rate so far.
      mean_square: running mean of the squared updates so far, in at least float32: like params, or
        a scalar per layer, or one scalar.
      momentum: state of the momentum, ``optax.TraceState`` or :class:`TraceWithLookAheadState`.
    """

    step: jax.Array
    commits: jax.Array
    largest_rate: jax.Array
    mean_square: Any
    momentum: optax.TraceState | TraceWithLookAheadState

    def served_params(self, params: optax.Params) -> optax.Params:
        """Returns what the momentum serves: ``params``, or its look-ahead."""
        if isinstance(self.momentum, TraceWithLookAheadState):
            return self.momentum.served_params(params)
        return params


@sweepable(static_argnames=("granularity", "num_workers"))
def scale_by_gap_momentum(
    momentum: ArrayLike,
    max_learning_rate: optax.ScalarOrSchedule,
    decay: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    *,
    granularity: Literal["coordinate", "layer", "global"] = "coordinate",
    num_workers: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Momentum of gradients that were divided by the gap their parameters have run up.

    With v the momentum, s the stale and x the current parameters, t counting gradients from 1
    and all operations element-wise::

        ra <- decay * ra + (1 - decay) * v * v    (of the last update; g * g if momentum = 0)
        C = max_learning_rate * (sqrt(ra / (1 - decay**t)) + eps)
        h = g / (1 + abs(x - s) / C)
        v <- momentum * v + h,  out: v

    C is the distance that one update usually covers, so the divisor is 1 plus the number of
    updates it takes at least to cross the gap. Without a gap gradients pass unchanged, bit for
    bit. By ``"layer"`` and ``"global"``, squares and distances are norms of a leaf, or of the
    whole tree.

    Args:
      momentum: in [0, 1).
      max_learning_rate: the largest learning rate so far: a number > 0, or the schedule (of
        the commits) whose running maximum it is. Not the current one: when the rate decays,
        the gap shrinks and the penalty relaxes by itself.
      decay: of the running mean, in [0, 1).
      eps: > 0.
      granularity: ``"coordinate"``, ``"layer"`` or ``"global"``.
      num_workers: ``None``, or a number of workers >= 1: then each has its own momentum and
        all look ahead along the sum, as in :func:`trace_with_look_ahead`; v * v is then that of
        the last update, whoever's.

    Returns:
      A transformation whose ``update`` requires ``params`` (x) and ``stale_params`` (s), and
      ``worker`` with ``num_workers``. Updates keep their shapes and dtypes.

    Raises:
      ValueError: if an argument is out of range; in ``update``, if ``params`` or
        ``stale_params`` is ``None`` or a concrete ``worker`` is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = scale_by_gap_momentum(0.0, max_learning_rate=0.5)
      >>> x, s, g = jnp.array([2.0]), jnp.array([1.0]), jnp.array([2.0])
      >>> print(tx.update(g, tx.init(x), x, stale_params=s)[0].round(3))
      [1.]

    References:
      Barkai, Hakimi, Schuster, `Gap-Aware Mitigation of Gradient Staleness
      <https://arxiv.org/abs/1909.10802>`_, 2020, as in the group's code. The norms behind
      "layer" and "global", ablations there, are our reading.
    """
    require_number("momentum", momentum, at_least=0, below=1)
    require_learning_rate(max_learning_rate, "max_learning_rate")
    require_number("decay", decay, at_least=0, below=1)
    require_number("eps", eps, above=0)
    require_choice("granularity", granularity, GRANULARITIES)
    if num_workers is None:
        trace = optax.with_extra_args_support(optax.trace(momentum))
    else:
        require_count("num_workers", num_workers)
        trace = trace_with_look_ahead(num_workers, max_learning_rate, momentum)

    def init_fn(params: optax.Params) -> ScaleByGapMomentumState:
        mean_square = _sizes(jax.tree.map(jnp.zeros_like, params), granularity)
        step, commits = jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32)
        return ScaleByGapMomentumState(
            step, commits, jnp.zeros([]), mean_square, trace.init(params)
        )

    def update_fn(
        updates: optax.Updates,
        state: ScaleByGapMomentumState,
        params: optax.Params | None = None,
        *,
        stale_params: optax.Params,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ScaleByGapMomentumState]:
        if params is None or stale_params is None:
            raise ValueError("scale_by_gap_momentum needs params and stale_params, got None")
        if num_workers is not None:
            if "worker" not in extra_args:
                raise TypeError("scale_by_gap_momentum with num_workers needs worker")
            require_worker(extra_args["worker"], num_workers)
        without_momentum = jnp.asarray(momentum) == 0

        def refresh(ra: jax.Array, size: jax.Array) -> jax.Array:
            fresh = _running_mean(ra, size**2, decay)
            # One gradient beyond the range must not end the penalty for good.
            return jnp.where(jnp.isfinite(fresh), fresh, ra)

        step = optax.safe_increment(state.step)
        rate = jnp.asarray(value_at(max_learning_rate, state.commits), float)
        largest_rate = jnp.maximum(state.largest_rate, rate)
        mean_square = jax.tree.map(
            lambda ra, size: jnp.where(without_momentum, refresh(ra, size), ra),
            state.mean_square,
            _sizes(updates, granularity),
        )
        correction = 1 - jnp.asarray(decay, float) ** step.astype(float)

        def distance_per_update(ra: jax.Array) -> jax.Array:
            typical = jnp.sqrt(ra / correction.astype(ra.dtype)) + jnp.asarray(eps, ra.dtype)
            return largest_rate.astype(ra.dtype) * typical

        gap = _sizes(jax.tree.map(difference, params, stale_params), granularity)
        divisor = jax.tree.map(lambda d, ra: _divisor(d, distance_per_update(ra)), gap, mean_square)
        if granularity == "global":
            divisor = jax.tree.map(lambda g: divisor, updates)
        scaled = jax.tree.map(
            lambda g, d: (g.astype(d.dtype) / d).astype(g.dtype), updates, divisor
        )
        out, momentum_state = trace.update(scaled, state.momentum, params, **extra_args)
        # A momentum that is an array would promote them.
        momentum_state = jax.tree.map(
            lambda new, old: new.astype(old.dtype), momentum_state, state.momentum
        )
        out = jax.tree.map(lambda v, g: v.astype(g.dtype), out, updates)
        mean_square = jax.tree.map(
            lambda ra, size: jnp.where(without_momentum, ra, refresh(ra, size)),
            mean_square,
            _sizes(out, granularity),
        )
        commits = next_step(state.commits, extra_args)
        return out, ScaleByGapMomentumState(
            step, commits, largest_rate, mean_square, momentum_state
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _running_mean(old: jax.Array, new: jax.Array, decay: ArrayLike) -> jax.Array:
    rate = jnp.asarray(decay, old.dtype)
    return rate * old + (1 - rate) * new


def _divisor(gap: jax.Array, distance: jax.Array) -> jax.Array:
    # A distance of zero (a rate of zero, or one that underflows) must not divide zero by zero.
    safe = jnp.where(distance > 0, distance, jnp.ones_like(distance))
    return jnp.where(distance > 0, 1 + gap / safe, jnp.ones_like(gap))


def _sizes(tree: optax.Updates, granularity: str) -> Any:
    """Magnitudes by coordinate, or norms by leaf or of the tree, in at least float32."""
    if granularity == "global":
        return global_norm(tree)
    if granularity == "layer":
        return jax.tree.map(global_norm, tree)
    return jax.tree.map(lambda x: jnp.abs(x).astype(working_dtype(x)), tree)
