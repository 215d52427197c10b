"""Nesterov methods for delayed gradients, as in asynchronous pipelines."""

import optax
from jax.typing import ArrayLike

from async_optax.optimizers.registry import register
from async_optax.transforms import (
    accumulate_until_commit,
    scale_by_nadam_delayed,
    trace_nesterov_delayed,
)
from async_optax.validation import require_learning_rate, require_number


@register
def nesterov_delayed(
    learning_rate: optax.ScalarOrSchedule, momentum: ArrayLike | optax.Schedule = 0.99
) -> optax.GradientTransformationExtraArgs:
    """Nesterov momentum whose discount of the gradient makes up for its delay.

    ``v <- momentum * v + (1 - momentum) * g``,
    ``x <- x - learning_rate * (momentum * v + (1 - momentum) * g)``, where x, which workers
    read, is the look-ahead point.

    Args:
      learning_rate: a number > 0, or a schedule of the commits.
      momentum: in [0, 1), or a schedule of the commits; the authors' practical method has 0.99,
        their theory ``(t - 2) / t`` with t from
        1: ``lambda t: jnp.maximum(t - 1.0, 0) / (t + 1.0)``.

    Returns:
      A transformation for any protocol.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx, g = nesterov_delayed(1.0, momentum=0.5), jnp.array([4.0])
      >>> print(tx.update(g, tx.init(g))[0])
      [-3.]

    References:
      Ajanthan et al., `Nesterov Method for Asynchronous Pipeline Parallel Optimization
      <https://arxiv.org/abs/2505.01099>`_, 2025. Certainty: full text. In this form, confirmed
      numerically, it is Nesterov SGD with the learning rate times ``1 - momentum``.
    """
    require_learning_rate(learning_rate)
    return accumulate_until_commit(
        optax.chain(trace_nesterov_delayed(momentum), optax.scale_by_learning_rate(learning_rate))
    )


@register
def nadam_delayed(
    learning_rate: optax.ScalarOrSchedule,
    b1: ArrayLike = 0.99,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    momentum_decay: ArrayLike = 0.004,
    weight_decay: ArrayLike = 0.01,
) -> optax.GradientTransformationExtraArgs:
    """NAdamW with b1 = 0.99: the practical form of Nesterov's method for delayed gradients.

    ``x <- x - learning_rate * (d + weight_decay * x)``, where d is the direction of
    :func:`async_optax.transforms.scale_by_nadam_delayed`, whose factor ``1 - mu_t`` discounts
    the incoming gradient.

    Args:
      learning_rate: a number > 0, or a schedule of the commits.
      b1: in [0, 1); 0.99 is the authors'.
      b2: in [0, 1).
      eps: > 0.
      momentum_decay: >= 0; 0.004 is PyTorch's.
      weight_decay: >= 0, decoupled; 0.01 is the authors'.

    Returns:
      A transformation for any protocol; ``update`` requires ``params``.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx, x = nadam_delayed(0.1, weight_decay=0.0), jnp.array([4.0])
      >>> print((10 * tx.update(x, tx.init(x), x)[0]).round())
      [-1.]

    References:
      Ajanthan et al., `Nesterov Method for Asynchronous Pipeline Parallel Optimization
      <https://arxiv.org/abs/2505.01099>`_, 2025. Certainty: authors' code. The rule is that of
      ``torch.optim.NAdam`` with ``decoupled_weight_decay``; ``optax.nadamw`` has no momentum
      schedule.
    """
    require_learning_rate(learning_rate)
    require_number("weight_decay", weight_decay, at_least=0)
    return accumulate_until_commit(
        optax.chain(
            scale_by_nadam_delayed(b1, b2, eps, momentum_decay),
            optax.add_decayed_weights(weight_decay),
            optax.scale_by_learning_rate(learning_rate),
        )
    )
