"""Handwritten digits as sequences: a small transformer on scikit-learn's embedded data set."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from async_optax.engine import Problem
from async_optax.problems.digits import digits
from async_optax.validation import require_count

_TOKENS, _PIXELS, _CLASSES = 8, 8, 10


def attention(
    num_layers: int = 1, width: int = 16, num_heads: int = 2, batch_size: int = 16
) -> Problem:
    """Classifies 8x8 images of digits, read as eight rows of eight pixels, with a transformer.

    Images, split and batches are those of :func:`async_optax.problems.digits`. Each row is
    embedded linearly and gets a learned position; every layer adds self-attention over the rows
    and then a rectified perceptron four times as wide, both on normalised inputs (pre-norm);
    the classes are read off the normalised mean over rows. Weights start normal with variance
    one over their inputs (twice that before a rectifier), positions with variance 1/width. The
    loss is the mean cross-entropy; ``evaluate`` returns ``accuracy`` and ``test_loss``.

    Args:
      num_layers: number of layers, >= 1.
      width: size of an embedded row, a multiple of ``num_heads``.
      num_heads: number of attention heads, >= 1.
      batch_size: images per gradient, >= 1.

    Returns:
      A problem without noise.

    Raises:
      ImportError: if scikit-learn is not installed.
      ValueError: if a size is below 1 or the heads do not divide the width.

    Example:
      >>> import jax
      >>> problem = attention()
      >>> params = problem.init(jax.random.key(0))
      >>> sum(x.size for x in jax.tree.leaves(params))
      3754

    References:
      Vaswani et al., `Attention Is All You Need <https://arxiv.org/abs/1706.03762>`_, 2017;
      normalised before each block as in Xiong et al., `On Layer Normalization in the
      Transformer Architecture <https://arxiv.org/abs/2002.04745>`_, 2020.
    """
    require_count("num_layers", num_layers)
    require_count("width", width)
    require_count("num_heads", num_heads)
    if width % num_heads:
        raise ValueError(f"width must be a multiple of num_heads={num_heads}, got {width}")
    as_images = digits(batch_size=batch_size)
    evaluate: Any = as_images.evaluate  # a Partial that holds the test images and labels
    test_images, test_labels = evaluate.args
    return Problem(
        init=Partial(_init, num_layers, width),
        loss=Partial(_loss, num_heads),
        batch=as_images.batch,
        evaluate=Partial(_evaluate, num_heads, test_images, test_labels),
    )


def _init(num_layers: int, width: int, key: jax.Array) -> dict[str, Any]:
    embed_key, position_key, head_key, *layer_keys = jax.random.split(key, 3 + num_layers)
    return {
        "embed": _dense(embed_key, _PIXELS, width),
        "position": jax.random.normal(position_key, (_TOKENS, width)) / np.sqrt(width),
        "layers": [_init_layer(layer_key, width) for layer_key in layer_keys],
        "norm": _unit_norm(width),
        "head": _dense(head_key, width, _CLASSES),
    }


def _init_layer(key: jax.Array, width: int) -> dict[str, Any]:
    mix_key, merge_key, up_key, down_key = jax.random.split(key, 4)
    return {
        "attention_norm": _unit_norm(width),
        "queries_keys_values": _dense(mix_key, width, 3 * width),
        "merge": _dense(merge_key, width, width),
        "perceptron_norm": _unit_norm(width),
        "up": _dense(up_key, width, 4 * width),
        "down": _dense(down_key, 4 * width, width, gain=2.0),
    }


def _dense(key: jax.Array, fan_in: int, fan_out: int, gain: float = 1.0) -> dict[str, jax.Array]:
    kernel = jax.random.normal(key, (fan_in, fan_out)) * np.sqrt(gain / fan_in)
    return {"kernel": kernel, "bias": jnp.zeros(fan_out)}


def _unit_norm(width: int) -> dict[str, jax.Array]:
    return {"scale": jnp.ones(width), "bias": jnp.zeros(width)}


def _apply_dense(dense: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    # All tokens of a batch in one matrix product: much faster than a batch of small ones.
    flat = x.reshape(-1, x.shape[-1]) @ dense["kernel"] + dense["bias"][jnp.newaxis]
    return flat.reshape(*x.shape[:-1], -1)


def _apply_norm(norm: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    unit = jax.nn.standardize(x, axis=-1, epsilon=1e-5)
    return unit * jnp.expand_dims(norm["scale"], range(x.ndim - 1)) + jnp.expand_dims(
        norm["bias"], range(x.ndim - 1)
    )


def _attend(layer: dict[str, Any], num_heads: int, x: jax.Array) -> jax.Array:
    """Multi-head self-attention over the tokens of ``x[batch, token, width]``."""
    mixed = _apply_dense(layer["queries_keys_values"], x)
    queries, keys, values = jnp.split(mixed.reshape(*x.shape[:-1], num_heads, -1), 3, axis=-1)
    scores = jnp.einsum("bqhd,bkhd->bhqk", queries, keys) / np.sqrt(queries.shape[-1])
    attended = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), values)
    return _apply_dense(layer["merge"], attended.reshape(x.shape))


def _logits(params: Any, num_heads: int, images: jax.Array) -> jax.Array:
    x = _apply_dense(params["embed"], images.reshape(-1, _TOKENS, _PIXELS))
    x += params["position"][jnp.newaxis]
    for layer in params["layers"]:
        x += _attend(layer, num_heads, _apply_norm(layer["attention_norm"], x))
        hidden = _apply_dense(layer["up"], _apply_norm(layer["perceptron_norm"], x))
        x += _apply_dense(layer["down"], jax.nn.relu(hidden))
    return _apply_dense(params["head"], _apply_norm(params["norm"], x.mean(axis=1)))


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _loss(
    num_heads: int, params: Any, batch: tuple[jax.Array, jax.Array], key: jax.Array
) -> jax.Array:
    del key
    images, labels = batch
    return _cross_entropy(_logits(params, num_heads, images), labels)


def _evaluate(
    num_heads: int, images: jax.Array, labels: jax.Array, params: Any
) -> dict[str, jax.Array]:
    logits = _logits(params, num_heads, images)
    return {
        "accuracy": jnp.mean(jnp.argmax(logits, axis=1) == labels),
        "test_loss": _cross_entropy(logits, labels),
    }
