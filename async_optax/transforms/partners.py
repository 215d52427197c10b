"""Who averages with whom: an agent's partners in a graph, and the draw of one of them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from async_optax.transforms.graph_checks import distances, require_connected, require_square
from async_optax.validation import require_count

_MAX_SEED = 1 << 24  # exact as a float32, which is what sweeps make of numbers


class Partners(NamedTuple):
    """The partners of all agents, as tables.

    Attributes:
      candidates: int32 ``[num_agents, max_degree]``, each agent's partners in ascending order,
        then its own index. An agent that averages with nobody has itself as its only partner.
      degree: int32 ``[num_agents]``, how many partners it has, >= 1.
    """

    candidates: jax.Array | np.ndarray
    degree: jax.Array | np.ndarray


def partners_of(graph: Any, *, active: Any = None) -> Partners:
    """Lists the partners of each agent in a graph.

    Args:
      graph: a mixing, such as ``topologies.ring(8)``, or a square matrix ``[num_agents,
        num_agents]`` of booleans or numbers: agents i and j are linked if entry (i, j) or (j, i)
        is not zero. Neither weights nor the diagonal matter.
      active: booleans ``[num_agents]``, the agents that ask for averaging when they arrive;
        ``None``: all. If given, every link must join an agent that asks and one that does not:
        the bipartite form, in which no cycle of agents can wait for each other.

    Returns:
      The tables.

    Raises:
      TypeError: if the graph is not made of numbers.
      ValueError: if the graph is not square, not finite or not connected, naming agents that
        cannot be reached; or if ``active`` does not fit it.

    Example:
      >>> ring = [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
      >>> partners_of(ring).candidates.tolist()
      [[1, 2], [0, 2], [0, 1]]
    """
    links = _links(graph)
    num_agents = len(links)
    if active is not None:
        asks = np.asarray(active)
        if asks.shape != (num_agents,) or asks.dtype != np.bool_:
            raise ValueError(
                f"active must be {num_agents} booleans, one per agent, got {asks.dtype} of shape "
                f"{asks.shape}"
            )
        alike = links & (asks[:, np.newaxis] == asks)
        if alike.any():
            one, other = np.argwhere(alike)[0]
            kind = "active" if asks[one] else "passive"
            raise ValueError(
                f"active must leave no link between agents of one kind: {one} and {other} are "
                f"linked and both {kind}"
            )
        links &= asks[:, np.newaxis]
    degree = np.maximum(links.sum(axis=1), 1)
    candidates = np.tile(np.arange(num_agents, dtype=np.int32)[:, np.newaxis], int(degree.max()))
    for agent, row in enumerate(links):
        found = np.flatnonzero(row)
        candidates[agent, : len(found)] = found
    return Partners(candidates, degree.astype(np.int32))


def active_half(graph: Any) -> np.ndarray:
    """Divides a bipartite graph: agent 0 and all agents at an even distance from it are active.

    Args:
      graph: as for :func:`partners_of`.

    Returns:
      Booleans ``[num_agents]``.

    Raises:
      ValueError: if a cycle has an odd length; two neighbours on one side are named.

    Example:
      >>> active_half([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
      array([ True, False,  True])
    """
    links = _links(graph)
    even = distances(links) % 2 == 0
    alike = links & (even[:, np.newaxis] == even)
    if alike.any():
        one, other = np.argwhere(alike)[0]
        raise ValueError(
            f"graph must be bipartite, but agents {one} and {other} are on one side and linked"
        )
    return even


def draw_partner(
    partners: Partners, seed: ArrayLike, step: ArrayLike, agent: ArrayLike
) -> jax.Array:
    """Draws one of an agent's partners, all equally likely.

    Args:
      partners: from :func:`partners_of`.
      seed: an integer, or a float that is one.
      step: int32 scalar, arrivals before this one: the draw's key is ``fold_in(key(seed), step)``.
      agent: int32 scalar.

    Returns:
      int32 scalar; the agent itself if it averages with nobody.

    Example:
      >>> print(draw_partner(partners_of([[0, 1], [1, 0]]), seed=0, step=5, agent=1))
      0
    """
    key = jax.random.key(jnp.asarray(seed).astype(jnp.uint32), impl="threefry2x32")
    limit = jnp.asarray(partners.degree)[agent]
    draw = jax.random.randint(jax.random.fold_in(key, step), (), 0, limit)
    return jnp.asarray(partners.candidates)[agent, draw]


def partner_sequence(graph: Any, agents: Any, *, active: Any = None, seed: int = 0) -> np.ndarray:
    """Returns with whom each arrival averages, as :func:`average_pairs` will draw it.

    Args:
      graph: as for :func:`partners_of`.
      agents: integers ``[num_arrivals]``, who arrives: ``timeline.worker``.
      active: as for :func:`partners_of`.
      seed: an integer >= 0.

    Returns:
      int32 ``[num_arrivals]``.

    Raises:
      TypeError: if ``seed`` is not an integer.
      ValueError: if an argument is out of range.

    Example:
      >>> partner_sequence([[0, 1], [1, 0]], [0, 0, 1])
      array([1, 1, 0], dtype=int32)
    """
    require_partner_seed(seed)
    partners = partners_of(graph, active=active)
    agents, num_agents = np.asarray(agents), len(partners.degree)
    if agents.dtype.kind not in "iu" or agents.ndim != 1:
        raise ValueError(f"agents must be a list of integers, got {agents.dtype} {agents.shape}")
    strange = agents[(agents < 0) | (agents >= num_agents)]
    if len(strange):
        raise ValueError(f"agents must be integers in [0, {num_agents}), got {strange[0]}")
    steps = np.arange(len(agents), dtype=np.int32)
    draw = jax.vmap(draw_partner, in_axes=(None, None, 0, 0))
    return np.asarray(draw(partners, seed, steps, agents.astype(np.int32)))


def require_partner_seed(seed: Any) -> None:
    """Raises unless ``seed`` is an integer in [0, 2**24), which a float32 holds exactly."""
    require_count("seed", seed, at_least=0)
    if seed >= _MAX_SEED:
        raise ValueError(f"seed must be an integer >= 0 and < 2**24, got {seed}")


def _links(graph: Any) -> np.ndarray:
    """The links without the diagonal, both ways; raises unless they connect all agents."""
    links_of = getattr(graph, "links", None)
    matrix = require_square("graph", links_of() if callable(links_of) else graph)
    if not np.isfinite(matrix).all():
        i, j = np.argwhere(~np.isfinite(matrix))[0]
        raise ValueError(f"graph must have finite entries, got graph[{i}, {j}]={matrix[i, j]}")
    links = (matrix != 0) | (matrix.T != 0)
    np.fill_diagonal(links, False)
    require_connected("graph", links)
    return links
