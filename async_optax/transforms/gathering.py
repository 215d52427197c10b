"""Whether an optimizer waits for commits: checked on its state, before anything is computed."""

import math
from typing import Any

import jax
import optax

from async_optax.transforms.accumulation import AccumulateUntilCommitState

# What may skip, or put off, an update: around an accumulation it would lose a commit.
_SKIPPING = {
    optax.MultiStepsState: "optax.MultiSteps(server, k).gradient_transformation()",
    optax.ApplyIfFiniteState: "optax.apply_if_finite(server, n)",
    optax.transforms.ConditionallyTransformState: "optax.conditionally_transform(server, f)",
    optax.transforms.ConditionallyMaskState: "optax.conditionally_mask(server, f)",
}


def require_gathering(state: optax.OptState, params: optax.Params) -> None:
    """Raises unless a transformation with this state gathers all parameters until a commit.

    Args:
      state: the state, or its shapes.
      params: the parameters, or their shapes.

    Raises:
      ValueError: if some parameters are not behind
        :func:`async_optax.transforms.accumulate_until_commit`, or if a wrapper around it may
        lose a commit.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> params = jnp.zeros(2)
      >>> require_gathering(optax.sgd(0.1).init(params), params)  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      ...
      ValueError: several arrivals make up a commit, but the optimizer applies each at once: ...
    """
    for node in _nodes(state, tuple(_SKIPPING)):
        if _nodes(node, AccumulateUntilCommitState):
            name = _SKIPPING[type(node)]
            raise ValueError(
                f"{name.split('(')[0]} around accumulate_until_commit may lose a commit: use "
                f"accumulate_until_commit({name}) instead"
            )
    gathered = set().union(
        *(_paths(node.accumulated) for node in _nodes(state, AccumulateUntilCommitState))
    )
    if not gathered and _paths(params):
        raise ValueError(
            "several arrivals make up a commit, but the optimizer applies each at once: wrap "
            "its server part in async_optax.transforms.accumulate_until_commit"
        )
    missing = sorted(_paths(params) - gathered)
    if missing and not _covers_all(state, params):
        raise ValueError(
            "several arrivals make up a commit, but the optimizer applies each at once to "
            f"params{missing[0]}: every group of parameters needs accumulate_until_commit"
        )


def _covers_all(state: optax.OptState, params: optax.Params) -> bool:
    """Whether all elements are gathered in another layout, as behind ``optax.flatten``."""
    gathered = [node.accumulated for node in _nodes(state, AccumulateUntilCommitState)]
    sizes = [sum(math.prod(x.shape) for x in jax.tree.leaves(tree)) for tree in (gathered, params)]
    return sizes[0] == sizes[1]


def _nodes(state: Any, kinds: Any) -> list[Any]:
    leaves = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, kinds))
    return [node for node in leaves if isinstance(node, kinds)]


def _paths(tree: Any) -> set[str]:
    return {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}
