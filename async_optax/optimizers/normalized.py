"""Asynchronous normalised descent: every step has one length."""

import optax
from jax.typing import ArrayLike

from async_optax.optimizers.registry import register
from async_optax.transforms import accumulate_until_commit, scale_by_normalized_momentum
from async_optax.validation import require_learning_rate


@register
def normalized_momentum_sgd(
    learning_rate: optax.ScalarOrSchedule,
    momentum: ArrayLike | optax.Schedule = 0.9,
    eps: ArrayLike = 1e-10,
) -> optax.GradientTransformationExtraArgs:
    """Normalised descent along the running mean of stale gradients.

    ``m <- momentum * m + (1 - momentum) * g``, ``x <- x - learning_rate * m / (norm(m) + eps)``.
    Every commit moves x by ``learning_rate``, however heavy the noise: there is no threshold to
    tune, and the drift during a delay of tau versions is at most ``tau * learning_rate``.

    Args:
      learning_rate: a number > 0, or a schedule of the commits: the length of a step, in the
        units of the parameters.
      momentum: in [0, 1), or a schedule of the commits.
      eps: > 0; that of the Ringmaster group's code.

    Returns:
      A transformation for any protocol.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx, x = normalized_momentum_sgd(0.5), jnp.zeros(2)
      >>> print(tx.update(jnp.array([3e20, -4e20]), tx.init(x), x)[0])
      [-0.3  0.4]

    References:
      Wu, Luo, `Optimal Asynchronous Stochastic Nonconvex Optimization under Heavy-Tailed Noise
      <https://arxiv.org/abs/2601.19379>`_, 2026. Certainty: abstract. The rule is that of public
      code of the Ringmaster group, a sibling; they also ignore gradients staler than a bound,
      which here is the protocol's affair, and offer a choice without tuning, in schedules of the
      commits t from 0: ``learning_rate=lambda t: eta * (t + 1.0)**-0.75`` and
      ``momentum=lambda t: 1 - jnp.maximum(t, 1.0)**-0.5``.
    """
    require_learning_rate(learning_rate)
    return accumulate_until_commit(
        optax.chain(
            scale_by_normalized_momentum(momentum, eps),
            optax.scale_by_learning_rate(learning_rate),
        )
    )
