"""A vision transformer from a folder in the layout of Hugging Face."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from async_optax.validation import require_choice, require_count
from experiments.models.checkpoints import (
    Place,
    Pretrained,
    assigned,
    find_checkpoint,
    read_config,
    read_tensors,
)
from experiments.models.vit import ViT

_IN_LAYER = {
    ("attention", "query"): "attention.attention.query",
    ("attention", "key"): "attention.attention.key",
    ("attention", "value"): "attention.attention.value",
    ("attention", "output"): "attention.output.dense",
    ("attention_norm",): "layernorm_before",
    ("perceptron_norm",): "layernorm_after",
    ("up",): "intermediate.dense",
    ("down",): "output.dense",
}
_ELSEWHERE = {
    ("start",): "embeddings.cls_token",
    ("positions",): "embeddings.position_embeddings",
    ("patches", "kernel"): "embeddings.patch_embeddings.projection.weight",
    ("patches", "bias"): "embeddings.patch_embeddings.projection.bias",
    ("norm", "scale"): "layernorm.weight",
    ("norm", "bias"): "layernorm.bias",
}
_ENDING = {"kernel": "weight", "scale": "weight", "bias": "bias"}


class Pixels(NamedTuple):
    """How a model wants its pixels: ``(pixel / 255 - mean) / deviation``.

    Attributes:
      size: of the square images.
      mean: of each channel.
      deviation: of each channel.
    """

    size: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


def load_vit(
    name: str | Path,
    num_classes: int = 10,
    *,
    image_size: int | None = None,
    data_dir: str | Path | None = None,
    dtype: Any = None,
    dropout: float = 0.0,
) -> tuple[Pretrained, Pixels]:
    """Loads a ViT; the map to the classes starts afresh.

    The folder holds ``config.json``, ``model.safetensors`` and, for the scaling of pixels,
    ``preprocessor_config.json`` (without it mean and deviation are 0.5), such as
    ``google/vit-base-patch16-224-in21k``'s.

    Args:
      name: see :func:`experiments.models.find_checkpoint`.
      num_classes: classes.
      image_size: sides of the images; if it is not the checkpoint's, the learned positions are
        interpolated (bicubic, with Keys's kernel at -0.5, where PyTorch has -0.75).
      data_dir: see :func:`experiments.datasets.data_folder`.
      dtype: of the computation; ``None``: float32.
      dropout: within the layers.

    Returns:
      The model with its parameters, and how it wants its pixels.

    Raises:
      ImportError: if safetensors is not installed.
      ValueError: if there is no such folder, it is no ViT, or a tensor is missing or misshapen.
    """
    folder = find_checkpoint(name, data_dir)
    try:
        config = read_config(folder)
        require_choice("model_type", config.get("model_type"), ("vit",))
        require_choice("hidden_act", config.get("hidden_act", "gelu"), ("gelu",))
        require_choice("qkv_bias", str(config.get("qkv_bias", True)), ("True",))
        size = config["image_size"] if image_size is None else image_size
        require_count("image_size", size)
        module = ViT(
            config["patch_size"],
            config["hidden_size"],
            config["num_hidden_layers"],
            config["num_attention_heads"],
            num_classes,
            config["intermediate_size"],
            dropout,
            config["layer_norm_eps"],
            dtype,
        )
        grid = size // module.patch_size
        tensors = _as_ours(read_tensors(folder, "vit."), grid)
        example = jnp.zeros((1, size, size, config["num_channels"]))
        return assigned(module, (example,), tensors, _name_of), _pixels(folder, size)
    except KeyError as error:
        raise ValueError(f"{folder} is not a ViT checkpoint: no {error}") from error
    except ValueError as error:
        raise ValueError(f"{folder} is not a ViT checkpoint: {error}") from error


def _name_of(place: Place) -> str | None:
    if place[0] == "head":
        return None
    if place in _ELSEWHERE:
        return _ELSEWHERE[place]
    layer = place[0].removeprefix("layer_")
    return f"encoder.layer.{layer}.{_IN_LAYER[place[1:-1]]}.{_ENDING[place[-1]]}"


def _as_ours(tensors: dict[str, Any], grid: int) -> dict[str, Any]:
    """Patches as rows of a matrix, the class token as a vector, positions for this grid."""
    tensors = dict(tensors)
    kernel = _ELSEWHERE["patches", "kernel"]
    if kernel in tensors:  # [width, channels, row, column] to PyTorch's [out, in]
        weight = tensors[kernel]
        tensors[kernel] = weight.transpose(0, 2, 3, 1).reshape(len(weight), -1)
    start, positions = _ELSEWHERE["start",], _ELSEWHERE["positions",]
    if start in tensors:
        tensors[start] = tensors[start].reshape(-1)
    if positions in tensors:
        tensors[positions] = _interpolated(tensors[positions][0].astype(np.float32), grid)
    return tensors


def _interpolated(positions: jax.Array, grid: int) -> jax.Array:
    side = round(np.sqrt(len(positions) - 1))
    if side == grid:
        return positions
    width = positions.shape[1]
    square = positions[1:].reshape(side, side, width)
    resized = jax.image.resize(square, (grid, grid, width), "cubic", antialias=False)
    return jnp.concatenate([positions[:1], resized.reshape(grid * grid, width)])


def _pixels(folder: Path, size: int) -> Pixels:
    path = folder / "preprocessor_config.json"
    config = json.loads(path.read_text()) if path.is_file() else {}
    mean, deviation = (config.get(f"image_{name}", [0.5]) for name in ("mean", "std"))
    return Pixels(size, tuple(mean), tuple(deviation))
