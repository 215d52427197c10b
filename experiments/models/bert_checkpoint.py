"""BERT from a folder in the layout of Hugging Face."""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from experiments.models.bert import BertClassifier, BertConfig
from experiments.models.checkpoints import (
    Place,
    Pretrained,
    assigned,
    find_checkpoint,
    read_config,
    read_tensors,
)

_EMBEDDINGS = {
    ("tokens", "embedding"): "word_embeddings.weight",
    ("types", "embedding"): "token_type_embeddings.weight",
    ("positions",): "position_embeddings.weight",
    ("norm", "scale"): "LayerNorm.weight",
    ("norm", "bias"): "LayerNorm.bias",
}
_IN_LAYER = {
    ("attention", "query"): "attention.self.query",
    ("attention", "key"): "attention.self.key",
    ("attention", "value"): "attention.self.value",
    ("attention", "output"): "attention.output.dense",
    ("attention_norm",): "attention.output.LayerNorm",
    ("up",): "intermediate.dense",
    ("down",): "output.dense",
    ("perceptron_norm",): "output.LayerNorm",
}
_ENDING = {"kernel": "weight", "scale": "weight", "bias": "bias"}


def load_bert(
    name: str | Path,
    num_classes: int = 2,
    *,
    data_dir: str | Path | None = None,
    dtype: Any = None,
    **changes: Any,
) -> Pretrained:
    """Loads an encoder and its pooler; the map to the classes starts afresh.

    The folder holds ``config.json`` and ``model.safetensors``, such as ``bert-base-uncased``'s.
    Where a checkpoint has no pooler (those of masked language models have none) it starts afresh
    too, and is named in ``fresh``.

    Args:
      name: see :func:`experiments.models.find_checkpoint`.
      num_classes: classes.
      data_dir: see :func:`experiments.datasets.data_folder`.
      dtype: of the computation; ``None``: float32.
      **changes: attributes of the configuration, such as ``hidden_dropout_prob=0.0``.

    Raises:
      ImportError: if safetensors is not installed.
      ValueError: if there is no such folder, it is no BERT, or a tensor is missing or misshapen.
    """
    folder = find_checkpoint(name, data_dir)
    try:
        config = dataclasses.replace(BertConfig.from_dict(read_config(folder)), **changes)
        module = BertClassifier(config, num_classes, dtype)
        token = jnp.zeros((1, 1), jnp.int32)
        tensors = {_modern(key): value for key, value in read_tensors(folder, "bert.").items()}
        return assigned(
            module, (token, token, token == 0), tensors, _name_of, frozenset({"pooler"})
        )
    except ValueError as error:
        raise ValueError(f"{folder} is not a BERT checkpoint: {error}") from error


def _modern(name: str) -> str:
    """Weights that came from TensorFlow call a norm's numbers gamma and beta."""
    old = name.replace("LayerNorm.gamma", "LayerNorm.weight")
    return old.replace("LayerNorm.beta", "LayerNorm.bias")


def _name_of(place: Place) -> str | None:
    if place[0] == "head":
        return None
    if place[0] == "pooler":
        return f"pooler.dense.{_ENDING[place[-1]]}"
    inner = place[1:]
    if inner in _EMBEDDINGS:
        return f"embeddings.{_EMBEDDINGS[inner]}"
    layer = inner[0].removeprefix("layer_")
    return f"encoder.layer.{layer}.{_IN_LAYER[inner[1:-1]]}.{_ENDING[inner[-1]]}"
