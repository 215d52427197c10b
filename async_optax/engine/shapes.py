"""Shapes of what a run passes on: equal structures have equal ones, so they are traced once."""

import dataclasses
from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import optax


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Shapes and dtypes of what passes between a server and its workers.

    Attributes:
      params: the server's parameters.
      state: the optimizer's state.
      served: what a worker reads: the parameters, or what the optimizer serves instead.
      serves_current: whether a worker that reads now gets the parameters themselves.
      sent: what it sends.
      metrics: the names of what is evaluated, sorted.
    """

    params: optax.Params
    state: optax.OptState
    served: Any
    serves_current: bool
    sent: optax.Updates
    metrics: tuple[str, ...]


def likeness(tree: Any) -> Hashable:
    """Returns the structure of a pytree of numbers, arrays or shapes, with its shapes and dtypes.

    Python's floats are told from arrays: traced, they are weakly typed.

    Example:
      >>> likeness([1.0, jnp.zeros(2)]) == likeness([2.0, jnp.ones(2)])
      True
      >>> likeness(1.0) == likeness(jnp.float32(1.0))
      False
    """
    leaves, treedef = jax.tree.flatten(tree)
    forms = [(jnp.shape(x), jnp.result_type(x), isinstance(x, float)) for x in leaves]
    return treedef, tuple(forms)
