"""A run's state as plain arrays, and back: keys, shardings and empty arrays included."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class ArrayForm:
    """What is known of an array without its contents.

    Attributes:
      name: where it belongs, such as ``state.params['w']``.
      kind: the dtype that it has in the run, such as ``key<fry>``.
      dtype: the dtype that is stored, such as ``uint32``.
      shape: the shape that is stored.
    """

    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.kind}{list(self.shape)}"


def named_leaves(name: str, tree: Any) -> dict[str, Any]:
    """Returns the leaves of a pytree by their paths, in its order."""
    leaves: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        leaf_name = name + jax.tree_util.keystr(path)
        while leaf_name in leaves:  # a node of the user's may call its children as it likes
            leaf_name += "'"
        leaves[leaf_name] = leaf
    return leaves


def form_of(name: str, leaf: Any) -> ArrayForm:
    """Returns the form of an array, or of a ``jax.ShapeDtypeStruct``.

    Raises:
      TypeError: if it is not an array of numbers, booleans or keys.
    """
    dtype = getattr(leaf, "dtype", None)
    if dtype is None or (isinstance(dtype, np.dtype) and (dtype.kind in "OSUMm" or dtype.names)):
        raise TypeError(
            f"{name} must be an array of numbers, booleans or keys to be saved, got {leaf!r}"
        )
    stored = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
    return ArrayForm(name, str(dtype), str(stored.dtype), tuple(stored.shape))


def to_host(name: str, leaf: Any) -> np.ndarray:
    """Returns what is stored of an array.

    Raises:
      ValueError: if parts of it are on devices of other processes.
    """
    if isinstance(leaf, jax.Array):
        if not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            raise ValueError(
                f"{name} must be whole in every process to be saved, got the sharding "
                f"{leaf.sharding}"
            )
        if _is_key(leaf):
            leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def from_host(form: ArrayForm, array: np.ndarray, like: Any) -> Any:
    """Returns the array that was saved, where ``like`` is.

    Args:
      form: of ``like``.
      array: what was stored of it.
      like: an array or a ``jax.ShapeDtypeStruct``.

    Raises:
      ValueError: if JAX does not keep its dtype as it is set up.
    """
    if isinstance(like, np.ndarray | np.generic):
        return array
    # An array that nobody has put anywhere must stay so: else the program compiles again.
    placed = not isinstance(like, jax.Array) or like.committed
    sharding = getattr(like, "sharding", None) if placed else None
    if sharding is None:
        restored = jnp.array(array)
    else:
        restored = jax.make_array_from_callback(
            array.shape, sharding, lambda index: np.asarray(array[index])
        )
    if str(restored.dtype) != form.dtype:
        raise ValueError(
            f"{form.name} was saved as {form.dtype}, which needs jax_enable_x64; it would be "
            f"restored as {restored.dtype}"
        )
    return jax.random.wrap_key_data(restored, impl=_generator(like)) if _is_key(like) else restored


def difference(saved: Sequence[ArrayForm], expected: Sequence[ArrayForm]) -> str | None:
    """Says where two states first differ in their names, dtypes or shapes."""
    for one, other in zip(saved, expected, strict=False):
        if one != other:
            return f"{one} is saved where this run has {other}"
    if len(saved) != len(expected):
        return f"{len(saved)} arrays are saved where this run has {len(expected)}"
    return None


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _generator(like: Any) -> Any:
    found = []
    # Only arrays know their generator, traced ones included.
    jax.eval_shape(lambda keys: found.append(jax.random.key_impl(keys)), like)
    return found[0]
