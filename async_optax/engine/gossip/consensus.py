"""Consensus: the mean of the agents, and how far they are from it."""

import jax
import jax.numpy as jnp
import optax
from jax import lax

from async_optax.engine.record import ArrivalInfo
from async_optax.transforms.precision import global_norm, working_dtype


def mean_agent(params: optax.Params) -> optax.Params:
    """Returns the mean of the agents' parameters, the model that is evaluated.

    Args:
      params: stacked along the first axis, ``[num_agents, ...]``.

    Returns:
      A pytree without that axis, in the dtypes of ``params``; means are taken in at least float32.

    Example:
      >>> print(mean_agent(jnp.array([[1.0, 2.0], [3.0, 6.0]])))
      [2. 4.]
    """
    return jax.tree.map(lambda x: jnp.mean(x, 0, dtype=working_dtype(x)).astype(x.dtype), params)


def distance_from_mean(params: optax.Params) -> jax.Array:
    """Returns ``sqrt(mean over agents of norm(x_i - mean(x))**2)``, norms over all parameters.

    Args:
      params: stacked along the first axis, ``[num_agents, ...]``.

    Returns:
      A scalar >= 0, in at least float32.

    Example:
      >>> print(distance_from_mean({"w": jnp.array([[1.0], [5.0]])}))
      2.0
    """
    mean = jax.tree.map(lambda x: jnp.mean(x, 0, dtype=working_dtype(x)), params)

    def from_mean(agent: optax.Params) -> jax.Array:
        return global_norm(jax.tree.map(lambda x, m: x.astype(m.dtype) - m, agent, mean))

    # One agent at a time: differences of all would be another stack.
    distances = lax.map(from_mean, params)
    return global_norm(distances) / len(distances) ** 0.5


def consensus_distance(info: ArrivalInfo) -> jax.Array:
    """The recorder of :func:`distance_from_mean`, for ``simulate(record={...})``.

    It is refused for problems that are not of many agents, whose parameters have no axis of theirs.

    Args:
      info: of an arrival; its parameters are those before it.

    Returns:
      A scalar >= 0.
    """
    return distance_from_mean(info.params)


consensus_distance.is_of_agents = True  # type: ignore[attr-defined]
