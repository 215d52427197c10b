"""Recorders: which scalars of each arrival a run keeps."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


class ArrivalInfo(NamedTuple):
    """What a recorder sees of one arrival.

    Attributes:
      loss: of the job's batch at the stale parameters.
      gradient: what the worker sent, noise included.
      update: what the optimizer added to the parameters.
      params: the server's parameters before this arrival.
      stale_params: what the job was computed on.
      staleness: int32 scalar.
    """

    loss: jax.Array
    gradient: optax.Updates
    update: optax.Updates
    params: optax.Params
    stale_params: optax.Params
    staleness: jax.Array


Recorder = Callable[[ArrivalInfo], jax.Array]


def loss(info: ArrivalInfo) -> jax.Array:
    """The loss that the worker computed."""
    return info.loss


def gradient_norm(info: ArrivalInfo) -> jax.Array:
    """The global norm of what arrived."""
    return optax.tree.norm(info.gradient)


def update_norm(info: ArrivalInfo) -> jax.Array:
    """The global norm of what was added to the parameters."""
    return optax.tree.norm(info.update)


def gap(info: ArrivalInfo) -> jax.Array:
    """The root-mean-square distance between current and stale parameters."""
    drift = jax.tree.map(jnp.subtract, info.params, info.stale_params)
    return optax.tree.norm(drift) / jnp.sqrt(optax.tree.size(drift))


RECORDERS: Mapping[str, Recorder] = {
    "loss": loss,
    "gradient_norm": gradient_norm,
    "update_norm": update_norm,
    "gap": gap,
}


def resolve(record: Sequence[str] | Mapping[str, Recorder]) -> dict[str, Recorder]:
    """Turns the argument ``record`` of a run into recorders by name; the loss is always kept.

    Args:
      record: names among ``loss``, ``gradient_norm``, ``update_norm`` and ``gap``, or a
        dictionary of functions from :class:`ArrivalInfo` to a scalar.

    Returns:
      A dictionary of recorders; ``loss`` comes first.

    Raises:
      ValueError: if a name is unknown.

    Example:
      >>> list(resolve(["gap"]))
      ['loss', 'gap']
    """
    if not isinstance(record, Mapping):
        unknown = [name for name in record if name not in RECORDERS]
        if unknown:
            raise ValueError(
                f"record must name some of {', '.join(RECORDERS)}; got {', '.join(unknown)}"
            )
        record = {name: RECORDERS[name] for name in record}
    return {"loss": loss, **record}
