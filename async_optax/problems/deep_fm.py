"""A model of click-through: embeddings, their products in pairs, and a perceptron."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_SPREAD = 0.05  # of the embeddings at the start


def init_deep_fm(
    key: jax.Array, sizes: Mapping[str, int], dimension: int, hidden: Sequence[int]
) -> dict[str, Any]:
    """Returns the parameters of :func:`deep_fm_logits`.

    Args:
      key: a typed key.
      sizes: number of IDs of each field.
      dimension: length of an embedding, >= 1.
      hidden: widths of the perceptron's rectified layers.

    Returns:
      ``{"tables": {field: [num_ids, 1 + dimension]}, "dense": ...}``. The first column of a table
      is the ID's own weight, zero at the start; the others are its embedding, normal. Dense
      layers start from He's initialisation, the last one with variance one over its inputs.

    Example:
      >>> import jax
      >>> params = init_deep_fm(jax.random.key(0), {"user": 5, "item": 3}, 4, [8])
      >>> jax.tree.map(jnp.shape, params["tables"])
      {'item': (3, 5), 'user': (5, 5)}
    """
    table_keys = jax.random.split(key, len(sizes) + 1)
    widths = [len(sizes) * dimension, *hidden, 1]
    layer_keys = jax.random.split(table_keys[-1], len(widths) - 1)
    gains = [2.0] * len(hidden) + [1.0]
    return {
        "tables": {
            field: _table(k, size, dimension)
            for k, (field, size) in zip(table_keys[:-1], sorted(sizes.items()), strict=True)
        },
        "dense": [
            {
                "kernel": jax.random.normal(k, (fan_in, fan_out)) * np.sqrt(gain / fan_in),
                "bias": jnp.zeros(fan_out),
            }
            for k, fan_in, fan_out, gain in zip(
                layer_keys, widths[:-1], widths[1:], gains, strict=True
            )
        ],
    }


def _table(key: jax.Array, size: int, dimension: int) -> jax.Array:
    embeddings = _SPREAD * jax.random.normal(key, (size, dimension))
    return jnp.concatenate([jnp.zeros((size, 1)), embeddings], axis=1)


def deep_fm_logits(params: Mapping[str, Any], ids: Mapping[str, jax.Array]) -> jax.Array:
    """Returns the logit of a click for each example.

    With w_f and v_f the weight and the embedding of an example's ID in field f:
    ``sum_f w_f + sum_{f<g} <v_f, v_g> + perceptron(v_1, ..., v_F)``.

    Args:
      params: of :func:`init_deep_fm`.
      ids: for each field int32 ``[batch_size]``.

    Returns:
      float ``[batch_size]``.

    Example:
      >>> import jax
      >>> params = init_deep_fm(jax.random.key(0), {"user": 5, "item": 3}, 4, [8])
      >>> ids = {"user": jnp.array([0, 4]), "item": jnp.array([2, 2])}
      >>> deep_fm_logits(params, ids).shape
      (2,)

    References:
      Guo et al., `DeepFM <https://arxiv.org/abs/1703.04247>`_, 2017. Certainty: our reading;
      sizes and initialisation are ours.
    """
    rows = [table[ids[field]] for field, table in sorted(params["tables"].items())]
    weights, vectors = sum(r[:, 0] for r in rows), jnp.stack([r[:, 1:] for r in rows], axis=1)
    pairs = jnp.square(vectors.sum(axis=1)) - jnp.square(vectors).sum(axis=1)
    x = vectors.reshape(len(vectors), -1)
    *hidden, last = params["dense"]
    for layer in hidden:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"][jnp.newaxis])
    deep = x @ last["kernel"] + last["bias"][jnp.newaxis]
    return weights + pairs.sum(axis=1) / 2 + deep[:, 0]
