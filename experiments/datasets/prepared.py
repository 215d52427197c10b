"""Where data lies, and opening what TensorFlow Datasets has prepared, without TensorFlow."""

import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import Any

_VARIABLE = "ASYNC_OPTAX_DATA"


def data_folder(data_dir: str | Path | None = None) -> Path | None:
    """Returns the folder with the subfolders ``tfds`` (data sets) and ``models`` (checkpoints).

    Args:
      data_dir: the folder; ``None``: the one that ``ASYNC_OPTAX_DATA`` names.

    Returns:
      The folder; ``None`` if neither names one.

    Raises:
      ValueError: if there is no such folder.
    """
    if data_dir is not None:
        named, by = data_dir, "data_dir"
    else:
        named, by = os.environ.get(_VARIABLE), _VARIABLE
    if not named:
        return None
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise ValueError(
            f"{by} must name a folder that holds tfds/ and models/, got {str(named)!r}"
        )
    return folder


def open_prepared(name: str, split: str, data_dir: str | Path | None = None) -> Any:
    """Opens a data set for random access, as array_record files, which need no TensorFlow.

    It lies in ``tfds/`` of :func:`data_folder`. If no such folder is named, it lies where
    TensorFlow Datasets keeps its own (``~/tensorflow_datasets``), and is downloaded and prepared
    there if need be; for images that takes TensorFlow, once.

    Args:
      name: of the data set and its variant, such as ``"glue/sst2"``.
      split: such as ``"train"``.
      data_dir: see :func:`data_folder`.

    Returns:
      A source with ``len(source)``, ``source[i]`` and ``source.__getitems__(rows)``.

    Raises:
      ImportError: if tensorflow-datasets is not installed.
      ValueError: if the folder does not exist, or the data set is not there and cannot be had.
    """
    folder = data_folder(data_dir)
    tfds = _tensorflow_datasets(name)
    where = None if folder is None else folder / "tfds"
    if where is None:
        _prepare(tfds, name)
    elif not (where / name).is_dir():
        raise ValueError(
            f"{name} is not prepared in {where}: prepare it there (tfds.builder({name!r}, "
            f"data_dir={str(where)!r}, file_format='array_record').download_and_prepare()), or "
            "name no folder"
        )
    try:
        return tfds.data_source(name, split=split, data_dir=where)
    except Exception as error:  # the package raises many kinds
        place = "the folder of TensorFlow Datasets" if where is None else where
        raise ValueError(
            f"split {split!r} of {name} cannot be read from {place}: {_reason(error)}"
        ) from error


def _tensorflow_datasets(name: str) -> ModuleType:
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise ImportError(
            f"{name} needs tensorflow-datasets: pip install 'async_optax[datasets]' ({error})"
        ) from error
    return tensorflow_datasets


def _prepare(tfds: ModuleType, name: str) -> None:
    """Does nothing if it is prepared."""
    try:
        if name.startswith("glue/"):  # where TensorFlow is missing, it is not known before
            importlib.import_module("tensorflow_datasets.text.glue")
        tfds.builder(name, file_format="array_record").download_and_prepare()
    except Exception as error:  # no network, no room, no TensorFlow to encode images with
        reason = _reason(error)
        raise ValueError(f"{name} could not be downloaded and prepared: {reason}") from error


def _reason(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else repr(error)
