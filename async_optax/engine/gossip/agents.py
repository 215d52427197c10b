"""The problem of many agents: each trains its own copy of the parameters, on batches of its own."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.tree_util import Partial

from async_optax.data import Streamed
from async_optax.engine.gossip.consensus import distance_from_mean, mean_agent
from async_optax.engine.problem import Problem
from async_optax.validation import require_count

_STARTS = ("equal", "own")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AgentsProblem(Problem):
    """The problem that :func:`problem` returns: parameters are stacked along their first axis.

    Attributes:
      num_agents: n, the length of that axis.
      starts: how agents start, ``"equal"`` or ``"own"``.
    """

    num_agents: int = dataclasses.field(kw_only=True, metadata={"static": True})
    starts: str = dataclasses.field(kw_only=True, metadata={"static": True})

    @property
    def agent(self) -> Problem:
        """The problem of one agent, which gets its index as ``worker``, to compute with.

        It is read out of the functions, where its data is held once; so only ``evaluate``, which
        it is without, may have been replaced.
        """
        wrapped: dict[str, Callable] = {"init": _init, "loss": _loss, "batch": _batch}
        if self.noise is not None:
            wrapped["noise"] = _noise
        return Problem(**{name: self._inner(name, wrapper) for name, wrapper in wrapped.items()})

    def _inner(self, name: str, wrapper: Callable) -> Any:
        function = getattr(self, name)
        if isinstance(function, Partial) and function.func is wrapper:
            return function.args[-1]
        raise TypeError(
            f"problem.{name} must be the one that gossip.problem made, got {function!r}: replace "
            "the function of the agent's problem instead"
        )

    def with_noise(self, noise: Callable | None) -> "AgentsProblem":
        """Returns the problem with ``noise`` added to every agent's gradient."""
        stacked = None if noise is None else Partial(_noise, self.num_agents, noise)
        return dataclasses.replace(self, noise=stacked)


def problem(
    agent: Problem, num_agents: int, *, starts: str = "equal", each_agent: bool = False
) -> AgentsProblem:
    """Gives each of n agents its own parameters and batches of one problem.

    Parameters, batches and gradients are those of ``agent`` with a leading axis of n. Agent i
    draws ``agent.batch(key_i, worker=i)``, so that data may be split by worker, and its keys are
    ``key_i = fold_in(key, i)``. The loss is the mean over agents, each at its own parameters and
    on its own batch; its derivative by the parameters of agent i is that of the agent's own loss,
    not divided by n. The noise of ``agent`` is drawn for each. ``evaluate`` gives the metrics of
    the mean of the agents' parameters, and ``consensus_distance``, the root-mean-square distance
    of the agents from their mean (:func:`distance_from_mean`).

    Args:
      agent: the problem of one agent; its data is not streamed.
      num_agents: n >= 1.
      starts: ``"equal"``: all agents start at ``agent.init(key)``; ``"own"``: agent i at
        ``agent.init(fold_in(key, i))``.
      each_agent: whether to evaluate every agent too, at n times the cost: to each metric come
        ``lowest_``, ``mean_`` and ``highest_``, over the agents.

    Returns:
      A problem for :func:`async_optax.simulate`; as ``worker`` pass
      :func:`async_optax.gossip.gradients`, which gives the agents' gradients one after another
      (the default, ``ao.gradient()``, computes those of all side by side).

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if ``num_agents`` or ``starts`` is out of range, data is streamed or too little
        for n workers, or there is nothing to evaluate for each agent.

    Example:
      >>> import async_optax as ao
      >>> from async_optax.problems import digits
      >>> agents = ao.gossip.problem(digits(hidden=(8,)), num_agents=4)
      >>> params = agents.init(jax.random.key(0))
      >>> params[0]["kernel"].shape
      (4, 64, 8)
      >>> sorted(agents.evaluate(params))
      ['accuracy', 'consensus_distance', 'test_loss']
    """
    if not isinstance(agent, Problem):
        raise TypeError(f"agent must be an async_optax.Problem, got {type(agent).__name__}")
    if isinstance(agent, AgentsProblem):
        raise TypeError("agent must be the problem of one agent, got one of many agents")
    require_count("num_agents", num_agents)
    if starts not in _STARTS:
        raise ValueError(f"starts must be one of {', '.join(_STARTS)}; got {starts!r}")
    if isinstance(agent.batch, Streamed):
        raise ValueError("agent must hold its data in memory: streamed data has no agents")
    if each_agent and agent.evaluate is None:
        raise ValueError("each_agent needs agent.evaluate, which is None")
    agent.check()
    _require_data(agent, num_agents)
    agents = AgentsProblem(
        init=Partial(_init, num_agents, starts, agent.init),
        loss=Partial(_loss, num_agents, agent.loss),
        batch=Partial(_batch, num_agents, agent.batch),
        evaluate=Partial(_evaluate, each_agent, agent.evaluate),
        num_agents=num_agents,
        starts=starts,
    )
    return agents.with_noise(agent.noise)


