"""Parameters that are a tuple of pipeline stages: each stage is treated by its own delay."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from async_optax.transforms.nesterov import scale_by_nadam_delayed
from async_optax.transforms.precision import in_working_dtype, working_dtype
from async_optax.transforms.schedules import next_step
from async_optax.transforms.sweepable import sweepable
from async_optax.validation import require_count, require_number


def require_delays(delays: Any) -> None:
    """Raises unless ``delays`` is ``None`` or a tuple of integers >= 0.

    Example:
      >>> require_delays((1, -1))
      Traceback (most recent call last):
      ...
      ValueError: delays[1] must be an integer >= 0, got -1
    """
    if delays is None:
        return
    if not isinstance(delays, tuple):
        raise TypeError(f"delays must be a tuple of integers, one per stage, got {delays!r}")
    for stage, delay in enumerate(delays):
        require_count(f"delays[{stage}]", delay, at_least=0)


def stage_delays(params: Any, delays: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """Returns by how many updates each stage's weights are behind in its forward pass.

    Args:
      params: a tuple of P stages, one pytree each; or gradients, or shapes of them.
      delays: one integer per stage, or ``None`` for those of a pipeline in its steady state:
        ``P - 1 - i`` for stage i, counted from 0.

    Returns:
      A tuple of P integers.

    Raises:
      TypeError: if ``params`` is not a tuple of stages.
      ValueError: if there is no stage, or ``delays`` has another length.

    Example:
      >>> stage_delays(("first", "second", "last"))
      (2, 1, 0)
    """
    if not isinstance(params, tuple) or hasattr(params, "_fields"):
        raise TypeError(
            "params must be a tuple of stages, one pytree each, as of ao.pipeline.problem; got "
            f"{type(params).__name__}"
        )
    if not params:
        raise ValueError("params must be a tuple of at least one stage, got none")
    if delays is None:
        return tuple(reversed(range(len(params))))
    if len(delays) != len(params):
        raise ValueError(
            f"delays must be one integer for each of {len(params)} stages, got {delays}"
        )
    return delays


class TransformStagesState(NamedTuple):
    """State of :func:`transform_stages`.

    Attributes:
      inner_states: one for each stage.
    """

    inner_states: tuple[optax.OptState, ...]


def transform_stages(
    make: Callable[[int, int], optax.GradientTransformation],
    delays: tuple[int, ...] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Gives each stage a transformation of its own, made for its delay.

    Args:
      make: ``make(delay, largest_delay)`` returns a stage's transformation; the delays are
        integers, and ``largest_delay`` is that of the stage with the most. It is called in each
        trace, so that it may hold numbers of a sweepable factory around it.
      delays: see :func:`stage_delays`.

    Returns:
      A transformation of tuples of stages. ``stale_params`` are cut like the parameters;
      ``gradient_fn``, which is of all stages, is not passed on.

    Raises:
      TypeError: if an argument is of the wrong kind; in ``init`` and ``update``, if the
        parameters are not a tuple of stages.
      ValueError: if there are not as many delays as stages.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> tx = transform_stages(lambda delay, largest: optax.scale(1.0 + delay))
      >>> params = (jnp.ones(1), jnp.ones(1))
      >>> print(tx.update(params, tx.init(params))[0])
      (Array([2.], dtype=float32), Array([1.], dtype=float32))
    """
    require_delays(delays)
    if not callable(make):
        raise TypeError(f"make must be a function of two delays, got {make!r}")

    def each(params: Any) -> list[optax.GradientTransformationExtraArgs]:
        of_stages = stage_delays(params, delays)
        made = (make(delay, max(of_stages)) for delay in of_stages)
        return [optax.with_extra_args_support(tx) for tx in made]

    def init_fn(params: optax.Params) -> TransformStagesState:
        txs = each(params)
        return TransformStagesState(
            tuple(tx.init(stage) for tx, stage in zip(txs, params, strict=True))
        )

    def update_fn(
        updates: optax.Updates,
        state: TransformStagesState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, TransformStagesState]:
        extra_args.pop("gradient_fn", None)
        stale_params = extra_args.pop("stale_params", None)
        out, states = [], []
        for i, tx in enumerate(each(updates)):
            own = {} if stale_params is None else {"stale_params": stale_params[i]}
            stage = None if params is None else params[i]
            update, inner_state = tx.update(
                updates[i], state.inner_states[i], stage, **extra_args, **own
            )
            out.append(update)
            states.append(inner_state)
        return tuple(out), TransformStagesState(tuple(states))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


class ScaleByStageDelayState(NamedTuple):
    """State of :func:`scale_by_stage_delay`.

    Attributes:
      step: int32 scalar, updates so far.
    """

    step: jax.Array


