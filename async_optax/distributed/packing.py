"""How updates travel: whole, or as little as what they hold, without loss."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

_BF16 = np.dtype(jnp.bfloat16)


class SparseArray(NamedTuple):
    """An array of which most is zero.

    Attributes:
      shape: of the array.
      places: positions of what is not zero in the flattened array.
      values: what is there.
    """

    shape: tuple[int, ...]
    places: np.ndarray
    values: np.ndarray


class NarrowArray(NamedTuple):
    """An array of which every number is one of bfloat16.

    Attributes:
      dtype: of the array.
      bits: uint16, of the numbers.
    """

    dtype: str
    bits: np.ndarray


def pack(form: str | None, leaves: list[np.ndarray]) -> list[Any]:
    """Packs arrays; what :func:`unpack` returns is equal to them.

    Args:
      form: ``"sparse"`` if most is zero, ``"bfloat16"`` if every number is one of those, ``None``
        for arrays as they are.
      leaves: floating-point arrays.

    Returns:
      One packed array each.

    Example:
      >>> packed = pack("sparse", [np.array([0.0, 2.0, 0.0])])
      >>> packed[0].places, unpack(packed)
      (array([1], dtype=int32), [array([0., 2., 0.])])
    """
    if form == "bfloat16":
        return [NarrowArray(str(x.dtype), x.astype(_BF16).view(np.uint16)) for x in leaves]
    if form == "sparse":
        return [_sparse(x) for x in leaves]
    return leaves


def unpack(packed: list[Any]) -> list[np.ndarray]:
    """Returns the arrays that :func:`pack` has packed."""
    return [_whole(x) for x in packed]


def _sparse(x: np.ndarray) -> SparseArray:
    flat = x.reshape(-1)
    places = np.flatnonzero(flat)
    small = places.astype(np.int32) if flat.size < 2**31 else places
    return SparseArray(x.shape, small, flat[places])


def _whole(packed: Any) -> np.ndarray:
    match packed:
        case SparseArray(shape, places, values):
            flat = np.zeros(int(np.prod(shape)), values.dtype)
            flat[places] = values
            return flat.reshape(shape)
        case NarrowArray(dtype, bits):
            return bits.view(_BF16).astype(dtype)
    return packed
