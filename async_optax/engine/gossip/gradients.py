"""The worker program of a round: every agent computes, each at its own parameters."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from async_optax.engine.gossip.agents import agent_keys, require_agents, require_served
from async_optax.engine.problem import Problem
from async_optax.engine.worker import WorkerProgram, gradient
from async_optax.engine.worker_calls import call_worker, initial_state, keeps_state
from async_optax.validation import require_count


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EveryAgent:
    """The program that :func:`every_agent` returns."""

    program: WorkerProgram
    lanes: int = dataclasses.field(metadata={"static": True})

    def __call__(
        self, problem: Problem, stale_params: optax.Params, worker: jax.Array, key: jax.Array
    ) -> tuple[optax.Updates, jax.Array]:
        """Returns what the agents computed, stacked, and the mean of their losses."""
        del worker  # one job is a round of all agents
        update, loss, _ = self.compute(problem, stale_params, key, ())
        return update, loss

    def compute(
        self, problem: Problem, stale_params: optax.Params, key: jax.Array, states: Any
    ) -> tuple[optax.Updates, jax.Array, Any]:
        """Returns also the agents' states after the round, stacked."""
        agents = require_agents(problem)

        def compute(args: Any) -> tuple[optax.Updates, jax.Array, Any]:
            params, index, agent_key, state = args
            return call_worker(self.program, agents.agent, params, index, agent_key, state)

        num_agents = agents.num_agents
        require_served(
            agents,
            stale_params,
            num_agents,
            "all agents compute under ao.optimizers.d_psgd and the like; ad_psgd, which serves "
            "one, needs worker=ao.gossip.agent_gradient()",
        )
        indices = jnp.arange(num_agents, dtype=jnp.int32)
        # A batch of one would be a vmap still, which a CPU runs slower than the bare function.
        lanes = min(self.lanes, num_agents)
        updates, losses, states = lax.map(
            compute,
            (stale_params, indices, agent_keys(key, num_agents), states),
            batch_size=None if lanes == 1 else lanes,
        )
        return updates, jnp.mean(losses), states


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EveryAgentKeepingState(EveryAgent):
    """The program that :func:`every_agent` returns for one whose workers keep a state."""

    def init(self, problem: Problem, params: optax.Params) -> Any:
        """Returns the agents' states before the first round, stacked."""
        agent = require_agents(problem).agent
        return jax.vmap(lambda x: initial_state(self.program, agent, x))(params)

    def __call__(  # type: ignore[override]
        self,
        problem: Problem,
        stale_params: optax.Params,
        worker: jax.Array,
        key: jax.Array,
        state: Any,
    ) -> tuple[optax.Updates, jax.Array, Any]:
        """Returns what the agents computed, the mean of their losses, and their states."""
        del worker
        return self.compute(problem, stale_params, key, state)


def every_agent(program: WorkerProgram, lanes: int = 1) -> EveryAgent | EveryAgentKeepingState:
    """A round in which every agent runs a worker program at its own parameters.

    Agent i runs it as worker i, with the key ``fold_in(key, i)`` of the round's key. What the
    agents send is stacked along the first axis; the loss is the mean of theirs.

    Args:
      program: such as :func:`async_optax.local_steps`, for local steps between two mixings.
      lanes: agents computed side by side, >= 1: 1 is usually fastest on a CPU, where a ``vmap``
        over different parameters does not pay; on a GPU take all agents. Results agree to
        rounding.

    Returns:
      A worker program for :func:`async_optax.gossip.problem`.

    Raises:
      TypeError: if ``program`` is not callable, or ``lanes`` not an integer.
      ValueError: if ``lanes`` is below 1.

    Example:
      >>> import async_optax as ao
      >>> problem = ao.Problem(
      ...     init=lambda key: jnp.zeros(1),
      ...     loss=lambda x, batch, key: jnp.sum((x - batch) ** 2) / 2,
      ...     batch=lambda key, worker: jnp.full(1, worker, float),
      ... )
      >>> agents = ao.gossip.problem(problem, num_agents=3)
      >>> program = every_agent(ao.gradient())
      >>> update, loss = program(agents, jnp.ones((3, 1)), 0, jax.random.key(0))
      >>> print(update.T, loss.round(4))  # agent i is at 1 and wants to be at i
      [[ 1.  0. -1.]] 0.3333
    """
    if not callable(program):
        raise TypeError(f"program must be a worker program such as ao.gradient(), got {program!r}")
    require_count("lanes", lanes)
    kind = EveryAgentKeepingState if keeps_state(program) else EveryAgent
    return kind(program, lanes)


def gradients(lanes: int = 1) -> EveryAgent:
    """One stochastic gradient of every agent at its own parameters, with the noise of its problem.

    They are stacked along the first axis and not divided by the number of agents:
    ``every_agent(ao.gradient(), lanes)``.

    Args:
      lanes: agents computed side by side, >= 1; see :func:`every_agent`.

    Returns:
      A worker program for :func:`async_optax.gossip.problem`.

    Raises:
      TypeError: if ``lanes`` is not an integer.
      ValueError: if it is below 1.

    Example:
      >>> gradients(lanes=4).lanes
      4
    """
    return every_agent(gradient(), lanes)
