"""Training on a constant global batch, whatever the workers' speeds."""

from collections.abc import Callable

import optax
from jax.typing import ArrayLike

from async_optax.optimizers.registry import register
from async_optax.transforms import (
    accumulate_until_commit,
    average_touched_rows,
    scale_by_staleness,
    weights,
)
from async_optax.transforms.touched_rows import Tables
from async_optax.validation import require_learning_rate


@register
def gba(
    learning_rate: optax.ScalarOrSchedule,
    max_staleness: ArrayLike | None = 4,
    server: Callable[..., optax.GradientTransformation] = optax.sgd,
    per_row: Tables | None = None,
    lazy: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """One step per global batch, without its gradients that are too stale.

    With N_s workers of batch B_s in synchronous training and batches of B_a here, the server
    gathers ``M = N_s * B_s / B_a`` gradients, the synchronous batch, and gives
    ``sum over tau_i <= max_staleness of g_i / M`` to its optimizer. The divisor stays M, so
    that dropped gradients shrink the step. Rows of embedding tables (``per_row``) are instead
    averaged over those of the gradients that touched them. Optimizer and learning rate are those
    of synchronous training: nothing is retuned when a run switches between the two. Meant for
    ``token_control(M)``, which also drops by the age of the data, or ``buffered(M, wait=False)``.

    Args:
      learning_rate: a number > 0, or a schedule of the commits.
      max_staleness: the tolerance, >= 0, in versions; 3 or 4 in the paper, as far as we recall.
        ``None`` leaves dropping to the protocol.
      server: ``server(learning_rate)`` is the server's optimizer, such as ``optax.adam``.
      per_row: which parameters are embedding tables, as a function of the path or a pytree of
        booleans; see :func:`async_optax.transforms.average_touched_rows`. ``None``: none are.
      lazy: whether rows of tables that no gradient of a commit touched stay where they are,
        their moments included.

    Returns:
      A transformation for any protocol; ``update`` requires ``staleness`` unless
      ``max_staleness`` is ``None``.

    Raises:
      TypeError: if ``server`` is not callable, or ``lazy`` no boolean.
      ValueError: if a number is out of range, or ``lazy`` is set without ``per_row``.

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
      a protocol that hands out tokens drops by their age through its weights of 0.
    """
    require_learning_rate(learning_rate)
    if not callable(server):
        raise TypeError(f"server must be a function such as optax.adam, got {server!r}")
    if per_row is not None:
        gather = average_touched_rows(server(learning_rate), per_row, lazy, "per_row")
    elif lazy:
        raise ValueError("lazy=True is about tables: say with per_row which parameters they are")
    else:
        gather = accumulate_until_commit(server(learning_rate))
    if max_staleness is None:
        return gather
    return optax.chain(scale_by_staleness(weights.cutoff(max_staleness)), gather)
