"""Nesterov's method for the delays of a pipeline, and the momentum by stage that it may use."""

import optax
from jax.typing import ArrayLike

from async_optax.optimizers.pipelines.server import decoupled
from async_optax.transforms import (
    accumulate_until_commit,
    delay_stages,
    scale_by_nadam_delayed,
    sweepable,
)
from async_optax.transforms.stages import scale_by_stage_delay, scale_by_stage_momentum


@sweepable(static_argnames=("delays",))
def stage_momentum(
    learning_rate: optax.ScalarOrSchedule,
    b1: ArrayLike = 0.9,
    largest_b1: ArrayLike = 0.99,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    momentum_decay: ArrayLike = 0.004,
    weight_decay: ArrayLike = 0.01,
    max_norm: ArrayLike | None = None,
    nesterov: bool = True,
    stash: bool = True,
    delays: tuple[int, ...] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """NAdamW whose momentum grows with a stage's delay, and no other remedy.

    Stage i has ``beta1_i = b1 + tau_i * (largest_b1 - b1) / P``; see
    :func:`async_optax.transforms.stages.scale_by_stage_momentum`.

    Args:
      learning_rate: a number > 0, or a schedule of the updates.
      b1: momentum without delay, in [0, 1).
      largest_b1: what momentum tends to with the delay, in [``b1``, 1).
      b2: in [0, 1).
      eps: > 0.
      momentum_decay: >= 0, of the schedule of NAdam.
      weight_decay: >= 0, decoupled.
      max_norm: > 0, largest norm of an update's gradient, or ``None``.
      nesterov: NAdam's direction, else Adam's.
      stash: whether weights are stashed.
      delays: one integer per stage; ``None`` is ``P - 1 - i`` for stage i of P.

    Returns:
      A transformation of tuples of stages, for ``ao.pipeline.timeline``; ``update`` requires
      ``params``.

    Raises:
      TypeError: if the parameters are not a tuple of stages.
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx, x = stage_momentum(0.1, nesterov=False), (jnp.array([4.0]), jnp.array([-2.0]))
      >>> print([f"{u[0]:.1f}" for u in tx.update(x, tx.init(x), x)[0]])
      ['-0.1', '0.1']

    References:
      Ajanthan et al., `Nesterov Method for Asynchronous Pipeline Parallel Optimization
      <https://arxiv.org/abs/2505.01099>`_, 2025. Certainty: authors' code.
    """
    direction = scale_by_stage_momentum(
        b1, largest_b1, b2, eps, momentum_decay, nesterov=nesterov, delays=delays
    )
    server = decoupled(direction, learning_rate, weight_decay, max_norm)
    return delay_stages(accumulate_until_commit(server), stash=stash, delays=delays)


@sweepable(static_argnames=("delays",))
def nesterov_pipeline(
    learning_rate: optax.ScalarOrSchedule,
    b1: ArrayLike = 0.99,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    momentum_decay: ArrayLike = 0.004,
    weight_decay: ArrayLike = 0.01,
    max_norm: ArrayLike | None = None,
    delays: tuple[int, ...] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """NAdamW with b1 = 0.99 on delayed gradients, with weight stashing: asynchronous Nesterov.

    The direction is that of :func:`async_optax.transforms.scale_by_nadam_delayed`, whose factor
    ``1 - mu_t`` discounts the delayed gradient.

    Args:
      learning_rate: a number > 0, or a schedule of the updates.
      b1: in [0, 1).
      b2: in [0, 1).
      eps: > 0.
      momentum_decay: >= 0, of the schedule of NAdam.
      weight_decay: >= 0, decoupled.
      max_norm: > 0, largest norm of an update's gradient, or ``None``.
      delays: one integer per stage; ``None`` is ``P - 1 - i`` for stage i of P.

    Returns:
      A transformation of tuples of stages, for ``ao.pipeline.timeline``; ``update`` requires
      ``params``.

    Raises:
      TypeError: if the parameters are not a tuple of stages.
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx, x = nesterov_pipeline(0.1), (jnp.array([4.0]), jnp.array([-2.0]))
      >>> print(jnp.concatenate(tx.update(x, tx.init(x), x)[0]).round(1))
      [-0.1  0.1]

    References:
      Ajanthan et al., `Nesterov Method for Asynchronous Pipeline Parallel Optimization
      <https://arxiv.org/abs/2505.01099>`_, 2025. Certainty: authors' code.
    """
    direction = scale_by_nadam_delayed(b1, b2, eps, momentum_decay)
    server = decoupled(direction, learning_rate, weight_decay, max_norm)
    return delay_stages(accumulate_until_commit(server), delays=delays)


@sweepable(static_argnames=("delays",))
def nesterov_pipeline_no_stash(
    learning_rate: optax.ScalarOrSchedule,
    annealing_steps: ArrayLike,
    b1: ArrayLike = 0.9,
    largest_b1: ArrayLike = 0.99,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    momentum_decay: ArrayLike = 0.004,
    weight_decay: ArrayLike = 0.01,
    max_norm: ArrayLike | None = None,
    delays: tuple[int, ...] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Asynchronous Nesterov without weight stashing: momentum and learning rate by stage.

    NAdamW with the momentum of :func:`stage_momentum` and the learning rate of :func:`pipemare`;
    the forward pass is stale, the backward pass runs at the current weights.

    Args:
      learning_rate: a number > 0, or a schedule of the updates.
      annealing_steps: T > 0, updates after which the learning rate is not discounted.
      b1: momentum without delay, in [0, 1).
      largest_b1: what momentum tends to with the delay, in [``b1``, 1).
      b2: in [0, 1).
      eps: > 0.
      momentum_decay: >= 0, of the schedule of NAdam.
      weight_decay: >= 0, decoupled.
      max_norm: > 0, largest norm of an update's gradient, or ``None``.
      delays: one integer per stage; ``None`` is ``P - 1 - i`` for stage i of P.

    Returns:
      A transformation of tuples of stages, for ``ao.pipeline.timeline`` and the worker program
      ``ao.pipeline.gradient()``; ``update`` requires ``params``.

    Raises:
      TypeError: if the parameters are not a tuple of stages.
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = nesterov_pipeline_no_stash(0.1, annealing_steps=100)
      >>> x = tuple(jnp.array([2.0]) for _ in range(3))
      >>> print(jnp.concatenate(tx.update(x, tx.init(x), x)[0]).round(2))
      [-0.05 -0.11 -0.11]

    References:
      Ajanthan et al., `Nesterov Method for Asynchronous Pipeline Parallel Optimization
      <https://arxiv.org/abs/2505.01099>`_, 2025. Certainty: secondary sources; the released code
      has both parts, but no switch for this form.
    """
    direction = scale_by_stage_momentum(b1, largest_b1, b2, eps, momentum_decay, delays=delays)
    discount = scale_by_stage_delay(annealing_steps, delays)
    server = decoupled(direction, learning_rate, weight_decay, max_norm, discount)
    return delay_stages(accumulate_until_commit(server), stash=False, delays=delays)
