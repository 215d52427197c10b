"""One small case of every model, on shapes that all share."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from async_optax.data import uniform_rows
from experiments.datasets import Images, agreement, grammar_text, word_tokens
from experiments.models import (
    CNN,
    LSTM,
    BertClassifier,
    BertConfig,
    ResNet,
    Transformer,
    ViT,
    image_problem,
    language_problem,
    sentence_problem,
)

CONTEXT, LENGTH = 6, 8


@functools.cache
def images():
    """Images of 8x8 pixels whose classes are where they are bright."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 90).astype(np.int32)
    pixels = rng.integers(0, 100, (90, 8, 8, 3))
    for image, label in zip(pixels, labels, strict=True):
        image[4 * (label // 2) :, 4 * (label % 2) :][:4, :4] += 120
    pixels = pixels.astype(np.uint8)
    return Images(pixels[:60], labels[:60], pixels[60:], labels[60:])


@functools.cache
def text():
    """A short text."""
    return grammar_text(600)


@functools.cache
def sentences():
    """Clauses, right and wrong."""
    return word_tokens(agreement(40, 21), LENGTH)


BERT = BertConfig(
    vocab_size=400,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=12,
    max_position_embeddings=12,
)
VISION = {
    "ViT": functools.partial(ViT, 4, 8, 1, 2, 4, dropout=0.1),
    "CNN": functools.partial(CNN, (4,), 8, 4, 0.1),
    "ResNet": functools.partial(ResNet, 1, 4, 4, 2),
}
LANGUAGE = {
    "LSTM": functools.partial(LSTM, 40, 8, 2, 4, 0.1),
    "Transformer": functools.partial(Transformer, 40, CONTEXT, 8, 1, 2, dropout=0.1),
}
MODULES = VISION | LANGUAGE | {"BERT": functools.partial(BertClassifier, BERT)}


def example(name):
    """What the model of that name is called with: two examples."""
    if name in VISION:
        return (jnp.asarray(images().train[:2], jnp.float32) / 255,)
    if name in LANGUAGE:
        return (jnp.asarray(text().train[: 2 * CONTEXT].reshape(2, CONTEXT), jnp.int32),)
    return tuple(jnp.asarray(sentences().train[part][:2]) for part in ("ids", "types", "mask"))


def problem(name, **options):
    """The problem that is made of it."""
    module = MODULES[name]()
    if name in VISION:
        rows = options.pop("rows", uniform_rows(60, 4))
        return image_problem(module, images(), rows, **options)
    if name in LANGUAGE:
        options = {"batch_size": 4} | options
        return language_problem(module, text(), context=CONTEXT, **options)
    rows = options.pop("rows", uniform_rows(40, 4))
    return sentence_problem(module, sentences(), rows, **options)


@functools.cache
def drawn(name):
    """Parameters with none of the zeros and small numbers that training starts from."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(MODULES[name]().init, jax.random.key(0), *example(name))["params"]
    return jax.tree.map(lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32), shapes)


@functools.cache
def applied(name):
    """Its pass forward, compiled: ``applied(name)(params, *inputs)``."""
    module = MODULES[name]()
    return jax.jit(lambda params, *inputs: module.apply({"params": params}, *inputs))
