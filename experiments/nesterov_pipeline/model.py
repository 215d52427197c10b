"""A decoder-only transformer over characters, as layers for the stages of a pipeline."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

import async_optax as ao
from async_optax.engine.pipeline import Stage, split_layers
from experiments.nesterov_pipeline.text import Text


def layers(num_layers: int, width: int, num_heads: int, context: int, alphabet: int) -> list[Stage]:
    """Returns pre-norm transformer blocks; the first also embeds, the last also predicts.

    Args:
      num_layers: number of blocks, >= 2.
      width: of the residual stream.
      num_heads: divides the width.
      context: number of positions.
      alphabet: number of characters.
    """
    embedding = Stage(Partial(_init_embedding, alphabet, context, width), _embed)
    block = Stage(Partial(_init_block, width), Partial(_block, num_heads))
    head = Stage(Partial(_init_head, width, alphabet), _predict)
    first, last = split_layers([embedding, block], 1), split_layers([block, head], 1)
    return [*first, *[block] * (num_layers - 2), *last]


def problem(
    text: Text,
    all_layers: list[Stage],
    num_stages: int,
    *,
    context: int,
    batch_size: int,
    num_validated: int,
) -> ao.Problem:
    """Predicts each next character of windows of the text.

    ``evaluate`` returns ``perplexity`` per character on ``num_validated`` windows, evenly spread
    over the validation text and the same for all.
    """
    stages = split_layers(all_layers, num_stages)
    starts = np.linspace(0, len(text.validation) - context - 1, num_validated).astype(np.int32)
    validated = _windows(jnp.asarray(text.validation), jnp.asarray(starts), context)
    staged = ao.pipeline.problem(
        stages,
        _cross_entropy,
        Partial(_sample, context, batch_size, jnp.asarray(text.train)),
        evaluate=Partial(_evaluate, tuple(stages), validated),
    )
    sizes = tuple(map(len, jax.eval_shape(staged.init, jax.random.key(0))))
    return dataclasses.replace(staged, init=Partial(_init, tuple(all_layers), sizes))


def _init(all_layers: tuple[Stage, ...], sizes: tuple[int, ...], key: jax.Array) -> tuple[Any, ...]:
    """Layers start from the same numbers however many stages there are."""
    keys = jax.random.split(key, len(all_layers))
    params = iter([layer.init(k) for layer, k in zip(all_layers, keys, strict=True)])
    return tuple(tuple(itertools.islice(params, size)) for size in sizes)


def _windows(characters: jax.Array, starts: jax.Array, context: int) -> dict[str, jax.Array]:
    rows = starts[:, None] + jnp.arange(context + 1)[None]
    drawn = characters[rows].astype(jnp.int32)
    return {"inputs": drawn[:, :-1], "targets": drawn[:, 1:]}


def _sample(
    context: int, batch_size: int, characters: jax.Array, key: jax.Array, worker: jax.Array
) -> dict[str, jax.Array]:
    del worker
    starts = jax.random.randint(key, (batch_size,), 0, len(characters) - context)
    return _windows(characters, starts, context)


def _cross_entropy(logits: jax.Array, batch: dict[str, jax.Array]) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["targets"]).mean()


def _evaluate(
    stages: tuple[Stage, ...], windows: dict[str, jax.Array], params: Any
) -> dict[str, jax.Array]:
    logits = ao.pipeline.apply_stages(stages, params, windows, jax.random.key(0))
    return {"perplexity": jnp.exp(_cross_entropy(logits, windows))}


def _init_embedding(alphabet: int, context: int, width: int, key: jax.Array) -> dict[str, Any]:
    of_characters, of_positions = jax.random.split(key)
    return {
        "characters": 0.1 * jax.random.normal(of_characters, (alphabet, width)),
        "positions": 0.1 * jax.random.normal(of_positions, (context, width)),
    }


def _embed(params: Any, batch: dict[str, jax.Array], key: jax.Array) -> jax.Array:
    del key
    return params["characters"][batch["inputs"]] + params["positions"][None]


def _init_block(width: int, key: jax.Array) -> dict[str, Any]:
    mix, merge, up, down = jax.random.split(key, 4)
    return {
        "attention_norm": jnp.ones(width),
        "queries_keys_values": _dense(mix, width, 3 * width),
        "merge": _dense(merge, width, width),
        "perceptron_norm": jnp.ones(width),
        "up": _dense(up, width, 4 * width),
        "down": _dense(down, 4 * width, width),
    }


def _block(num_heads: int, params: Any, x: jax.Array, key: jax.Array) -> jax.Array:
    del key
    x = x + _attend(params, num_heads, _norm(params["attention_norm"], x))
    hidden = jax.nn.gelu(_linear(params["up"], _norm(params["perceptron_norm"], x)))
    return x + _linear(params["down"], hidden)


def _attend(params: Any, num_heads: int, x: jax.Array) -> jax.Array:
    """Causal self-attention over the positions of ``x[batch, position, width]``."""
    batch, length, width = x.shape
    mixed = _linear(params["queries_keys_values"], x)
    mixed = mixed.reshape(batch, length, 3, num_heads, width // num_heads)
    queries, keys, values = (mixed[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
    scores = queries @ keys.swapaxes(-1, -2) / np.sqrt(width // num_heads)
    earlier = jnp.tril(jnp.ones((length, length), bool))[None, None]
    attended = jax.nn.softmax(jnp.where(earlier, scores, -1e9)) @ values
    return _linear(params["merge"], attended.transpose(0, 2, 1, 3).reshape(x.shape))


def _init_head(width: int, alphabet: int, key: jax.Array) -> dict[str, Any]:
    return {"norm": jnp.ones(width), "read": _dense(key, width, alphabet)}


def _predict(params: Any, x: jax.Array, key: jax.Array) -> jax.Array:
    del key
    return _linear(params["read"], _norm(params["norm"], x))


def _dense(key: jax.Array, fan_in: int, fan_out: int) -> jax.Array:
    return jax.random.normal(key, (fan_in, fan_out)) / np.sqrt(fan_in)


def _linear(kernel: jax.Array, x: jax.Array) -> jax.Array:
    # All positions of a batch in one matrix product: much faster than a batch of small ones.
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], -1)


def _norm(scale: jax.Array, x: jax.Array) -> jax.Array:
    return jax.nn.standardize(x, axis=-1, epsilon=1e-5) * scale[None, None]
