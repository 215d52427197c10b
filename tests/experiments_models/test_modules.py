"""The models: sizes as published, what may depend on what, precision, and NumPy."""

import doctest
import importlib
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import models
from experiments.models import (
    CNN,
    LSTM,
    BertClassifier,
    BertConfig,
    ResNet,
    Transformer,
    ViT,
    vit,
)
from experiments.models.convolution import Convolution
from tests.experiments_models import numpy_models
from tests.experiments_models.small import (
    CONTEXT,
    LANGUAGE,
    MODULES,
    VISION,
    applied,
    drawn,
    example,
)

FOLDER = pathlib.Path(models.__file__).parent


@pytest.mark.parametrize("name", ["evaluation", "metrics"])
def test_the_examples_in_docstrings(name):
    outcome = doctest.testmod(importlib.import_module(f"experiments.models.{name}"))
    assert outcome.attempted
    assert outcome.failed == 0


def test_the_page_names_everything():
    page = (FOLDER / "README.md").read_text()
    for name in models.__all__:
        assert f"`{name}" in page, name
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    shown = sorted(int(row[1].replace(" ", "")) for row in rows)
    assert shown == sorted(expected for _, expected in PUBLISHED.values())


def test_the_code_on_the_page_runs():
    (block,) = (FOLDER / "README.md").read_text().split("```python\n")[1:]
    code = block.split("```")[0]
    exec(compile(code, "README.md", "exec"), {})


def num_parameters(module, *inputs):
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs)["params"])
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def images(size):
    return jnp.zeros((1, size, size, 3))


