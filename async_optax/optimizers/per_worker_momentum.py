"""Asynchronous momentum methods with one momentum per worker."""

import optax
from jax.typing import ArrayLike

from async_optax.optimizers.registry import register
from async_optax.transforms import accumulate_until_commit, trace_per_worker
from async_optax.validation import require_learning_rate


@register(static_argnames=("num_workers",))
def multi_momentum(
    learning_rate: optax.ScalarOrSchedule, num_workers: int, momentum: ArrayLike = 0.9
) -> optax.GradientTransformationExtraArgs:
    """Heavy-ball momentum with one buffer per worker (Multi-ASGD).

    ``v_j <- momentum * v_j + g``, ``x <- x - learning_rate * v_j`` for the worker j that
    delivers g.

    Args:
      learning_rate: a number > 0, or a schedule of the commits.
      num_workers: number of workers, >= 1; one copy of the parameters each.
      momentum: in [0, 1).

    Returns:
      A transformation for any protocol; ``update`` requires ``worker``.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx, g = multi_momentum(1.0, num_workers=2, momentum=0.5), jnp.array([2.0])
      >>> _, state = tx.update(g, tx.init(g), worker=0)
      >>> print(tx.update(g, state, worker=0)[0], tx.update(g, state, worker=1)[0])
      [-3.] [-2.]

    References:
      Hakimi, Barkai, Gabel, Schuster, `Taming Momentum in a Distributed Asynchronous
      Environment <https://arxiv.org/abs/1907.11612>`_, 2019, a baseline there. Certainty: memory.
    """
    require_learning_rate(learning_rate)
    return optax.chain(
        trace_per_worker(num_workers, momentum), accumulate_until_commit(optax.sgd(learning_rate))
    )


@register(static_argnames=("num_workers",))
def dana(
    learning_rate: optax.ScalarOrSchedule, num_workers: int, momentum: ArrayLike = 0.9
) -> optax.GradientTransformationExtraArgs:
    """DANA-Slim: Nesterov momentum with one buffer per worker.

    ``v_j <- momentum * v_j + g``, ``x <- x - learning_rate * (g + momentum * v_j)`` for the
    worker j that delivers g. x is the point that DANA-Zero looks ahead to: its parameters minus
    ``learning_rate * momentum * sum_i v_i``, where the momentum in flight will have led. The two
    are equal for a constant learning rate; a change of it shifts x by the old momentum once.

    Args:
      learning_rate: a number > 0, or a schedule of the commits.
      num_workers: number of workers, >= 1; one copy of the parameters each.
      momentum: in [0, 1).

    Returns:
      A transformation for any protocol; ``update`` requires ``worker``.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx, g = dana(1.0, num_workers=2, momentum=0.5), jnp.array([2.0])
      >>> print(tx.update(g, tx.init(g), worker=0)[0])
      [-3.]

    References:
      Hakimi, Barkai, Gabel, Schuster, `Taming Momentum in a Distributed Asynchronous
      Environment <https://arxiv.org/abs/1907.11612>`_, 2019. Certainty: full text; equality with
      DANA-Zero, which serves the look-ahead from a sum of all momenta, confirmed numerically.
    """
    require_learning_rate(learning_rate)
    return optax.chain(
        trace_per_worker(num_workers, momentum, nesterov=True),
        accumulate_until_commit(optax.sgd(learning_rate)),
    )
