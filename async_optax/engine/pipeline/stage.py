"""Stages: the parts of a model that a pipeline runs one after another."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.tree_util import Partial

from async_optax.validation import require_count


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of a model, or one layer, as pure functions.

    Data belongs into ``jax.tree_util.Partial`` nodes, as in :class:`async_optax.Problem`.

    Attributes:
      init: ``init(key) -> params``, a pytree of floating-point arrays.
      apply: ``apply(params, x, key) -> y``. The x of the first stage is the batch, that of every
        other the y of the stage before it, any pytrees; the key serves dropout and the like.

    Example:
      >>> import jax.numpy as jnp
      >>> Stage(
      ...     init=lambda key: jax.random.normal(key, (3, 2)),
      ...     apply=lambda w, x, key: jnp.tanh(x @ w),
      ... ).apply(jnp.ones((3, 2)), jnp.zeros((4, 3)), None).shape
      (4, 2)
    """

    init: Callable[[jax.Array], Any]
    apply: Callable[[Any, Any, jax.Array], Any]


def split_layers(layers: Sequence[Stage], num_stages: int) -> list[Stage]:
    """Groups the layers of a model into stages of nearly equal numbers of layers.

    Stage i of P gets the layers from ``i * L // P`` up to, and without, ``(i + 1) * L // P``. Its
    parameters are the tuple of theirs.

    Args:
      layers: L layers, in their order.
      num_stages: P, from 1 to L.

    Returns:
      P stages.

    Raises:
      TypeError: if ``layers`` is no list, a layer is not a :class:`Stage`, or ``num_stages`` not an
        integer.
      ValueError: if there are more stages than layers.

    Example:
      >>> layer = Stage(lambda key: 1.0, lambda w, x, key: w * x)
      >>> [len(stage.init(jax.random.key(0))) for stage in split_layers([layer] * 7, 3)]
      [2, 2, 3]
    """
    if not isinstance(layers, Sequence):
        raise TypeError(f"layers must be a list of Stage, got {type(layers).__name__}")
    layers = tuple(layers)
    for i, layer in enumerate(layers):
        if not isinstance(layer, Stage):
            raise TypeError(f"layers[{i}] must be a Stage, got {layer!r}")
    require_count("num_stages", num_stages)
    if num_stages > len(layers):
        raise ValueError(
            f"num_stages must be at most the number of layers, {len(layers)}, got {num_stages}"
        )
    bounds = [i * len(layers) // num_stages for i in range(num_stages + 1)]
    groups = [layers[start:end] for start, end in zip(bounds, bounds[1:], strict=False)]
    return [Stage(Partial(_init_layers, group), Partial(_apply_layers, group)) for group in groups]


def _init_layers(layers: tuple[Stage, ...], key: jax.Array) -> tuple[Any, ...]:
    keys = jax.random.split(key, len(layers))
    return tuple(layer.init(k) for layer, k in zip(layers, keys, strict=True))


def _apply_layers(layers: tuple[Stage, ...], params: Any, x: Any, key: jax.Array) -> Any:
    return apply_stages(layers, params, x, key)


def apply_stages(stages: Sequence[Stage], params: Sequence[Any], x: Any, key: jax.Array) -> Any:
    """Returns what the last stage makes of a batch: the forward pass.

    Args:
      stages: P stages.
      params: their parameters.
      x: a batch, or what the first of these stages takes.
      key: stage i gets ``fold_in(key, i)``.

    Returns:
      The output of the last stage.

    Example:
      >>> stage = Stage(lambda key: 2.0, lambda w, x, key: w * x)
      >>> apply_stages([stage, stage], (2.0, 3.0), 1.0, jax.random.key(0))
      6.0
    """
    for i, (stage, weights) in enumerate(zip(stages, params, strict=True)):
        x = stage.apply(weights, x, jax.random.fold_in(key, i))
    return x
