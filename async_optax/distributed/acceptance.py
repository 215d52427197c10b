"""What a server takes from a worker: updates of the right form, of finite numbers."""

from typing import Any

import jax
import numpy as np

from async_optax.distributed.packing import unpack

_CHUNK = 1 << 16  # numbers: they stay in the cache between two looks


def unpacked(packed: Any, like: Any) -> list[np.ndarray]:
    """Returns the leaves of an update that a worker has sent.

    Args:
      packed: what came.
      like: a pytree of shapes and dtypes as they should be.

    Raises:
      ValueError: if it cannot be used, saying why.

    Example:
      >>> like = {"w": jax.ShapeDtypeStruct((2,), "float32")}
      >>> unpacked([np.array([1, np.nan], np.float32)], like)
      Traceback (most recent call last):
      ...
      ValueError: the update is not finite at ['w']
    """
    expected = jax.tree_util.tree_leaves_with_path(like)
    try:
        leaves = unpack(packed)
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(f"the update cannot be unpacked: {error}") from error
    if len(leaves) != len(expected):
        raise ValueError(f"the update has {len(leaves)} arrays instead of {len(expected)}")
    for leaf, (path, form) in zip(leaves, expected, strict=True):
        name = jax.tree_util.keystr(path)
        found = getattr(leaf, "dtype", type(leaf).__name__), getattr(leaf, "shape", None)
        if not isinstance(leaf, np.ndarray) or found != (form.dtype, form.shape):
            raise ValueError(
                f"the update must be {form.dtype}{list(form.shape)} at {name}, got {found[0]}"
                + ("" if found[1] is None else f"{list(found[1])}")
            )
    for leaf, (path, _) in zip(leaves, expected, strict=True):
        if not _is_finite(leaf):
            raise ValueError(f"the update is not finite at {jax.tree_util.keystr(path)}")
    return leaves


def _is_finite(leaf: np.ndarray) -> bool:
    """Whether all numbers are finite: by the extremes, which need no second array."""
    flat = leaf.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        chunk = flat[start : start + _CHUNK]
        if not (np.isfinite(chunk.min()) and np.isfinite(chunk.max())):
            return False
    return True
