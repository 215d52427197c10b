"""Whether a timeline is one of those that an optimizer is for, by what its state says of it."""

from typing import Any

import jax
import optax

from async_optax.engine.problem import Problem
from async_optax.timelines import (
    MadeFor,
    Timeline,
    require_fresh_rows,
    require_own_versions,
)


def nodes_with(state: optax.OptState, attribute: str) -> list[Any]:
    """Returns the states within a state, chained or wrapped, that have an attribute.

    Example:
      >>> import jax.numpy as jnp
      >>> from async_optax.transforms import delay_stages
      >>> state = optax.chain(delay_stages(optax.sgd(0.1))).init((jnp.ones(1), jnp.ones(1)))
      >>> [node.stage_delays for node in nodes_with(state, "stage_delays")]
      [(1, 0)]
    """

    def has(node: Any) -> bool:
        return hasattr(node, attribute)

    return [node for node in jax.tree.leaves(state, is_leaf=has) if has(node)]


def require_fitting(state: optax.OptState, problem: Problem, timeline: Timeline) -> None:
    """Raises unless an optimizer may run on a timeline.

    Three attributes of states decide: ``serves_own_worker``, for copies that nobody else may read;
    ``has_own_delays``, for delays that those of the timeline would be added to; and
    ``stage_delays``, a tuple of integers, for pipelines. And a timeline knows what it was made
    for: the times of an asynchronous pipeline, without bubbles, are false for training without
    delays, and those of a synchronous one for training with them.

    Args:
      state: of the optimizer, or shapes of it.
      problem: what is trained.
      timeline: who reads what, and when.

    Raises:
      ValueError: if they do not fit, in one line.
    """
    num_agents = getattr(problem, "num_agents", None)
    if nodes_with(state, "serves_own_worker"):
        require_own_versions(timeline, num_agents)
    if nodes_with(state, "has_own_delays"):
        require_fresh_rows(timeline)
    if timeline.made_for is None:
        return
    kind, size = timeline.made_for.kind, timeline.made_for.size
    if kind == MadeFor.ROUNDS:
        if num_agents != size:
            found = "one of no agents" if num_agents is None else f"one of {num_agents}"
            raise ValueError(
                f"the timeline is of rounds of {size} agents, and needs a problem of as many, "
                f"ao.gossip.problem(agent, {size}); got {found}"
            )
        return
    delays = [node.stage_delays for node in nodes_with(state, "stage_delays")]
    num_stages = {len(of_stages) for of_stages in delays}
    if hasattr(problem.loss, "stages"):
        num_stages.add(len(problem.loss.stages))
    if num_stages - {size}:
        raise ValueError(
            f"the timeline is of a pipeline of {size} stages, but the model has "
            f"{max(num_stages - {size})}"
        )
    if kind == MadeFor.SYNCHRONOUS_PIPELINE and any(map(any, delays)):
        raise ValueError(
            f"the timeline is of a synchronous pipeline, in which no stage is behind, but the "
            f"optimizer delays its stages by {delays[0]} updates: use "
            "ao.pipeline.timeline(..., synchronous=False), or an optimizer such as gpipe"
        )
    if kind == MadeFor.ASYNCHRONOUS_PIPELINE and size > 1 and not delays:
        raise ValueError(
            "the timeline is of an asynchronous pipeline, which waits for no bubbles, but the "
            "optimizer delays no stages: use ao.pipeline.timeline(..., synchronous=True), or an "
            "optimizer such as ao.optimizers.pipelines.pipedream"
        )
