"""Worker programs of asynchronous gossip: one agent computes, at its own parameters."""

import dataclasses

import jax
import optax

from async_optax.engine.gossip.agents import require_agents, require_served
from async_optax.engine.problem import Problem
from async_optax.engine.worker import WorkerProgram, gradient


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OneAgent:
    """The program that :func:`one_agent` returns."""

    program: WorkerProgram

    def __call__(
        self, problem: Problem, stale_params: optax.Params, worker: jax.Array, key: jax.Array
    ) -> tuple[optax.Updates, jax.Array]:
        """Returns what the agent computed, and its loss."""
        agents = require_agents(problem)
        if agents.starts != "equal":
            raise ValueError(
                f"agents must start at equal parameters, gossip.problem(starts='equal'), got "
                f"{agents.starts!r}: version 0 is served to all of them"
            )
        require_served(
            agents,
            stale_params,
            None,
            "one agent computes under ao.optimizers.ad_psgd; rounds of all agents, such as "
            "d_psgd's, need worker=ao.gossip.gradients()",
        )
        return self.program(agents.agent, stale_params, worker, key)


def one_agent(program: WorkerProgram) -> OneAgent:
    """Runs a worker program for the agent whose job it is, at its own parameters.

    Agent i runs it as worker i, with the job's key: it draws what a worker of a server would.

    Args:
      program: such as :func:`async_optax.local_steps`, for local steps between two averagings.

    Returns:
      A worker program for :func:`async_optax.gossip.problem` under
      :func:`async_optax.optimizers.ad_psgd`, which serves single agents.

    Raises:
      TypeError: if ``program`` is not callable, or keeps a state at its worker: what an agent is
        to keep belongs to the optimizer, which has a state per agent.

    Example:
      >>> import async_optax as ao, jax.numpy as jnp
      >>> problem = ao.Problem(
      ...     init=lambda key: jnp.zeros(1),
      ...     loss=lambda x, batch, key: jnp.sum((x - batch) ** 2) / 2,
      ...     batch=lambda key, worker: jnp.full(1, worker, float),
      ... )
      >>> agents = ao.gossip.problem(problem, num_agents=3)
      >>> update, loss = one_agent(ao.gradient())(agents, jnp.ones(1), 2, jax.random.key(0))
      >>> print(update, loss)
      [-1.] 0.5
    """
    if not callable(program):
        raise TypeError(f"program must be a worker program such as ao.gradient(), got {program!r}")
    if hasattr(program, "init"):
        raise TypeError(f"program must keep no state between its jobs, got {program!r}")
    return OneAgent(program)


def agent_gradient() -> OneAgent:
    """One stochastic gradient of one agent at its own parameters, with the noise of its problem.

    ``one_agent(ao.gradient())``.

    Returns:
      A worker program for :func:`async_optax.gossip.problem` under
      :func:`async_optax.optimizers.ad_psgd`.

    Example:
      >>> agent_gradient() == one_agent(gradient())
      True
    """
    return one_agent(gradient())
