"""What classifiers are judged by."""

import jax
import jax.numpy as jnp


def confusion(logits: jax.Array, labels: jax.Array, counts: jax.Array) -> jax.Array:
    """Counts what was predicted for what.

    Args:
      logits: ``[batch, num_classes]``.
      labels: integers ``[batch]``.
      counts: of each example, ``[batch]``.

    Returns:
      ``[num_classes, num_classes]``: row, the label; column, the class with the largest logit.
    """
    num_classes = logits.shape[-1]
    truth = jax.nn.one_hot(labels, num_classes) * counts[:, jnp.newaxis]
    return truth.T @ jax.nn.one_hot(jnp.argmax(logits, axis=-1), num_classes)


def confusion_metrics(matrix: jax.Array) -> dict[str, jax.Array]:
    """Returns ``accuracy``, and for two classes ``f1`` (of class 1) and ``matthews_correlation``.

    A ratio of 0 to 0 is 0, as in GLUE's own scripts.

    Args:
      matrix: see :func:`confusion`.

    Example:
      >>> metrics = confusion_metrics(jnp.array([[3.0, 1.0], [0.0, 4.0]]))
      >>> {name: f"{value:.3f}" for name, value in metrics.items()}
      {'accuracy': '0.875', 'f1': '0.889', 'matthews_correlation': '0.775'}
    """
    metrics = {"accuracy": jnp.trace(matrix) / jnp.sum(matrix)}
    if len(matrix) == 2:
        (tn, fp), (fn, tp) = matrix
        metrics["f1"] = _ratio(2 * tp, 2 * tp + fp + fn)
        # The root of each factor: the product of four counts may be too large for a float32.
        sizes = jnp.stack([tp + fp, tp + fn, tn + fp, tn + fn])
        metrics["matthews_correlation"] = _ratio(tp * tn - fp * fn, jnp.prod(jnp.sqrt(sizes)))
    return metrics


def _ratio(above: jax.Array, below: jax.Array) -> jax.Array:
    return jnp.where(below > 0, above / jnp.where(below > 0, below, 1), 0.0)
