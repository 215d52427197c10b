"""Folders with the weights of a trained model, in the layout of Hugging Face."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.datasets import data_folder
from experiments.models.linen import nn

Place = tuple[str, ...]
"""Where a parameter is in a tree: names from the top down."""


class Pretrained(NamedTuple):
    """A model and the trained part of its parameters.

    Attributes:
      module: the model.
      params: float32; names at the top that are missing start afresh.
      fresh: which those are.
    """

    module: nn.Module
    params: dict[str, Any]
    fresh: tuple[str, ...]


def find_checkpoint(name: str | Path, data_dir: str | Path | None = None) -> Path:
    """Returns the folder of a checkpoint.

    Args:
      name: of a folder in ``models/`` of :func:`experiments.datasets.data_folder`, or the path
        of one anywhere.
      data_dir: see :func:`experiments.datasets.data_folder`.

    Raises:
      ValueError: if there is no such folder, or no ``config.json`` in it.
    """
    tried = [Path(name).expanduser()]
    folder = data_folder(data_dir)
    if folder is not None:
        tried.insert(0, folder / "models" / name)
    for path in tried:
        if (path / "config.json").is_file():
            return path
    places = " or ".join(str(path) for path in tried)
    raise ValueError(f"checkpoint {str(name)!r} has no config.json in {places}")


def read_config(folder: Path) -> dict[str, Any]:
    """Returns what ``config.json`` says.

    Raises:
      ValueError: if it is no JSON.
    """
    try:
        return json.loads((folder / "config.json").read_text())
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'} is not JSON: {error}") from error


def read_tensors(folder: Path, prefix: str) -> dict[str, Any]:
    """Returns the tensors of ``model.safetensors`` by name.

    Args:
      folder: of the checkpoint.
      prefix: taken off the names if they have it, as those of models with a head have.

    Returns:
      Arrays in the dtypes of the file.

    Raises:
      ImportError: if safetensors is not installed.
      ValueError: if there is no such file, or it is damaged.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise ImportError(
            "a checkpoint needs safetensors: pip install 'async_optax[models]'"
        ) from error
    path = folder / "model.safetensors"
    if not path.is_file():
        raise ValueError(f"the checkpoint has no weights: {path} is not a file")
    try:
        # As JAX arrays: NumPy has no bfloat16 of its own.
        with safe_open(path, framework="flax") as file:
            return {name.removeprefix(prefix): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error


def assigned(
    module: nn.Module,
    example: tuple[Any, ...],
    tensors: Mapping[str, Any],
    name_of: Callable[[Place], str | None],
    may_miss: frozenset[str] = frozenset(),
) -> Pretrained:
    """Puts tensors in the places of a model's parameters.

    Args:
      module: the model.
      example: arguments to initialise it with, for the shapes of its parameters.
      tensors: by name. Those that no place asks for are left out: other heads, buffers.
      name_of: from a place to a tensor's name; ``None``: it is to start afresh.
      may_miss: names at the top that start afresh if the checkpoint has not all of their tensors.

    Returns:
      Parameters in float32; a kernel is the transpose of PyTorch's ``weight [out, in]``.

    Raises:
      ValueError: naming the first tensor that is missing or of another shape.
    """
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *example)["params"])
    flat = jax.tree_util.tree_leaves_with_path(shapes)
    places = {tuple(part.key for part in path): leaf.shape for path, leaf in flat}
    fresh = {place[0] for place in places if name_of(place) is None}
    fresh |= {
        place[0] for place in places if place[0] in may_miss and name_of(place) not in tensors
    }
    params: dict[str, Any] = {}
    for place, shape in places.items():
        name = name_of(place)
        if place[0] in fresh or name is None:
            continue
        if name not in tensors:
            raise ValueError(f"the checkpoint has no tensor {name!r}, for {'/'.join(place)}")
        value = np.asarray(tensors[name], np.float32)
        turned = place[-1] == "kernel"
        wanted = shape[::-1] if turned else shape
        if value.shape != wanted:
            raise ValueError(
                f"tensor {name!r} must have shape {list(wanted)}, got {list(value.shape)}"
            )
        node = params
        for part in place[:-1]:
            node = node.setdefault(part, {})
        node[place[-1]] = jnp.asarray(value.T if turned else value)
    return Pretrained(module, params, tuple(sorted(fresh)))
