"""Images to classify: scikit-learn's digits, which are embedded, CIFAR-10, MNIST, Fashion-MNIST."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from async_optax.data.loading import Loader
from async_optax.validation import require_choice, require_count
from experiments.datasets.prepared import open_prepared

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


def prepared_images(
    name: str,
    num_train: int | None = None,
    num_test: int | None = None,
    data_dir: str | Path | None = None,
) -> Images:
    """Returns images that TensorFlow Datasets has prepared, or the first of them.

    Args:
      name: of a data set whose examples have ``image`` and ``label``, in the splits ``train``
        and ``test``.
      num_train: training images; ``None``: all.
      num_test: test images; ``None``: all.
      data_dir: see :func:`experiments.datasets.data_folder`.

    Raises:
      ImportError: if tensorflow-datasets is not installed.
      ValueError: if more images are asked for than there are, or none can be had.
    """
    wanted = (("train", "num_train", num_train), ("test", "num_test", num_test))
    parts: list[np.ndarray] = []
    for split, argument, number in wanted:
        source = open_prepared(name, split, data_dir)
        if number is not None:
            require_count(argument, number)
            if number > len(source):
                raise ValueError(
                    f"{argument} must be at most the {len(source)} of {name}, got {number}"
                )
        rows = np.arange(len(source) if number is None else number)
        loaded = Loader(source, _numbers).load(rows)
        parts += [loaded["image"], loaded["label"].astype(np.int32)]
    return Images(*parts)


def _numbers(example: dict[str, Any]) -> dict[str, Any]:
    return {"image": example["image"], "label": example["label"]}


cifar10 = functools.partial(prepared_images, "cifar10")
"""50 000 and 10 000 images ``[32, 32, 3]``."""
mnist = functools.partial(prepared_images, "mnist")
"""60 000 and 10 000 images ``[28, 28, 1]``."""
fashion_mnist = functools.partial(prepared_images, "fashion_mnist")
"""60 000 and 10 000 images ``[28, 28, 1]``."""

IMAGES: Mapping[str, Callable[..., Images]] = {
    "digits": digits,
    "cifar10": cifar10,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
}


def load_images(name: str, **arguments: Any) -> Images:
    """Returns images by name; all but the digits take those of :func:`prepared_images`.

    Raises:
      ValueError: if the name is unknown.

    Example:
      >>> load_images("digits").train.shape
      (1437, 8, 8, 1)
    """
    require_choice("name", name, tuple(IMAGES))
    return IMAGES[name](**arguments)
