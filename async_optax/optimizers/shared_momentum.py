"""Asynchronous momentum methods with one buffer for all workers."""

import optax
from jax.typing import ArrayLike

from async_optax.optimizers.registry import register
from async_optax.transforms import accumulate_until_commit, look_ahead, trace_smega2
from async_optax.validation import require_learning_rate, require_number


@register
def momentum_sgd(
    learning_rate: optax.ScalarOrSchedule, momentum: ArrayLike = 0.9, nesterov: bool = False
) -> optax.GradientTransformationExtraArgs:
    """Momentum that ignores staleness, one buffer for all workers.

    ``v <- momentum * v + g``, ``x <- x - learning_rate * v``; with ``nesterov`` the step is along
    ``g + momentum * v``, and x is the look-ahead point. The baseline that breaks first: stale
    gradients and momentum multiply each other's delay.

    Args:
      learning_rate: a number > 0, or a schedule of the commits.
      momentum: in [0, 1).
      nesterov: whether to look ahead.

    Returns:
      A transformation for any protocol.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx, g = momentum_sgd(1.0, momentum=0.5, nesterov=True), jnp.array([2.0])
      >>> print(tx.update(g, tx.init(g))[0])
      [-3.]

    References:
      Momentum-ASGD and NAG-ASGD in Hakimi, Barkai, Gabel, Schuster, `Taming Momentum in a
      Distributed Asynchronous Environment <https://arxiv.org/abs/1907.11612>`_, 2019.
      Certainty: memory.
    """
    require_learning_rate(learning_rate)
    require_number("momentum", momentum, at_least=0, below=1)
    return accumulate_until_commit(optax.sgd(learning_rate, momentum, nesterov))


@register
def linear_weight_prediction(
    learning_rate: optax.ScalarOrSchedule, num_steps: ArrayLike, momentum: ArrayLike = 0.9
) -> optax.GradientTransformationExtraArgs:
    """Momentum whose workers compute on the parameters predicted for their arrival (LWP).

    ``v <- momentum * v + g``, ``x <- x - learning_rate * v``; workers read
    ``x - num_steps * learning_rate * v``.

    Args:
      learning_rate: a number > 0, or a schedule of the commits.
      num_steps: n >= 0, the expected staleness: the number of workers - 1.
      momentum: in [0, 1).

    Returns:
      A transformation for any protocol, whose state
      :func:`async_optax.transforms.served_params` reads.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from async_optax.transforms import served_params
      >>> tx, x = linear_weight_prediction(0.5, num_steps=3), jnp.array([1.0])
      >>> updates, state = tx.update(jnp.array([0.5]), tx.init(x), x)
      >>> print(x + updates, served_params(x + updates, state))
      [0.75] [0.]

    References:
      The baseline LWP in Hakimi, Barkai, Gabel, Schuster, `Taming Momentum in a Distributed
      Asynchronous Environment <https://arxiv.org/abs/1907.11612>`_, 2019. Certainty: memory.
      For optimizers other than momentum see :func:`async_optax.transforms.look_ahead`.
    """
    require_learning_rate(learning_rate)
    require_number("momentum", momentum, at_least=0, below=1)
    return accumulate_until_commit(look_ahead(optax.sgd(learning_rate, momentum), num_steps))


@register(static_argnames=("num_workers",))
def smega2(
    learning_rate: optax.ScalarOrSchedule,
    num_workers: int,
    momentum: ArrayLike = 0.9,
    advanced: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """Momentum refreshed once per N arrivals, looked ahead by what N workers will do with it.

    With c counting arrivals modulo N: ``x <- x - learning_rate * (g + momentum * v)``, and at
    c = 0 ``v <- momentum * v + mean of the last N gradients``. Workers read the point that
    :func:`async_optax.transforms.trace_smega2` gives.

    Args:
      learning_rate: a number > 0, or a schedule of the commits.
      num_workers: N >= 1.
      momentum: in [0, 1).
      advanced: whether the look-ahead counts the arrivals of the unfinished round.

    Returns:
      A transformation for any protocol, whose state
      :func:`async_optax.transforms.served_params` reads.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx, g = smega2(1.0, num_workers=1, momentum=0.5), jnp.array([2.0])
      >>> updates, state = tx.update(g, tx.init(g))
      >>> print(updates, tx.update(g, state)[0])
      [-2.] [-3.]

    References:
      Cohen, Hakimi, Schuster, `SMEGA2: Distributed Asynchronous Deep Neural Network Training
      With a Single Momentum Buffer <https://dl.acm.org/doi/10.1145/3545008.3545010>`_, 2022.
      Certainty: authors' code.
    """
    require_learning_rate(learning_rate)
    return optax.chain(
        trace_smega2(num_workers, learning_rate, momentum, advanced),
        accumulate_until_commit(optax.sgd(learning_rate)),
    )
