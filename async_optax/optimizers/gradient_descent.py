"""Plain, clipped and delay-weighted asynchronous gradient descent."""

import optax
from jax.typing import ArrayLike

from async_optax.optimizers.registry import register
from async_optax.transforms import (
    accumulate_until_commit,
    clip_by_global_norm,
    scale_by_staleness,
    weights,
)
from async_optax.validation import require_learning_rate


@register
def sgd(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
    """Gradient descent that ignores staleness: ``x <- x - learning_rate * g``.

    Under a protocol that gathers arrivals, g is their weighted sum. With synchronous workers
    this is minibatch SGD, with immediate restarts it is asynchronous SGD.

    Args:
      learning_rate: a number > 0, or a schedule of the commits.

    Returns:
      A transformation for any protocol.

    Raises:
      ValueError: if ``learning_rate`` is not a finite number > 0.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = sgd(0.5)
      >>> print(tx.update(jnp.array([2.0]), tx.init(jnp.array([0.0])))[0])
      [-1.]

    References:
      Recht, Re, Wright, Niu, `Hogwild! <https://arxiv.org/abs/1106.5730>`_, 2011. Certainty:
      full text; theirs updates single coordinates without locks.
    """
    require_learning_rate(learning_rate)
    return accumulate_until_commit(optax.sgd(learning_rate))


@register
def clipped_sgd(
    learning_rate: optax.ScalarOrSchedule, max_norm: ArrayLike = 1.0
) -> optax.GradientTransformationExtraArgs:
    """Asynchronous SGD with the norm of every arrival clipped.

    ``x <- x - learning_rate * g * min(1, c / norm(g))``. In-flight gradients can move the
    server by at most ``learning_rate * c * concurrency``, whatever the delays.

    Args:
      learning_rate: a number > 0, or a schedule of the commits.
      max_norm: the clipping radius c > 0, in gradient units.

    Returns:
      A transformation for any protocol.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = clipped_sgd(0.5, max_norm=1.0)
      >>> print(tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))[0])
      [-0.3 -0.4]

    References:
      Erickson, Johansson, `Clipping Makes Distributed and Federated Asynchronous SGD Robust
      to Stragglers <https://arxiv.org/abs/2606.13287>`_, 2026, Algorithm 1.
      Certainty: full text.
    """
    require_learning_rate(learning_rate)
    return optax.chain(
        clip_by_global_norm(max_norm), accumulate_until_commit(optax.sgd(learning_rate))
    )


@register
def staleness_aware_sgd(
    learning_rate: optax.ScalarOrSchedule,
) -> optax.GradientTransformationExtraArgs:
    """Asynchronous SGD with steps divided by the staleness.

    ``x <- x - learning_rate / max(tau, 1) * g``; when the server gathers arrivals, each is
    weighted by its own staleness.

    Args:
      learning_rate: a number > 0, or a schedule of the commits.

    Returns:
      A transformation for any protocol; ``update`` requires ``staleness``.

    Raises:
      ValueError: if ``learning_rate`` is not a finite number > 0.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = staleness_aware_sgd(0.5)
      >>> print(tx.update(jnp.array([2.0]), tx.init(jnp.zeros(1)), staleness=4)[0])
      [-0.25]

    References:
      Zhang, Gupta, Lian, Liu, `Staleness-aware Async-SGD for Distributed Deep Learning
      <https://arxiv.org/abs/1511.05950>`_, 2016. Certainty: full text.
    """
    return _weighted_sgd(learning_rate, weights.inverse())


@register
def delay_adaptive_sgd(
    learning_rate: optax.ScalarOrSchedule, num_workers: ArrayLike
) -> optax.GradientTransformationExtraArgs:
    """Asynchronous SGD that takes full steps up to the usual staleness and smaller ones beyond.

    ``x <- x - learning_rate * n / max(n, tau + 1) * g``.

    Args:
      learning_rate: a number > 0, or a schedule of the commits.
      num_workers: n >= 1, the number of jobs in flight.

    Returns:
      A transformation for any protocol; ``update`` requires ``staleness``.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = delay_adaptive_sgd(0.5, num_workers=4)
      >>> print(tx.update(jnp.array([2.0]), tx.init(jnp.zeros(1)), staleness=7)[0])
      [-0.5]

    References:
      Mishchenko, Bach, Even, Woodworth, `Asynchronous SGD Beats Minibatch SGD Under
      Arbitrary Delays <https://arxiv.org/abs/2206.07638>`_, 2022. Certainty:
      authors' code. Their delay is tau + 1.
    """
    return _weighted_sgd(learning_rate, weights.concurrency(num_workers))


@register
def ringmaster_sgd(
    learning_rate: optax.ScalarOrSchedule, max_staleness: ArrayLike
) -> optax.GradientTransformationExtraArgs:
    """Asynchronous SGD that ignores gradients above a staleness.

    ``x <- x - learning_rate * g`` if ``tau <= R``, else x stays.

    Args:
      learning_rate: a number > 0, or a schedule of the commits.
      max_staleness: R >= 0, in versions. Theory suggests ``ceil(sigma**2 / eps)`` for gradient
        variance ``sigma**2`` and target ``norm(gradient)**2 <= eps`` (from memory).

    Returns:
      A transformation for any protocol; ``update`` requires ``staleness``.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = ringmaster_sgd(0.5, max_staleness=4)
      >>> print(tx.update(jnp.array([2.0]), tx.init(jnp.zeros(1)), staleness=5)[0])
      [-0.]

    References:
      Maranjyan, Tyurin, Richtarik, `Ringmaster ASGD: The First Asynchronous SGD with Optimal
      Time Complexity <https://arxiv.org/abs/2501.16168>`_, 2025, the variant without stops.
      Certainty: authors' code. Theirs accepts tau < R. An ignored arrival still counts as a
      commit here; a protocol that rejects it does not let it count.
    """
    return _weighted_sgd(learning_rate, weights.cutoff(max_staleness))


def _weighted_sgd(
    learning_rate: optax.ScalarOrSchedule, weight_fn: weights.WeightFn
) -> optax.GradientTransformationExtraArgs:
    require_learning_rate(learning_rate)
    return optax.chain(
        scale_by_staleness(weight_fn), accumulate_until_commit(optax.sgd(learning_rate))
    )
