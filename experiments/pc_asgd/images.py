"""Images to classify: scikit-learn's digits, which are embedded, or CIFAR-10 if it is at hand."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from async_optax.data.loading import Loader

_DIGITS_TEST = 360


class Images(NamedTuple):
    """A data set in memory.

    Attributes:
      train: uint8 ``[num_train, height, width, channels]``.
      train_labels: int32 ``[num_train]``.
      test: uint8, likewise.
      test_labels: int32.
    """

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def digits() -> Images:
    """Returns 1437 training and 360 test images of 8x8 pixels, split by a fixed permutation.

    Raises:
      ImportError: if scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "the digits need scikit-learn: pip install 'async_optax[experiments]'"
        ) from error
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(labels))
    images = (pixels[order] * (255 / 16)).round().astype(np.uint8).reshape(-1, 8, 8, 1)
    labels = labels[order].astype(np.int32)
    test, train = slice(_DIGITS_TEST), slice(_DIGITS_TEST, None)
    return Images(images[train], labels[train], images[test], labels[test])


def cifar10(num_train: int | None = None, num_test: int | None = None) -> Images:
    """Returns CIFAR-10, or its first examples, as TensorFlow Datasets has prepared it.

    It lies in the folder ``tfds`` of the folder that the environment variable
    ``ASYNC_OPTAX_DATA`` names; if it is missing it is downloaded there.

    Args:
      num_train: training images, at most 50 000; ``None``: all.
      num_test: test images, at most 10 000; ``None``: all.

    Raises:
      ImportError: if tensorflow-datasets is not installed.
      ValueError: if ``ASYNC_OPTAX_DATA`` is not set.
    """
    folder = os.environ.get("ASYNC_OPTAX_DATA")
    if not folder:
        raise ValueError("ASYNC_OPTAX_DATA is not set: it names the folder that holds tfds/")
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            "CIFAR-10 needs tensorflow-datasets: pip install 'async_optax[datasets]'"
        ) from error
    data_dir = Path(folder) / "tfds"
    if not (data_dir / "cifar10").exists():
        tfds.builder(
            "cifar10", data_dir=data_dir, file_format="array_record"
        ).download_and_prepare()
    parts: list[np.ndarray] = []
    for split, number in (("train", num_train), ("test", num_test)):
        source = tfds.data_source("cifar10", split=split, data_dir=data_dir)
        rows = np.arange(len(source) if number is None else number)
        loaded = Loader(source, _numbers).load(rows)
        parts += [loaded["image"], loaded["label"].astype(np.int32)]
    return Images(*parts)


def _numbers(example: dict[str, Any]) -> dict[str, Any]:
    return {"image": example["image"], "label": example["label"]}


SOURCES: dict[str, Callable[..., Images]] = {"digits": digits, "cifar10": cifar10}