TOKEN = jnp.zeros((1, 1), jnp.int32)
BERT_INPUTS = TOKEN, TOKEN, TOKEN == 0
MINILM = BertConfig(
    hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
)
# DeiT's and timm's counts at 224 pixels and 1000 classes; He et al. say 0.27 M, and 269 722 is the
# count of their table 6 with a norm per convolution; BERT's are Hugging Face's and a head.
PUBLISHED = {
    "ViT-Ti/16": (lambda: num_parameters(vit("Ti", 16, 1000), images(224)), 5_717_416),
    "ViT-S/16": (lambda: num_parameters(vit("S", 16, 1000), images(224)), 22_050_664),
    "ViT-B/16": (lambda: num_parameters(vit("B", 16, 1000), images(224)), 86_567_656),
    "ResNet-20": (lambda: num_parameters(ResNet(), images(32)), 269_722),
    "BERT base": (
        lambda: num_parameters(BertClassifier(BertConfig()), *BERT_INPUTS),
        109_482_240 + 2 * 769,
    ),
    "MiniLM-L6": (
        lambda: num_parameters(BertClassifier(MINILM), *BERT_INPUTS),
        22_713_216 + 2 * 385,
    ),
    # From the shapes: PyTorch's LSTM has one bias more, of 4 x 256 numbers in each layer.
    "LSTM": (
        lambda: num_parameters(LSTM(65, 256, 2, 64), TOKEN),
        65 * 64 + (64 + 256 + 1) * 1024 + (256 + 256 + 1) * 1024 + 257 * 65,
    ),
    "Transformer": (
        lambda: num_parameters(Transformer(65, 128, 64, 2, 2), TOKEN),
        (65 + 128 + 65) * 64 + 2 * (12 * 64 * 64 + 2 * 64) + 64,
    ),
    "CNN": (
        lambda: num_parameters(CNN(), images(32)),
        (27 + 1) * 32 + (9 * 32 + 1) * 64 + (8 * 8 * 64 + 1) * 128 + 129 * 10,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_number_of_parameters(name):
    count, expected = PUBLISHED[name]
    assert count() == expected


@pytest.mark.parametrize("name", MODULES)
def test_half_precision_is_near_single(name):
    """Parameters, their gradients and logits stay float32."""
    inputs, params, half = example(name), drawn(name), MODULES[name](dtype=jnp.bfloat16)
    assert jax.eval_shape(half.init, jax.random.key(0), *inputs)["params"] == jax.eval_shape(
        lambda: params
    )

    def apply(params):
        return half.apply({"params": params}, *inputs)

    logits, wanted = jax.jit(apply)(params), applied(name)(params, *inputs)
    assert logits.dtype == jnp.float32
    assert 0 < np.abs(logits - wanted).max() < 0.1 * np.abs(wanted).max()
    grads = jax.eval_shape(jax.grad(lambda params: apply(params).sum()), params)
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("name", LANGUAGE)
def test_what_comes_later_is_not_seen(name):
    (tokens,), at = example(name), CONTEXT // 2
    other = tokens.at[:, at].set((tokens[:, at] + 1) % 40)
    before, after = (np.asarray(applied(name)(drawn(name), x)) for x in (tokens, other))
    np.testing.assert_array_equal(before[:, :at], after[:, :at])
    assert (before[:, at:] != after[:, at:]).any((0, 2)).all()


def test_bert_does_not_see_padding():
    apply, params = applied("BERT"), drawn("BERT")
    ids, types, mask = example("BERT")
    ids, types = ids.at[:, 5:].set(0), types.at[:, 5:].set(0)
    mask = jnp.broadcast_to(jnp.arange(ids.shape[1]) < 5, ids.shape)
    wanted = apply(params, ids, types, mask)
    np.testing.assert_array_equal(apply(params, ids.at[:, 5:].set(7), types, mask), wanted)
    shorter = apply(params, ids[:, :5], types[:, :5], mask[:, :5])
    np.testing.assert_allclose(shorter, wanted, atol=1e-5)
    assert np.abs(apply(params, ids.at[:, 4].set(7), types, mask) - wanted).max() > 1e-3


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.usefixtures("x64")
def test_both_convolutions_equal_numpy(stride):
    rng = np.random.default_rng(0)
    image, kernel = rng.normal(size=(1, 8, 8, 3)), rng.normal(size=(3, 3, 3, 4))
    want = numpy_models.convolution(image[0], kernel, stride)
    for as_product in (True, False):
        module = Convolution(4, stride, as_product)
        got = module.apply({"params": {"kernel": kernel}}, image)
        np.testing.assert_allclose(got[0], want, atol=1e-12)


def test_a_network_is_the_same_by_either_convolution():
    (inputs,), params = example("ResNet"), drawn("ResNet")
    direct = VISION["ResNet"](as_product=False)
    got = jax.jit(direct.apply)({"params": params}, inputs)
    np.testing.assert_allclose(got, applied("ResNet")(params, inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("x64")
def test_the_lstm_equals_numpy():
    module, (tokens,) = MODULES["LSTM"](), example("LSTM")
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), tokens)["params"]
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)
    logits = jax.jit(module.apply)({"params": params}, tokens)
    for got, row in zip(logits, tokens, strict=True):
        np.testing.assert_allclose(got, numpy_models.lstm(params, 2, np.asarray(row)), atol=1e-10)


BAD = {
    "heads": (lambda: ViT(4, 9, 1, 2), images(8), "width must be a multiple of num_heads=2, got 9"),
    "patches": (lambda: ViT(3, 8, 1, 2), images(8), "patch_size=3 must divide the image's 8x8"),
    "context": (lambda: Transformer(40, 4), example("LSTM")[0], "at most context=4 positions: 6"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused(case):
    make, inputs, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(make().init, jax.random.key(0), inputs)


def test_sizes_are_checked(monkeypatch):
    with pytest.raises(ValueError, match="size must be one of Ti, S, B; got 'L'"):
        vit("L", 16)
    with pytest.raises(ValueError, match="hidden_size must be an integer >= 1, got 0"):
        BertConfig(hidden_size=0)
    with pytest.raises(ValueError, match="hidden_act must be one of gelu, gelu_new, relu; got 'x'"):
        BertConfig(hidden_act="x")
    monkeypatch.delitem(sys.modules, "experiments.models.linen")
    monkeypatch.setitem(sys.modules, "flax", None)
    with pytest.raises(ImportError, match=r"need flax: pip install 'async_optax\[models\]'"):
        importlib.import_module("experiments.models.linen")