def require_agents(problem: Problem) -> AgentsProblem:
    """Returns the problem if it is one of many agents, or raises ``TypeError``."""
    if not isinstance(problem, AgentsProblem):
        raise TypeError(
            f"problem must be of many agents, gossip.problem(...), got {type(problem).__name__}"
        )
    return problem


def require_served(problem: AgentsProblem, served: Any, num_copies: int | None, hint: str) -> None:
    """Raises unless what is served has the shapes of one agent's parameters, or of a stack.

    Args:
      problem: of many agents.
      served: what a worker reads; of another structure than the parameters it passes unseen.
      num_copies: length of the leading axis that is due, or ``None``: without.
      hint: what to do, for the message.

    Raises:
      ValueError: naming the first leaf of another shape.
    """
    own = jax.eval_shape(problem.agent.init, jax.eval_shape(lambda: jax.random.key(0)))
    structures: list[Any] = [jax.tree.structure(tree) for tree in (own, served)]
    if structures[0] != structures[1]:
        return
    axis = () if num_copies is None else (num_copies,)
    leaves = jax.tree_util.tree_leaves_with_path(own)
    for (path, x), found in zip(leaves, jax.tree.leaves(served), strict=True):
        if jnp.shape(found) != (*axis, *x.shape):
            raise ValueError(
                f"params{jax.tree_util.keystr(path)} must have shape {(*axis, *x.shape)} as a "
                f"worker reads them, got {jnp.shape(found)}: {hint}"
            )


def agent_keys(key: jax.Array, num_agents: int) -> jax.Array:
    """Returns the key of each agent, ``fold_in(key, i)``, ``[num_agents]``."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(num_agents))


def _require_data(agent: Problem, num_agents: int) -> None:
    """Lets ``agent.batch`` see the highest index concretely: in a run it is traced."""
    last: Any = np.int32(num_agents - 1)
    try:
        jax.eval_shape(lambda key: agent.batch(key, last), jax.random.key(0))
    except ValueError as error:
        raise ValueError(f"agent.batch, of {num_agents} agents: {error}") from error


def _init(num_agents: int, starts: str, init: Callable, key: jax.Array) -> optax.Params:
    if starts == "own":
        return lax.map(init, agent_keys(key, num_agents))
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (num_agents, *jnp.shape(x))), init(key))


def _loss(
    num_agents: int, loss: Callable, params: optax.Params, batch: Any, key: jax.Array
) -> jax.Array:
    losses = jax.vmap(loss)(params, batch, agent_keys(key, num_agents))
    total = jnp.sum(losses)
    # The value of the mean with the derivative of the sum: agents do not share a step.
    return lax.stop_gradient(jnp.mean(losses)) + (total - lax.stop_gradient(total))


def _batch(num_agents: int, batch: Callable, key: jax.Array, worker: jax.Array) -> Any:
    del worker  # one job is a round of all agents
    agents = jnp.arange(num_agents, dtype=jnp.int32)
    return lax.map(lambda args: batch(*args), (agent_keys(key, num_agents), agents))


def _noise(
    num_agents: int, noise: Callable, key: jax.Array, gradient: optax.Updates
) -> optax.Updates:
    return lax.map(lambda args: noise(*args), (agent_keys(key, num_agents), gradient))


def _evaluate(
    each_agent: bool, evaluate: Callable | None, params: optax.Params
) -> Mapping[str, jax.Array]:
    metrics = {"consensus_distance": distance_from_mean(params)}
    if evaluate is None:
        return metrics
    of_mean = dict(evaluate(mean_agent(params)))
    if each_agent:
        for name, values in lax.map(evaluate, params).items():
            metrics |= {
                f"lowest_{name}": jnp.min(values),
                f"mean_{name}": jnp.mean(values),
                f"highest_{name}": jnp.max(values),
            }
    taken = set(of_mean) & set(metrics)
    if taken:
        raise ValueError(f"agent.evaluate must not use the names {', '.join(sorted(taken))}")
    return of_mean | metrics
