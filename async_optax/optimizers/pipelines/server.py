"""What the methods for pipelines share: their server."""

from typing import Any

import optax
from jax.typing import ArrayLike

from async_optax.transforms import clip_by_global_norm
from async_optax.transforms.precision import in_working_dtype
from async_optax.validation import require_learning_rate, require_number


def adam(b1: ArrayLike, b2: ArrayLike, eps: ArrayLike) -> optax.GradientTransformation:
    """Adam's direction, in at least float32; raises ``ValueError`` if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx, g = adam(0.9, 0.999, 1e-8), jnp.array([4.0])
      >>> print(tx.update(g, tx.init(g))[0].round(3))
      [1.]
    """
    require_number("b1", b1, at_least=0, below=1)
    require_number("b2", b2, at_least=0, below=1)
    require_number("eps", eps, above=0)
    return in_working_dtype(optax.scale_by_adam(b1, b2, eps))


def decoupled(
    direction: optax.GradientTransformation,
    learning_rate: optax.ScalarOrSchedule,
    weight_decay: ArrayLike,
    max_norm: ArrayLike | None,
    discount: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Clip, direction, decoupled weight decay, and a learning rate that may be discounted.

    Args:
      direction: what normalises.
      learning_rate: a number > 0, or a schedule of the updates.
      weight_decay: >= 0.
      max_norm: > 0, largest norm of the gradient of all stages, or ``None``. No asynchronous
        pipeline knows it at once: stages finish an update at different times. It is what the
        methods were published with; a norm of each stage is ``transform_stages(lambda delay,
        largest: clip_by_global_norm(max_norm))`` before ``direction``.
      discount: what scales steps, weight decay included.

    Returns:
      A transformation; ``update`` requires ``params``.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> tx, x = decoupled(optax.identity(), 0.5, 0.1, max_norm=2.0), jnp.array([10.0])
      >>> print(tx.update(4 * x, tx.init(x), x)[0])  # -0.5 * (2 + 0.1 * 10)
      [-1.5]
    """
    require_learning_rate(learning_rate)
    require_number("weight_decay", weight_decay, at_least=0)
    parts: list[Any] = [] if max_norm is None else [clip_by_global_norm(max_norm)]
    parts += [direction, optax.add_decayed_weights(weight_decay)]
    parts += [] if discount is None else [discount]
    return optax.chain(*parts, optax.scale_by_learning_rate(learning_rate))
