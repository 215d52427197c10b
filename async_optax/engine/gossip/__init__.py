"""Gossip: agents with parameters of their own, mixed over a graph, on the server's engine."""

from async_optax.engine.gossip.agents import AgentsProblem, problem
from async_optax.engine.gossip.consensus import consensus_distance, distance_from_mean, mean_agent
from async_optax.engine.gossip.elastic import ElasticSteps, distance_to_centre, elastic_steps
from async_optax.engine.gossip.gradients import (
    EveryAgent,
    EveryAgentKeepingState,
    every_agent,
    gradients,
)
from async_optax.engine.gossip.pairwise import OneAgent, agent_gradient, one_agent
from async_optax.engine.gossip.timeline import timeline

__all__ = [
    "AgentsProblem",
    "ElasticSteps",
    "EveryAgent",
    "EveryAgentKeepingState",
    "OneAgent",
    "agent_gradient",
    "consensus_distance",
    "distance_from_mean",
    "distance_to_centre",
    "elastic_steps",
    "every_agent",
    "gradients",
    "mean_agent",
    "one_agent",
    "problem",
    "timeline",
]
