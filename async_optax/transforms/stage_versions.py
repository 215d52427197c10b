"""The versions that a pipeline's stages see: each stage's weights are behind by its own delay."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from async_optax.transforms.lookahead import served_params
from async_optax.transforms.schedules import next_step
from async_optax.transforms.stages import require_delays, stage_delays
from async_optax.transforms.sweepable import sweepable


class StageVersions(NamedTuple):
    """What the two passes of a micro-batch run at, if weights are not stashed.

    Attributes:
      forward: for each stage its stale weights, or ``None`` if they are the current ones.
      backward: the current weights, like the parameters.
    """

    forward: tuple[Any, ...]
    backward: optax.Params

    @property
    def mixed(self) -> optax.Params:
        """The weights of the forward pass, like the parameters."""
        pairs = zip(self.forward, self.backward, strict=True)
        return tuple(current if stale is None else stale for stale, current in pairs)


class DelayStagesState(NamedTuple):
    """State of :func:`delay_stages` with weight stashing.

    Attributes:
      step: int32 scalar, versions made so far.
      rings: for each stage its last tau_i versions, like the stage with a leading axis
        ``[tau_i]``, version v in row ``v % tau_i``; ``None`` for a stage without delay.
      inner_state: state of the wrapped transformation.
    """

    step: jax.Array
    rings: tuple[Any, ...]
    inner_state: optax.OptState

    @property
    def has_own_delays(self) -> bool:
        """Rows of a timeline must read the version that they are applied to."""
        return True

    @property
    def stage_delays(self) -> tuple[int, ...]:
        """By how many updates each stage is behind, as far as it has parameters."""
        of_stages = (jax.tree.leaves(ring) for ring in self.rings)
        return tuple(leaves[0].shape[0] if leaves else 0 for leaves in of_stages)

    def served_params(self, params: optax.Params) -> Any:
        """Returns what a micro-batch that starts now runs at, both ways."""
        current = served_params(params, self.inner_state)
        return StageVersions(self.stale_stages(), current).mixed

    def stale_stages(self) -> tuple[Any, ...]:
        """Returns for each stage the oldest version in its ring, ``None`` without one."""
        return tuple(
            None if ring is None else jax.tree.map(lambda rows: _row(rows, self.step), ring)
            for ring in self.rings
        )


class DelayStagesWithoutStashState(DelayStagesState):
    """State of :func:`delay_stages` without weight stashing; the same fields."""

    __slots__ = ()

    @property
    def worker_program(self) -> str:
        """What computes on two versions."""
        return "ao.pipeline.gradient()"

    def served_params(self, params: optax.Params) -> StageVersions:
        """Returns what the forward and the backward pass of a micro-batch run at."""
        return StageVersions(self.stale_stages(), params)


@sweepable(static_argnames=("delays",))
def delay_stages(
    inner: optax.GradientTransformation,
    *,
    stash: bool = True,
    delays: tuple[int, ...] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Makes the stages of a pipeline stale: micro-batch m sees stage i at version m - tau_i.

    In the steady state of an asynchronous pipeline of P stages (one forward, one backward, and an
    update after each) the forward pass of micro-batch m runs at version ``max(0, m - tau_i)`` of
    stage i, with ``tau_i = P - 1 - i`` for i from 0, and its gradient makes version m + 1. With
    weight stashing the backward pass runs at the same versions; without, at the current ones,
    version m of all stages. The parameters are a tuple of stages; updates are those of ``inner``.

    The state keeps the last tau_i versions of stage i, ``P * (P - 1) / 2`` stages in all, and
    :func:`async_optax.transforms.served_params` returns what the next micro-batch runs at. If
    ``inner`` serves something in the place of the parameters, such as
    :func:`async_optax.transforms.predict_stages`, its versions are delayed.

    Args:
      inner: any optimizer of tuples of stages, learning rate included. It gets the weights of
        the forward pass as ``stale_params``, and the delay of the most delayed stage as
        ``staleness``, which is that of its first updates as long as these are fewer.
      stash: whether the backward pass runs at the weights of the forward pass. If not,
        :class:`StageVersions` are served, for :func:`async_optax.engine.pipeline.gradient`.
      delays: see :func:`async_optax.transforms.stages.stage_delays`.

    Returns:
      A transformation for timelines on which each row reads the version that it is applied to,
      as those of :func:`async_optax.engine.pipeline.timeline`; ``update`` requires ``params``.

    Raises:
      TypeError: if ``inner`` is not a transformation, ``stash`` not a boolean, or the parameters
        are no tuple of stages.
      ValueError: if the delays are out of range, or not as many as stages.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from async_optax.transforms import served_params
      >>> tx = delay_stages(optax.sgd(1.0))
      >>> params = tuple(jnp.zeros(1) for _ in range(3))
      >>> state = tx.init(params)
      >>> for m in range(3):
      ...     updates, state = tx.update((jnp.full(1, -1.0),) * 3, state, params)
      ...     params = optax.apply_updates(params, updates)
      ...     print(jnp.concatenate(served_params(params, state)))
      [0. 0. 1.]
      [0. 1. 2.]
      [1. 2. 3.]

    References:
      Narayanan et al., `PipeDream: Generalized Pipeline Parallelism for DNN Training
      <https://dl.acm.org/doi/10.1145/3341301.3359646>`_, 2019. Certainty: public code (delays as in
      that of Ajanthan et al. 2025). Without a stash: Yang et al., `PipeMare
      <https://arxiv.org/abs/1910.05124>`_, 2019, from secondary sources.
    """
    require_delays(delays)
    if not isinstance(inner, optax.GradientTransformation):
        raise TypeError(f"inner must be a gradient transformation, got {inner!r}")
    if not isinstance(stash, bool):
        raise TypeError(f"stash must be True or False, got {stash!r}")
    inner = optax.with_extra_args_support(inner)
    make_state = DelayStagesState if stash else DelayStagesWithoutStashState

    def init_fn(params: optax.Params) -> DelayStagesState:
        inner_state = inner.init(params)
        first = served_params(params, inner_state)
        rings = tuple(
            jax.tree.map(lambda x, n=delay: jnp.repeat(x[jnp.newaxis], n, axis=0), stage)
            if delay
            else None
            for stage, delay in zip(first, stage_delays(params, delays), strict=True)
        )
        return make_state(jnp.zeros([], jnp.int32), rings, inner_state)

    def update_fn(
        updates: optax.Updates,
        state: DelayStagesState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, DelayStagesState]:
        if params is None:
            raise ValueError("delay_stages keeps versions of the parameters: pass params")
        stale = extra_args.get("stale_params")
        if stale is None:
            stale = state.served_params(params)
        extra_args["stale_params"] = stale.mixed if isinstance(stale, StageVersions) else stale
        largest = max(stage_delays(params, delays))
        extra_args["staleness"] = jnp.minimum(state.step, jnp.int32(largest))
        # What this version serves is asked for before the state moves on to the next.
        current = served_params(params, state.inner_state)
        rings = tuple(
            None if ring is None else _with_version(ring, stage, state.step, extra_args)
            for ring, stage in zip(state.rings, current, strict=True)
        )
        out, inner_state = inner.update(updates, state.inner_state, params, **extra_args)
        return out, make_state(next_step(state.step, extra_args), rings, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _row(rows: jax.Array, step: jax.Array) -> jax.Array:
    return lax.dynamic_index_in_dim(rows, step % rows.shape[0], keepdims=False)


def _with_version(ring: Any, stage: Any, step: jax.Array, extra_args: dict[str, Any]) -> Any:
    """Puts version ``step`` of a stage where its oldest was, if this arrival commits."""
    commit = extra_args.get("commit", True)
    if commit is False:
        return ring

    def write(rows: jax.Array, x: jax.Array) -> jax.Array:
        if commit is not True:
            x = jnp.where(commit, x, _row(rows, step))
        return lax.dynamic_update_index_in_dim(rows, x.astype(rows.dtype), step % rows.shape[0], 0)

    return jax.tree.map(write, ring, stage)
