"""Asynchronous gossip: agents average in pairs and take steps of their own."""

from typing import Any

import optax
from jax.typing import ArrayLike

from async_optax.transforms import average_pairs, sweepable
from async_optax.validation import require_learning_rate, require_number

_sgd = sweepable(optax.sgd)


def ad_psgd(
    learning_rate: optax.ScalarOrSchedule,
    graph: Any,
    momentum: ArrayLike | None = None,
    *,
    active: Any = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """AD-PSGD: whoever has a gradient averages with one neighbour, then steps; nobody waits.

    When agent i arrives with its gradient g, taken at x_i as it was after its last arrival, and j
    is a random neighbour: ``m <- (x_i + x_j) / 2``, ``x_j <- m``,
    ``x_i <- m - learning_rate * g``. With ``momentum`` each agent has a buffer,
    ``v_i <- momentum * v_i + g``, and steps along it.

    Args:
      learning_rate: a number > 0, or a schedule of the agent's own arrivals.
      graph: a connected graph: a mixing such as ``ao.topologies.ring(8)``, of which only
        the links matter, or a square matrix of links, ``[num_agents, num_agents]``.
      momentum: in [0, 1), or ``None``: without buffers.
      active: booleans ``[num_agents]``, who asks for averaging, in a bipartite graph; ``None``:
        all do. See :func:`async_optax.transforms.active_half`.
      seed: of the choice of neighbours, an integer in [0, 2**24).

    Returns:
      A transformation for the stacked parameters of ``gossip.problem(...)`` with
      ``worker=gossip.agent_gradient()``, under ``protocols.asynchronous()``.

    Raises:
      TypeError: if ``seed`` is not an integer.
      ValueError: if a number is out of range, the graph is not square or not connected, or
        ``active`` does not fit it.

    Example:
      >>> import async_optax as ao, jax, jax.numpy as jnp
      >>> problem = ao.Problem(
      ...     init=lambda key: jnp.zeros(1),
      ...     loss=lambda x, batch, key: jnp.sum((x - batch) ** 2) / 2,
      ...     batch=lambda key, worker: jnp.ones(1),
      ... )
      >>> timeline = ao.simulate_timeline(
      ...     ao.protocols.asynchronous(), ao.runtimes.gamma(), 3, num_commits=60
      ... )
      >>> result = ao.simulate(
      ...     ao.gossip.problem(problem, num_agents=3),
      ...     ad_psgd(0.2, ao.topologies.ring(3)),
      ...     timeline,
      ...     key=jax.random.key(0),
      ...     worker=ao.gossip.agent_gradient(),
      ...     lanes=1,
      ... )
      >>> print(result.params.round(1).T)
      [[1. 1. 1.]]

    References:
      Lian, Zhang, Zhang, Liu, `Asynchronous Decentralized Parallel Stochastic Gradient Descent
      <https://arxiv.org/abs/1710.06952>`_, 2018. Certainty: our reading. There averaging may fall
      anywhere within the computation of a gradient; here it falls at its end. Momentum per agent
      as in the stochastic gradient push repository, where the step comes before averaging.
    """
    require_learning_rate(learning_rate)
    if momentum is not None:
        require_number("momentum", momentum, at_least=0, below=1)
    return average_pairs(graph, _sgd(learning_rate, momentum), active=active, seed=seed)