@sweepable(static_argnames=("delays",))
def scale_by_stage_delay(
    annealing_steps: ArrayLike, delays: tuple[int, ...] | None = None
) -> optax.GradientTransformationExtraArgs:
    """Divides a stage's steps by its delay at first, and less and less so later (PipeMare).

    With t the updates so far and tau_i the delay of stage i, updates of the stages with
    ``tau_i > 0`` are multiplied by ``tau_i**-(1 - min(t / annealing_steps, 1))``. Place it behind
    whatever normalises, next to the learning rate.

    Args:
      annealing_steps: T > 0, the updates after which the factor is 1.
      delays: see :func:`stage_delays`.

    Returns:
      A transformation of tuples of stages. Updates keep their shapes and dtypes.

    Raises:
      TypeError: if the parameters are not a tuple of stages.
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = scale_by_stage_delay(annealing_steps=100)
      >>> g = tuple(jnp.ones(1) for _ in range(3))
      >>> print(jnp.concatenate(tx.update(g, tx.init(g))[0]))
      [0.5 1.  1. ]

    References:
      Yang et al., `PipeMare: Asynchronous Pipeline Parallel DNN Training
      <https://arxiv.org/abs/1910.05124>`_, 2019, its technique T1. Certainty: public code (that of
      Ajanthan et al. 2025, which counts delays in whole updates as we do; PipeMare's own are
      fractions of a mini-batch).
    """
    require_number("annealing_steps", annealing_steps, above=0)
    require_delays(delays)

    def init_fn(params: optax.Params) -> ScaleByStageDelayState:
        stage_delays(params, delays)
        return ScaleByStageDelayState(jnp.zeros([], jnp.int32))

    def update_fn(
        updates: optax.Updates,
        state: ScaleByStageDelayState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ScaleByStageDelayState]:
        del params
        elapsed = state.step.astype(float) / jnp.asarray(annealing_steps, float)
        power = jnp.minimum(elapsed, 1.0) - 1.0

        def scaled(stage: optax.Updates, delay: int) -> optax.Updates:
            if delay <= 1:  # the factor of 1 is 1
                return stage
            factor = jnp.asarray(delay, float) ** power

            def scale(g: jax.Array) -> jax.Array:
                dtype = working_dtype(g)
                return (factor.astype(dtype) * g.astype(dtype)).astype(g.dtype)

            return jax.tree.map(scale, stage)

        out = tuple(map(scaled, updates, stage_delays(updates, delays)))
        return out, ScaleByStageDelayState(next_step(state.step, extra_args))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


@sweepable(static_argnames=("delays",))
def scale_by_stage_momentum(
    b1: ArrayLike = 0.9,
    largest_b1: ArrayLike = 0.99,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    momentum_decay: ArrayLike = 0.004,
    nesterov: bool = True,
    delays: tuple[int, ...] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """NAdam or Adam whose momentum is the larger the longer a stage's delay.

    Stage i has ``beta1_i = b1 + tau_i * (largest_b1 - b1) / (1 + tau)``, with tau_i its delay and
    tau the largest one; ``1 + tau`` is the number of stages of a pipeline.

    Args:
      b1: momentum without delay, in [0, 1).
      largest_b1: what momentum tends to with the delay, in [``b1``, 1).
      b2: in [0, 1).
      eps: > 0.
      momentum_decay: >= 0, of the schedule of NAdam.
      nesterov: whether the direction is that of
        :func:`async_optax.transforms.scale_by_nadam_delayed`, else of ``optax.scale_by_adam``.
      delays: see :func:`stage_delays`.

    Returns:
      A transformation of tuples of stages. Updates keep their shapes and dtypes.

    Raises:
      TypeError: if ``nesterov`` is not a boolean, or the parameters are not a tuple of stages.
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx, g = scale_by_stage_momentum(nesterov=False), (jnp.ones(1), jnp.ones(1))
      >>> _, state = tx.update(g, tx.init(g))
      >>> print([f"{s.mu[0]:.3f}" for s in state.inner_states])  # 1 - beta1_i
      ['0.055', '0.100']

    References:
      Ajanthan et al., `Nesterov Method for Asynchronous Pipeline Parallel Optimization
      <https://arxiv.org/abs/2505.01099>`_, 2025. Certainty: authors' code, where it is
      ``adaptive_momentum``.
    """
    require_number("b1", b1, at_least=0, below=1)
    require_number("largest_b1", largest_b1, at_least=0, below=1)
    concrete = not any(isinstance(b, jax.core.Tracer) for b in (b1, largest_b1))
    if concrete and np.asarray(b1) > np.asarray(largest_b1):
        raise ValueError(f"largest_b1 must be at least b1={b1}, got {largest_b1}")
    require_number("b2", b2, at_least=0, below=1)
    require_number("eps", eps, above=0)
    require_number("momentum_decay", momentum_decay, at_least=0)
    if not isinstance(nesterov, bool):
        raise TypeError(f"nesterov must be True or False, got {nesterov!r}")

    def make(delay: int, largest_delay: int) -> optax.GradientTransformation:
        share = delay / (1 + largest_delay)
        momentum = jnp.add(b1, share * jnp.subtract(largest_b1, b1))
        if nesterov:
            return scale_by_nadam_delayed(momentum, b2, eps, momentum_decay)
        return in_working_dtype(optax.scale_by_adam(momentum, b2, eps))

    return transform_stages(make, delays)
