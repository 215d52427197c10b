"""AdaDelay: step sizes that shrink with time and with the actual delay."""

import optax
from jax.typing import ArrayLike

from async_optax.optimizers.registry import register
from async_optax.transforms import (
    accumulate_until_commit,
    scale_by_adadelay,
    scale_by_staleness_schedule,
    schedules,
)
from async_optax.validation import require_learning_rate


@register
def adadelay(
    learning_rate: optax.ScalarOrSchedule, scale: ArrayLike = 1.0, per_coordinate: bool = False
) -> optax.GradientTransformationExtraArgs:
    """Descent with steps ``1 / (1 / learning_rate + scale * sqrt(t + tau))``.

    t counts commits from 1. The delay matters early, while t is not much larger than it. Per
    coordinate, ``scale`` is multiplied by the root mean square of the gradients, in which
    gradient r counts ``r / (r + tau_r)``.

    Args:
      learning_rate: the inverse of the loss's smoothness: a number > 0, or a schedule of the
        commits.
      scale: >= 0; 0 leaves steps of ``learning_rate``.
      per_coordinate: see :func:`async_optax.transforms.scale_by_adadelay`; one copy of the
        parameters.

    Returns:
      A transformation for any protocol; ``update`` requires ``staleness``, of which a commit
      takes the largest.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx, g = adadelay(1.0, scale=1.0), jnp.array([2.0])
      >>> print(tx.update(g, tx.init(g), staleness=8)[0])
      [-0.5]

    References:
      Sra, Yu, Li, Smola, `AdaDelay: Delay Adaptive Distributed Stochastic Optimization
      <https://arxiv.org/abs/1508.05003>`_, 2016. Certainty: our reading. The projection onto
      the domain is left out.
    """
    require_learning_rate(learning_rate)
    if per_coordinate:
        return accumulate_until_commit(scale_by_adadelay(learning_rate, scale))
    return accumulate_until_commit(
        scale_by_staleness_schedule(schedules.adadelay(learning_rate, scale))
    )
