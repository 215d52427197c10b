"""Where a run's arrays lie: on one device, or whole on every device of a mesh."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def replicated_on(mesh: Mesh, tree: Any) -> Any:
    """Returns a pytree with its arrays whole on every device of a mesh.

    On a mesh of several processes each must give the same values. Python numbers and NumPy
    arrays stay as they are: a compiled program takes them as replicated, and a number keeps
    its weak type.
    """
    place = NamedSharding(mesh, PartitionSpec())

    def put(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array):
            return leaf
        if place.is_fully_addressable:
            return jax.device_put(leaf, place)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            words = jax.device_put(np.asarray(jax.random.key_data(leaf)), place)
            return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
        return jax.device_put(np.asarray(leaf), place)

    return jax.tree.map(put, tree)
