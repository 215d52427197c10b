"""Asynchronous momentum whose gradients are divided by the gap they have run up."""

from typing import Literal

import optax
from jax.typing import ArrayLike

from async_optax.optimizers.registry import register
from async_optax.transforms import accumulate_until_commit, scale_by_gap_momentum
from async_optax.validation import require_learning_rate


@register(static_argnames=("granularity",))
def gap_aware(
    learning_rate: optax.ScalarOrSchedule,
    momentum: ArrayLike = 0.9,
    decay: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    granularity: Literal["coordinate", "layer", "global"] = "coordinate",
) -> optax.GradientTransformationExtraArgs:
    """Momentum descent that divides a stale gradient by the gap to what it was computed on.

    With C the distance that one update usually covers, element-wise:
    ``h = g / (1 + abs(x - s) / C)``, ``v <- momentum * v + h``,
    ``x <- x - learning_rate * v``. C is the largest learning rate so far times the root of v's
    running mean square; see :func:`async_optax.transforms.scale_by_gap_momentum`.

    Args:
      learning_rate: a number > 0, or a schedule of the commits.
      momentum: in [0, 1).
      decay: of the running mean square, in [0, 1); 0.999 is the group's.
      eps: > 0; 1e-8 is the group's.
      granularity: ``"coordinate"`` as above, or norms by ``"layer"`` or ``"global"``.

    Returns:
      A transformation for any protocol; ``update`` requires ``params`` and ``stale_params``.

    Raises:
      ValueError: if an argument is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx, x = gap_aware(0.5, momentum=0.0), jnp.array([2.0])
      >>> print(tx.update(x, tx.init(x), x, stale_params=x / 2)[0].round(3))
      [-0.5]

    References:
      Barkai, Hakimi, Schuster, `Gap-Aware Mitigation of Gradient Staleness
      <https://arxiv.org/abs/1909.10802>`_, 2020. Certainty: authors' code; "layer" and "global"
      are our reading of the ablations. Weight decay, which they divide as well, is not
      included. There is a patent (US 11631035): take advice before commercial use.
    """
    require_learning_rate(learning_rate)
    return optax.chain(
        scale_by_gap_momentum(momentum, learning_rate, decay, eps, granularity=granularity),
        accumulate_until_commit(optax.sgd(learning_rate)),
    )


@register(static_argnames=("num_workers", "granularity"))
def dana_gap_aware(
    learning_rate: optax.ScalarOrSchedule,
    num_workers: int,
    momentum: ArrayLike = 0.9,
    decay: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    granularity: Literal["coordinate", "layer", "global"] = "coordinate",
) -> optax.GradientTransformationExtraArgs:
    """Gap-aware gradients, momentum per worker, and DANA's look-ahead.

    For the worker j that delivers g, with s the look-ahead point it computed on:
    ``h = g / (1 + abs(x - s) / C)``, ``v_j <- momentum * v_j + h``,
    ``x <- x - learning_rate * v_j``; workers read
    ``x - learning_rate * momentum * sum_i v_i``. C as in :func:`gap_aware`, from the last
    updates, whoever's they were.

    Args:
      learning_rate: a number > 0, or a schedule of the commits.
      num_workers: number of workers, >= 1; one copy of the parameters each.
      momentum: in [0, 1).
      decay: of the running mean square, in [0, 1).
      eps: > 0.
      granularity: ``"coordinate"``, or norms by ``"layer"`` or ``"global"``.

    Returns:
      A transformation for any protocol; ``update`` requires ``params``, ``stale_params`` and
      ``worker``, and :func:`async_optax.transforms.served_params` reads its state.

    Raises:
      ValueError: if an argument is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx, x = dana_gap_aware(0.5, num_workers=2), jnp.array([2.0])
      >>> print(tx.update(x, tx.init(x), x, stale_params=x, worker=0)[0])
      [-1.]

    References:
      Barkai, Hakimi, Schuster, `Gap-Aware Mitigation of Gradient Staleness
      <https://arxiv.org/abs/1909.10802>`_, 2020, on top of DANA. Certainty: secondary sources;
      the two parts are the authors' code.
    """
    require_learning_rate(learning_rate)
    return optax.chain(
        scale_by_gap_momentum(
            momentum, learning_rate, decay, eps, granularity=granularity, num_workers=num_workers
        ),
        accumulate_until_commit(optax.sgd(learning_rate)),
    )
