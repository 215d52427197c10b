"""Training on a constant global batch, whatever the workers' speeds."""

from collections.abc import Callable

import optax
from jax.typing import ArrayLike

from async_optax.optimizers.registry import register
from async_optax.transforms import accumulate_until_commit, scale_by_staleness, weights
from async_optax.validation import require_learning_rate


@register
def gba(
    learning_rate: optax.ScalarOrSchedule,
    max_staleness: ArrayLike = 4,
    server: Callable[..., optax.GradientTransformation] = optax.sgd,
) -> optax.GradientTransformationExtraArgs:
    """One step per global batch, without its gradients that are too stale.

    The server gathers M gradients, as many as make up the synchronous batch, and gives
    ``sum over tau_i <= max_staleness of g_i / M`` to its optimizer. The divisor stays M, so
    that dropped gradients shrink the step. Optimizer and learning rate are those of synchronous
    training: nothing is retuned when a run switches between the two. Meant for
    ``buffered(M, wait=False)``.

    Args:
      learning_rate: a number > 0, or a schedule of the commits.
      max_staleness: the tolerance, >= 0, in versions; 3 or 4 in the paper, as far as we recall.
      server: ``server(learning_rate)`` is the server's optimizer, such as ``optax.adam``.

    Returns:
      A transformation for any protocol; ``update`` requires ``staleness``.

    Raises:
      TypeError: if ``server`` is not callable.
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx, g = gba(1.0, max_staleness=2), jnp.array([2.0])
      >>> _, state = tx.update(g, tx.init(g), staleness=3, commit=False, weight=0.5)
      >>> print(tx.update(g, state, staleness=0, commit=True, weight=0.5)[0])
      [-1.]

    References:
      Su et al., `GBA: A Tuning-free Approach to Switch between Synchronous and Asynchronous
      Training for Recommendation Models <https://arxiv.org/abs/2205.11048>`_, 2022. Certainty:
      our reading. They measure how old the data's token is, we here the version that was read;
      a protocol that hands out tokens drops by their age through its weights of 0. Averages
      per embedding row are not included.
    """
    require_learning_rate(learning_rate)
    if not callable(server):
        raise TypeError(f"server must be a function such as optax.adam, got {server!r}")
    return optax.chain(
        scale_by_staleness(weights.cutoff(max_staleness)),
        accumulate_until_commit(server(learning_rate)),
    )
