"""Asynchronous gradient descent with delay compensation."""

import optax
from jax.typing import ArrayLike

from async_optax.optimizers.registry import register
from async_optax.transforms import accumulate_until_commit, compensate_delay
from async_optax.validation import require_learning_rate


@register
def dc_asgd(
    learning_rate: optax.ScalarOrSchedule, strength: ArrayLike = 0.04
) -> optax.GradientTransformationExtraArgs:
    """DC-ASGD with constant strength: every arrival gets a Taylor correction for its delay.

    ``x <- x - learning_rate * (g + strength * g*g*(x - s))``.

    s are the parameters that the gradient g was computed on, x the server's; products are
    element-wise.

    Args:
      learning_rate: a number > 0, or a schedule of the commits.
      strength: >= 0. The default is what MXNet ships and, as far as we recall, the
        paper's choice for CIFAR-10.

    Returns:
      A transformation for any protocol; ``update`` requires ``params`` and ``stale_params``.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx, x = dc_asgd(0.5, strength=1.0), jnp.array([1.0])
      >>> print(tx.update(2 * x, tx.init(x), x, stale_params=x / 2)[0])
      [-2.]

    References:
      Zheng et al., `Asynchronous Stochastic Gradient Descent with Delay Compensation
      <https://arxiv.org/abs/1609.08326>`_, 2017 (DC-ASGD-c). MXNet keeps one previous copy of
      the parameters for all workers; here s is what this worker read, as in the paper.
    """
    require_learning_rate(learning_rate)
    return optax.chain(
        compensate_delay(strength), accumulate_until_commit(optax.sgd(learning_rate))
    )
