"""The area under the ROC curve, exact."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

MAX_SIZE = 2**20  # below, no sum of counts leaves int32
_SPLIT = 2**12


def auc(scores: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Returns the share of pairs of a positive and a negative that the scores put in order.

    ``(number of pairs with s_positive > s_negative + half of those with a tie) / (P * N)``, P and N
    the numbers of positives and negatives: by ranks, all counts in integers, so that the only
    rounding is that of the result.

    Args:
      scores: float ``[num_examples]``, at most 2**20.
      labels: ``[num_examples]``, 1 or true for a positive, 0 or false for a negative.

    Returns:
      A float scalar in [0, 1]; NaN if there is no positive, no negative, or a score is NaN.

    Raises:
      ValueError: if the shapes differ or there are too many.

    Example:
      >>> import jax.numpy as jnp
      >>> print(auc(jnp.array([0.1, 0.4, 0.4, 0.9]), jnp.array([0, 0, 1, 1])))
      0.875

    References:
      Hanley, McNeil, `The meaning and use of the area under a receiver operating characteristic
      curve <https://doi.org/10.1148/radiology.143.1.7063747>`_, 1982.
    """
    scores, labels = jnp.asarray(scores), jnp.asarray(labels)
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise ValueError(
            f"scores and labels must be vectors alike, got {scores.shape} and {labels.shape}"
        )
    if scores.size > MAX_SIZE:
        raise ValueError(f"scores must be at most {MAX_SIZE}, got {scores.size}")
    order = jnp.argsort(scores)
    ranked, positive = scores[order], labels[order] != 0
    place = jnp.arange(scores.size, dtype=jnp.int32)
    first = jnp.append(jnp.ones(1, bool), ranked[1:] != ranked[:-1])  # of a group of ties
    last = jnp.append(first[1:], jnp.ones(1, bool))
    start = jax.lax.cummax(jnp.where(first, place, 0))
    end = jax.lax.cummin(jnp.where(last, place + 1, scores.size), reverse=True)
    negatives = jnp.cumsum(jnp.append(jnp.zeros(1, jnp.int32), (~positive).astype(jnp.int32)))
    # Twice the number of negatives below, ties by half. Two sums: one could overflow.
    below = jnp.where(positive, negatives[start] + negatives[end], 0)
    high, low = jnp.sum(below // _SPLIT), jnp.sum(below % _SPLIT)
    num_negatives = negatives[-1].astype(float)
    num_positives = scores.size - num_negatives
    pairs = 2.0 * num_positives * num_negatives
    share = (high.astype(float) * _SPLIT + low.astype(float)) / pairs
    return jnp.where(jnp.isnan(ranked[-1:]).any(), jnp.nan, share)
