"""Initial parameters of a model: drawn, or trained ones with what is missing drawn."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from experiments.models.linen import nn


def initialiser(
    module: nn.Module, example: tuple[Any, ...], pretrained: Mapping[str, Any] | None = None
) -> Callable[[jax.Array], dict[str, Any]]:
    """Returns ``init(key)`` for a problem.

    Args:
      module: the model.
      example: arrays to call it with; only their shapes and dtypes count.
      pretrained: parameters that are not drawn, by their names at the top; leaves of ``init``.

    Returns:
      A function from a key to parameters, a dictionary of dictionaries of arrays.

    Raises:
      ValueError: if a trained parameter is unknown to the model, or has another shape.
    """
    inputs = tuple((np.shape(x), np.dtype(x.dtype)) for x in example)
    pretrained = dict(pretrained or {})
    expected = jax.eval_shape(lambda key: _drawn(module, inputs, key), jax.random.key(0))
    for name, tree in pretrained.items():
        shapes, wanted = (jax.tree.map(jnp.shape, x) for x in (tree, expected.get(name)))
        if shapes != wanted:
            raise ValueError(f"pretrained[{name!r}] must have the shapes {wanted}, got {shapes}")
    return Partial(_Init(module, inputs), pretrained)


@dataclasses.dataclass(frozen=True)
class _Init:
    module: nn.Module
    inputs: tuple[tuple[tuple[int, ...], np.dtype], ...]

    def __call__(self, pretrained: dict[str, Any], key: jax.Array) -> dict[str, Any]:
        return _drawn(self.module, self.inputs, key) | pretrained


@functools.partial(jax.jit, static_argnums=(0, 1))
def _drawn(module: nn.Module, inputs: Any, key: jax.Array) -> dict[str, Any]:
    # Compiled as one: the pass forward, which Flax makes to find the shapes, is dropped.
    example = [jnp.zeros(shape, dtype) for shape, dtype in inputs]
    return module.init(key, *example)["params"]
