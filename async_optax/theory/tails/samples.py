"""Samples that a tail is fitted to."""

from typing import Any

import numpy as np


def sizes_of(samples: Any, at_least: int) -> np.ndarray:
    """Returns the magnitudes that are not zero, the largest first, float64.

    Args:
      samples: real numbers of any shape, such as coordinates or norms of noise.
      at_least: how many of them must not be zero.

    Raises:
      TypeError: if they are not real numbers.
      ValueError: if one is not finite, or too few are not zero.

    Example:
      >>> sizes_of([1.0, -3.0, 0.0, 2.0], at_least=2)
      array([3., 2., 1.])
    """
    given = as_samples(samples)
    sizes = np.sort(np.abs(given[given != 0]).ravel())[::-1]
    if len(sizes) < at_least:
        raise ValueError(
            f"samples must hold at least {at_least} numbers that are not zero, got {len(sizes)}"
        )
    return sizes


def as_samples(samples: Any) -> np.ndarray:
    """Returns ``samples`` as a float64 array of at least one dimension, all finite, or raises."""
    given = np.atleast_1d(np.asarray(samples))
    if given.dtype.kind in "bOUSMmc":
        raise TypeError(f"samples must be real numbers, got {given.dtype}")
    given = given.astype(np.float64)
    if not given.size:
        raise ValueError("samples must hold at least one number, got none")
    if not np.isfinite(given).all():
        raise ValueError("samples must be finite, got NaN or infinity")
    return given
