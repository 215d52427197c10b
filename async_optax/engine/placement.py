"""Where arrays lie on a mesh, of one process or several."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def on_device(leaf: Any) -> Any:
    """Returns a NumPy array as one of JAX, lest every call of a program uploads it anew."""
    return jnp.asarray(leaf) if isinstance(leaf, np.ndarray) and leaf.ndim else leaf


def placed(mesh: Mesh, tree: Any, spec: PartitionSpec | None = None) -> Any:
    """Returns a pytree with its arrays on a mesh, by default whole on every device.

    On a mesh of several processes each must give the same values. Python numbers and NumPy
    arrays stay as they are: a compiled program takes them as it needs them, and a number keeps
    its weak type.
    """
    place = NamedSharding(mesh, PartitionSpec() if spec is None else spec)

    def put(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array):
            return leaf
        if place.is_fully_addressable:
            return jax.device_put(leaf, place)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            words = put(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
        values = np.asarray(leaf)
        return jax.make_array_from_callback(values.shape, place, lambda index: values[index])

    return jax.tree.map(put, tree)


def gathered(tree: Any) -> Any:
    """Returns a pytree whose arrays every device, or at least every process, has as a whole."""

    def gather(leaf: jax.Array) -> Any:
        if leaf.is_fully_replicated:
            return leaf
        if leaf.is_fully_addressable:
            assert isinstance(leaf.sharding, NamedSharding)
            return jax.device_put(leaf, NamedSharding(leaf.sharding.mesh, PartitionSpec()))
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            words = gather(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(gather, tree)
