"""Handwritten digits: scikit-learn's embedded data set and a small multilayer perceptron."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from async_optax.engine import Problem
from async_optax.problems.widths import require_widths
from async_optax.validation import require_count

_TEST_SIZE = 360


def digits(hidden: Sequence[int] = (64, 64), batch_size: int = 16) -> Problem:
    """Classifies 8x8 images of digits with a multilayer perceptron.

    1437 training and 360 test images, split by a fixed permutation; pixels are scaled to
    [0, 1]. The loss is the mean cross-entropy of a batch drawn with replacement; hidden
    layers are rectified and start from He's initialisation. ``evaluate`` returns ``accuracy``
    and ``test_loss`` on the test images.

    Args:
      hidden: widths of the hidden layers.
      batch_size: images per gradient, >= 1.

    Returns:
      A problem without noise.

    Raises:
      ImportError: if scikit-learn is not installed.
      TypeError: if ``hidden`` is not a sequence of integers, or ``batch_size`` no integer.
      ValueError: if a size is below 1.

    Example:
      >>> import jax
      >>> problem = digits()
      >>> params = problem.init(jax.random.key(0))
      >>> sorted(problem.evaluate(params))
      ['accuracy', 'test_loss']
    """
    require_widths(hidden)
    require_count("batch_size", batch_size)
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "the digits problem needs scikit-learn: pip install 'async_optax[experiments]'"
        ) from error
    images, labels = load_digits(return_X_y=True)
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(images))
    images = jnp.asarray(images[order] / 16, jnp.float32)
    labels = jnp.asarray(labels[order], jnp.int32)
    return Problem(
        init=Partial(_init, (64, *hidden, 10)),
        loss=_loss,
        batch=Partial(_sample, batch_size, images[_TEST_SIZE:], labels[_TEST_SIZE:]),
        evaluate=Partial(_evaluate, images[:_TEST_SIZE], labels[:_TEST_SIZE]),
    )


def _init(widths: tuple[int, ...], key: jax.Array) -> list[dict[str, jax.Array]]:
    keys = jax.random.split(key, len(widths) - 1)
    return [
        {
            "kernel": jax.random.normal(k, (fan_in, fan_out)) * np.sqrt(2 / fan_in),
            "bias": jnp.zeros(fan_out),
        }
        for k, fan_in, fan_out in zip(keys, widths[:-1], widths[1:], strict=True)
    ]


def _logits(params: Any, images: jax.Array) -> jax.Array:
    hidden = images
    for layer in params[:-1]:
        hidden = jax.nn.relu(hidden @ layer["kernel"] + layer["bias"][jnp.newaxis])
    return hidden @ params[-1]["kernel"] + params[-1]["bias"][jnp.newaxis]


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    log_probabilities = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.take_along_axis(log_probabilities, labels[:, None], axis=1))


def _loss(params: Any, batch: tuple[jax.Array, jax.Array], key: jax.Array) -> jax.Array:
    del key
    images, labels = batch
    return _cross_entropy(_logits(params, images), labels)


def _sample(
    batch_size: int, images: jax.Array, labels: jax.Array, key: jax.Array, worker: jax.Array
) -> tuple[jax.Array, jax.Array]:
    del worker  # all workers draw from the same data
    rows = jax.random.randint(key, (batch_size,), 0, len(images))
    return images[rows], labels[rows]


def _evaluate(images: jax.Array, labels: jax.Array, params: Any) -> dict[str, jax.Array]:
    logits = _logits(params, images)
    return {
        "accuracy": jnp.mean(jnp.argmax(logits, axis=1) == labels),
        "test_loss": _cross_entropy(logits, labels),
    }
