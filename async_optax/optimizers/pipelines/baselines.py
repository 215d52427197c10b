"""What asynchronous Nesterov is compared with: GPipe, PipeDream, PipeMare, weight prediction."""

import optax
from jax.typing import ArrayLike

from async_optax.optimizers.pipelines.server import adam, decoupled
from async_optax.transforms import (
    accumulate_until_commit,
    delay_stages,
    predict_stages,
    sweepable,
)
from async_optax.transforms.stages import scale_by_stage_delay


@sweepable
def gpipe(
    learning_rate: optax.ScalarOrSchedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    weight_decay: ArrayLike = 0.01,
    max_norm: ArrayLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """AdamW on the sum of an update's micro-batches, without any delay: synchronous training.

    Meant for ``ao.pipeline.timeline(..., synchronous=True)``, which pays for the bubbles.

    Args:
      learning_rate: a number > 0, or a schedule of the updates.
      b1: in [0, 1).
      b2: in [0, 1).
      eps: > 0.
      weight_decay: >= 0, decoupled.
      max_norm: > 0, largest norm of an update's gradient, or ``None``.

    Returns:
      A transformation for any timeline; ``update`` requires ``params``.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx, x = gpipe(0.1, weight_decay=0.0), (jnp.array([4.0]), jnp.array([-2.0]))
      >>> print(jnp.concatenate(tx.update(x, tx.init(x), x)[0]).round(3))
      [-0.1  0.1]

    References:
      Huang et al., `GPipe: Efficient Training of Giant Neural Networks using Pipeline Parallelism
      <https://arxiv.org/abs/1811.06965>`_, 2019. Certainty: full text; AdamW is the choice of
      Ajanthan et al. 2025, whose defaults these are.
    """
    direction = adam(b1, b2, eps)
    return accumulate_until_commit(decoupled(direction, learning_rate, weight_decay, max_norm))


@sweepable(static_argnames=("delays",))
def pipedream(
    learning_rate: optax.ScalarOrSchedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    weight_decay: ArrayLike = 0.01,
    max_norm: ArrayLike | None = None,
    delays: tuple[int, ...] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """AdamW on delayed gradients, with weight stashing and no other remedy.

    Args:
      learning_rate: a number > 0, or a schedule of the updates.
      b1: in [0, 1).
      b2: in [0, 1).
      eps: > 0.
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
      >>> from async_optax.transforms import served_params
      >>> tx, x = pipedream(0.1, weight_decay=0.0), (jnp.array([4.0]), jnp.array([-2.0]))
      >>> updates, state = tx.update(x, tx.init(x), x)
      >>> first, last = served_params(optax.apply_updates(x, updates), state)
      >>> print(f"{first[0]:.1f} {last[0]:.1f}")
      4.0 -1.9

    References:
      Narayanan et al., `PipeDream: Generalized Pipeline Parallelism for DNN Training
      <https://dl.acm.org/doi/10.1145/3341301.3359646>`_, 2019. Certainty: public code.
      ``delays=(1,) * P`` with several micro-batches per update is the delay of PipeDream-2BW
      (Narayanan et al. 2021, https://arxiv.org/abs/2006.09503).
    """
    server = decoupled(adam(b1, b2, eps), learning_rate, weight_decay, max_norm)
    return delay_stages(accumulate_until_commit(server), delays=delays)


@sweepable(static_argnames=("delays",))
def pipemare(
    learning_rate: optax.ScalarOrSchedule,
    annealing_steps: ArrayLike,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    weight_decay: ArrayLike = 0.01,
    max_norm: ArrayLike | None = None,
    stash: bool = False,
    delays: tuple[int, ...] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """AdamW whose learning rate is discounted by the delay: ``lr / tau_i^(1 - min(t / T, 1))``.

    Args:
      learning_rate: a number > 0, or a schedule of the updates.
      annealing_steps: T > 0, updates after which there is no discount; in the code of Ajanthan
        et al. 2025 seven epochs of their fifty, in PipeMare a part of the warm-up's order.
      b1: in [0, 1).
      b2: in [0, 1).
      eps: > 0.
      weight_decay: >= 0, decoupled.
      max_norm: > 0, largest norm of an update's gradient, or ``None``.
      stash: whether weights are stashed; PipeMare's are not.
      delays: one integer per stage; ``None`` is ``P - 1 - i`` for stage i of P.

    Returns:
      A transformation of tuples of stages, for ``ao.pipeline.timeline``; ``update`` requires
      ``params``.

    Raises:
      TypeError: if the parameters are not a tuple of stages.
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = pipemare(0.1, annealing_steps=100, weight_decay=0.0)
      >>> x = tuple(jnp.array([2.0]) for _ in range(3))
      >>> print(jnp.concatenate(tx.update(x, tx.init(x), x)[0]).round(3))
      [-0.05 -0.1  -0.1 ]

    References:
      Yang et al., `PipeMare: Asynchronous Pipeline Parallel DNN Training
      <https://arxiv.org/abs/1910.05124>`_, 2019. Certainty: public code for the learning rate.
      Their correction of the backward weights (T2) and synchronous warm-up (T3) are not included.
    """
    discount = scale_by_stage_delay(annealing_steps, delays)
    direction = adam(b1, b2, eps)
    server = decoupled(direction, learning_rate, weight_decay, max_norm, discount)
    return delay_stages(accumulate_until_commit(server), stash=stash, delays=delays)


@sweepable(static_argnames=("delays",))
def weight_prediction(
    learning_rate: optax.ScalarOrSchedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    weight_decay: ArrayLike = 0.01,
    max_norm: ArrayLike | None = None,
    stash: bool = True,
    delays: tuple[int, ...] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """AdamW on gradients at predicted weights: tau_i times the last update ahead (XPipe).

    Args:
      learning_rate: a number > 0, or a schedule of the updates.
      b1: in [0, 1).
      b2: in [0, 1).
      eps: > 0.
      weight_decay: >= 0, decoupled.
      max_norm: > 0, largest norm of an update's gradient, or ``None``.
      stash: whether the backward pass runs at the predicted weights too, else at the current
        ones.
      delays: one integer per stage; ``None`` is ``P - 1 - i`` for stage i of P.

    Returns:
      A transformation of tuples of stages, for ``ao.pipeline.timeline``; ``update`` requires
      ``params``.

    Raises:
      TypeError: if the parameters are not a tuple of stages.
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from async_optax.transforms import served_params
      >>> tx = weight_prediction(0.1, weight_decay=0.0)
      >>> x = (jnp.array([4.0]), jnp.array([-2.0]))
      >>> _, state = tx.update(x, tx.init(x), x)
      >>> _, state = tx.update(x, state, x)
      >>> print(f"{served_params(x, state)[0][0]:.1f}")  # 4 - 0.1, one update old
      3.9

    References:
      Guan et al., `XPipe: Efficient Pipeline Model Parallelism for Multi-GPU DNN Training
      <https://arxiv.org/abs/1911.04610>`_, 2019. Certainty: memory. With momentum SGD
      (SpecTrain, https://arxiv.org/abs/1809.02839) it is ``delay_stages(
      accumulate_until_commit(predict_stages(optax.sgd(lr, momentum))))``, of
      :mod:`async_optax.transforms`.
    """
    server = decoupled(adam(b1, b2, eps), learning_rate, weight_decay, max_norm)
    predicting = accumulate_until_commit(predict_stages(server, delays=delays))
    return delay_stages(predicting, stash=stash, delays=delays)
