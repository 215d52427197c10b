"""Weight prediction: a pipeline's stages see where their weights will be after their delay."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from async_optax.transforms.lookahead import moved, served_params
from async_optax.transforms.stages import require_delays, stage_delays
from async_optax.transforms.sweepable import sweepable


class PredictStagesState(NamedTuple):
    """State of :func:`predict_stages`.

    Attributes:
      last_step: for each stage the last update of ``inner``, ``None`` without a delay.
      horizons: for each stage its delay as a float scalar, ``None`` without one.
      inner_state: state of the wrapped transformation.
    """

    last_step: tuple[Any, ...]
    horizons: tuple[Any, ...]
    inner_state: optax.OptState

    def served_params(self, params: optax.Params) -> optax.Params:
        """Returns the predicted parameters, after any look-ahead of the inner state."""
        current = served_params(params, self.inner_state)
        return tuple(
            stage if horizon is None else moved(stage, horizon, step)
            for stage, horizon, step in zip(current, self.horizons, self.last_step, strict=True)
        )


@sweepable(static_argnames=("delays",))
def predict_stages(
    inner: optax.GradientTransformation, *, delays: tuple[int, ...] | None = None
) -> optax.GradientTransformationExtraArgs:
    """Serves stage i at ``w + tau_i * u``, with u its last update; updates are unchanged.

    That is where the stage would be tau_i updates later if each were like the last, which is
    when the gradient of a micro-batch that starts now arrives. Around momentum SGD it is
    SpecTrain's prediction, around Adam XPipe's. Within
    :func:`async_optax.transforms.delay_stages` the predictions are delayed like versions.

    Args:
      inner: any optimizer of tuples of stages, learning rate included. Within
        :func:`async_optax.transforms.accumulate_until_commit`, so that u is the last commit's.
      delays: see :func:`async_optax.transforms.stages.stage_delays`.

    Returns:
      A transformation whose state :func:`async_optax.transforms.served_params` reads; one copy
      of the stages that have a delay.

    Raises:
      TypeError: if ``inner`` is not a transformation, or the parameters are no tuple of stages.
      ValueError: if the delays are out of range, or not as many as stages.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from async_optax.transforms import served_params
      >>> tx, params = predict_stages(optax.sgd(1.0)), (jnp.ones(1), jnp.ones(1), jnp.ones(1))
      >>> updates, state = tx.update(params, tx.init(params), params)
      >>> print(jnp.concatenate(served_params(optax.apply_updates(params, updates), state)))
      [-2. -1.  0.]

    References:
      Chen, Yang, Cheng, `Efficient and Robust Parallel DNN Training through Model Parallelism on
      Multi-GPU Platform <https://arxiv.org/abs/1809.02839>`_, 2018 (SpecTrain); Guan et al.,
      `XPipe: Efficient Pipeline Model Parallelism for Multi-GPU DNN Training
      <https://arxiv.org/abs/1911.04610>`_, 2019. Certainty: memory. Theirs is a step of the
      momentum alone; ours is the whole last update, weight decay included.
    """
    require_delays(delays)
    if not isinstance(inner, optax.GradientTransformation):
        raise TypeError(f"inner must be a gradient transformation, got {inner!r}")
    inner = optax.with_extra_args_support(inner)

    def init_fn(params: optax.Params) -> PredictStagesState:
        of_stages = stage_delays(params, delays)
        zeros = tuple(
            jax.tree.map(jnp.zeros_like, stage) if delay else None
            for stage, delay in zip(params, of_stages, strict=True)
        )
        horizons = tuple(jnp.asarray(delay, float) if delay else None for delay in of_stages)
        return PredictStagesState(zeros, horizons, inner.init(params))

    def update_fn(
        updates: optax.Updates,
        state: PredictStagesState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, PredictStagesState]:
        updates, inner_state = inner.update(updates, state.inner_state, params, **extra_args)
        last_step = tuple(
            None if old is None else jax.tree.map(lambda o, u: u.astype(o.dtype), old, update)
            for old, update in zip(state.last_step, updates, strict=True)
        )
        return updates, PredictStagesState(last_step, state.horizons, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
