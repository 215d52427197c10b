"""Checkpoints: against passes forward in NumPy, in all variants of the layout, and broken ones."""

import json
import os
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from experiments.datasets import Sentences, SentenceTask, checkpoint_tokens
from experiments.models import BertEncoder, find_checkpoint, load_bert, load_vit
from tests.experiments_models import numpy_models
from tests.experiments_models.folders import (
    BERT,
    VIT,
    bert_tensors,
    vit_tensors,
    write,
    write_tokenizer,
)

pytest.importorskip("safetensors", reason="needs async_optax[models]")

IDS = np.random.default_rng(0).integers(0, 40, (3, 7), np.int32)
TYPES = np.repeat([[0, 0, 0, 1, 1, 1, 1]], 3, axis=0).astype(np.uint8)
MASK = np.arange(7)[None] < np.array([[7], [5], [2]])
TINY = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory):
    folder = write(tmp_path_factory.mktemp("bert"), BERT, bert_tensors(BERT))
    pytest.importorskip("tokenizers", reason="needs async_optax[models]")
    write_tokenizer(folder)
    return folder


def encoded(module, params, ids, types, mask):
    """The last layer and the pooled vectors, in double precision if it is on."""
    params = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.result_type(float)), params)
    encoder = BertEncoder(module.config)
    last = jax.jit(encoder.apply)({"params": params["encoder"]}, ids, types, mask)
    pooler = params["pooler"]
    return last, np.tanh(last[:, 0] @ pooler["kernel"] + pooler["bias"][None])


@pytest.mark.usefixtures("x64")
def test_bert_equals_numpy(bert_folder):
    loaded = load_bert(bert_folder)
    assert loaded.fresh == ("head",)
    last, pooled = encoded(*loaded[:2], IDS, TYPES, MASK)
    for i in range(3):
        want, want_pooled = numpy_models.bert(bert_tensors(BERT), BERT, IDS[i], TYPES[i], MASK[i])
        np.testing.assert_allclose(last[i][MASK[i]], want[MASK[i]], atol=1e-10)
        np.testing.assert_allclose(pooled[i], want_pooled, atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_vit_equals_numpy(tmp_path):
    folder = write(tmp_path, VIT, vit_tensors(VIT))
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3]}')
    loaded, pixels = load_vit(folder, num_classes=12)
    assert (pixels.size, pixels.mean, pixels.deviation) == (8, (0.1, 0.2, 0.3), (0.5,))
    assert loaded.fresh == ("head",)
    identity = {"kernel": np.eye(12), "bias": np.zeros(12)}
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), loaded.params) | {"head": identity}
    got = jax.jit(loaded.module.apply)({"params": params}, TINY.astype(np.float64))
    for i in range(2):
        want = numpy_models.vit(vit_tensors(VIT), VIT, TINY[i])
        np.testing.assert_allclose(got[i], want, atol=1e-10)


def test_positions_are_interpolated(tmp_path):
    tensors = vit_tensors(VIT | {"image_size": 12})
    tensors["embeddings.position_embeddings"][0, 1:] = np.arange(9)[:, None] // 3
    folder = write(tmp_path, VIT | {"image_size": 12}, tensors)
    same, finer = (load_vit(folder, image_size=size)[0].params["positions"] for size in (12, 24))
    np.testing.assert_array_equal(same, tensors["embeddings.position_embeddings"][0])
    assert finer.shape == (37, 12)
    np.testing.assert_array_equal(finer[0], same[0])
    rows = np.asarray(finer[1:]).reshape(6, 6, 12)
    np.testing.assert_allclose(rows, np.broadcast_to(rows[:, :1, :1], rows.shape), atol=1e-5)
    # Old rows are centred at 1/6, 1/2 and 5/6 of the height, new ones at 1/12, 3/12 and so on.
    assert np.all(np.diff(rows[:, 0, 0]) > 0)
    np.testing.assert_allclose(rows[:, 0, 0] + rows[::-1, 0, 0], 2, atol=1e-5)
    assert load_vit(folder, image_size=8)[0].params["positions"].shape == (5, 12)


def renamed(change):
    return {change(name): value for name, value in bert_tensors(BERT).items()}


VARIANTS = {
    "with a head": lambda: (
        renamed("bert.{}".format) | {"cls.predictions.bias": np.zeros(40, np.float32)}
    ),
    "from TensorFlow": lambda: renamed(
        lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        )
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_other_names_are_the_same(variant, tmp_path, bert_folder):
    loaded = load_bert(write(tmp_path, BERT, VARIANTS[variant]()))
    assert loaded.fresh == ("head",)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, load_bert(bert_folder).params)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_becomes_float32(dtype, tmp_path):
    tensors = {name: value.astype(dtype) for name, value in bert_tensors(BERT).items()}
    params = load_bert(write(tmp_path, BERT, tensors)).params
    assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    up = params["encoder"]["layer_1"]["up"]["kernel"]
    want = tensors["encoder.layer.1.intermediate.dense.weight"].astype(np.float32).T
    np.testing.assert_array_equal(up, want)


def test_a_missing_pooler_starts_afresh(tmp_path):
    tensors = {k: v for k, v in bert_tensors(BERT).items() if not k.startswith("pooler")}
    loaded = load_bert(write(tmp_path, BERT, tensors), hidden_dropout_prob=0.0)
    assert loaded.fresh == ("head", "pooler")
    assert sorted(loaded.params) == ["encoder"]
    assert loaded.module.config.hidden_dropout_prob == 0.0


def without(name):
    return {key: value for key, value in bert_tensors(BERT).items() if key != name}


BROKEN = {
    "no config": (None, lambda: {}, "checkpoint .* has no config.json in"),
    "another model": (
        BERT | {"model_type": "roberta"},
        lambda: bert_tensors(BERT),
        "is not a BERT checkpoint: model_type must be one of bert; got 'roberta'",
    ),
    "other positions": (
        BERT | {"position_embedding_type": "relative_key"},
        lambda: bert_tensors(BERT),
        "position_embedding_type must be one of absolute; got 'relative_key'",
    ),
    "a tensor is missing": (
        BERT,
        lambda: without("encoder.layer.1.output.dense.bias"),
        "has no tensor 'encoder.layer.1.output.dense.bias', for encoder/layer_1/down/bias",
    ),
    "another size": (
        BERT | {"intermediate_size": 24},
        lambda: bert_tensors(BERT),
        r"'encoder.layer.0.output.dense.weight' must have shape \[12, 24\], got \[12, 20\]",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_bert_is_refused_in_one_line(case, tmp_path):
    config, tensors, message = BROKEN[case]
    if config is not None:
        write(tmp_path, config, tensors())
    with pytest.raises(ValueError, match=message) as error:
        load_bert(tmp_path)
    assert "\n" not in str(error.value)


def test_damaged_files_are_refused(tmp_path, monkeypatch):
    write(tmp_path, VIT, vit_tensors(VIT))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(ValueError, match="is not a ViT checkpoint: no 'image_size'"):
        load_vit(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is not JSON: "):
        load_vit(tmp_path)
    write(tmp_path, BERT, bert_tensors(BERT))
    with pytest.raises(ValueError, match="is not a ViT checkpoint: model_type must be one of vit"):
        load_vit(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(ValueError, match="model.safetensors is not a safetensors file: "):
        load_bert(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="has no weights: .*model.safetensors is not a file"):
        load_bert(tmp_path)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"pip install 'async_optax\[models\]'"):
        load_bert(tmp_path)


def test_sentences_are_split_as_the_checkpoint_says(bert_folder, tmp_path, monkeypatch):
    single = Sentences(["The cats sat.", "a zebra"], None, np.array([1, 0]))
    tokens = checkpoint_tokens(SentenceTask(single, single, 2, "f1"), bert_folder, 7)
    # [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, then the words from 4 on
    np.testing.assert_array_equal(
        tokens.train["ids"], [[2, 4, 5, 9, 6, 12, 3], [2, 11, 1, 3, 0, 0, 0]]
    )
    np.testing.assert_array_equal(tokens.train["mask"], tokens.train["ids"] != 0)
    assert not tokens.train["types"].any()
    assert (tokens.vocabulary_size, tokens.num_classes, tokens.metric) == (14, 2, "f1")
    pairs = Sentences(["the cat sat on the mat", "a"], ["a dog", "a dog barked"], np.array([1, 0]))
    tokens = checkpoint_tokens(SentenceTask(pairs, pairs, 2, "f1"), bert_folder, 8)
    np.testing.assert_array_equal(tokens.train["ids"][0], [2, 4, 5, 6, 3, 11, 10, 3])
    np.testing.assert_array_equal(tokens.train["types"][0], [0, 0, 0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(tokens.train["types"][1], [0, 0, 0, 1, 1, 1, 1, 0])
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="tokenizer.json is not a tokenizer: "):
        checkpoint_tokens(SentenceTask(single, single, 2, "f1"), tmp_path, 8)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"pip install 'async_optax\[models\]'"):
        checkpoint_tokens(SentenceTask(single, single, 2, "f1"), bert_folder, 8)


def test_a_folder_of_models_is_searched_first(tmp_path, bert_folder):
    inner = tmp_path / "models" / "mine"
    inner.parent.mkdir()
    write(inner, BERT, {})
    assert find_checkpoint("mine", tmp_path) == inner
    assert find_checkpoint(bert_folder, tmp_path) == bert_folder


@pytest.mark.skipif("ASYNC_OPTAX_DATA" not in os.environ, reason="ASYNC_OPTAX_DATA is not set")
def test_the_given_checkpoint_equals_numpy():
    """At the checkpoint's float16 weights, computed in float32 here and in float64 there."""
    from safetensors.numpy import load_file

    folder = find_checkpoint("minilm-l6")
    config = json.loads((folder / "config.json").read_text())
    loaded = load_bert("minilm-l6")
    assert sum(x.size for x in jax.tree.leaves(loaded.params)) == 22_713_216
    rng = np.random.default_rng(0)
    ids = rng.integers(0, config["vocab_size"], (2, 24), np.int32)
    types = (np.arange(24) > 11).astype(np.uint8)[None].repeat(2, axis=0)
    mask = np.arange(24)[None] < np.array([[24], [15]])
    last, pooled = encoded(*loaded[:2], ids, types, mask)
    tensors = load_file(folder / "model.safetensors")
    for i in range(2):
        want, want_pooled = numpy_models.bert(tensors, config, ids[i], types[i], mask[i])
        assert numpy_models.cosine(last[i][mask[i]], want[mask[i]]) > 1 - 1e-9
        assert numpy_models.cosine(pooled[i], want_pooled) > 1 - 1e-9
        np.testing.assert_allclose(last[i][mask[i]], want[mask[i]], atol=1e-4)
