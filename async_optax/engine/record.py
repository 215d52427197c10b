"""Recorders: which scalars of each arrival a run keeps."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from async_optax.transforms.precision import global_norm
from async_optax.validation import first_line


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
    """The global norm of the gradient that arrived; under gossip in pairs, of one agent's."""
    arrived, expected = (_structure(tree) for tree in (info.gradient, info.params))
    if arrived != expected:
        kind = type(info.gradient).__name__
        raise ValueError(f"workers send no gradient here but {kind}, which has no norm to record")
    return global_norm(info.gradient)


def update_norm(info: ArrivalInfo) -> jax.Array:
    """The global norm of what was added to the parameters."""
    return global_norm(info.update)


def gap(info: ArrivalInfo) -> jax.Array:
    """The root-mean-square distance between current and stale parameters."""
    served, expected = (jax.tree.map(jnp.shape, x) for x in (info.stale_params, info.params))
    if served != expected:
        raise ValueError(
            "the optimizer serves workers something else than the parameters: there is no distance "
            "between the two"
        )
    drift = jax.tree.map(jnp.subtract, info.params, info.stale_params)
    return global_norm(drift) / np.sqrt(optax.tree.size(drift))


def _structure(tree: Any) -> Any:
    return jax.tree.structure(tree)


_TAKEN = ("job", "worker", "staleness", "version", "time", "loss")

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
      TypeError: if ``record`` is neither, or a recorder is not callable.
      ValueError: if a name is unknown or taken.

    Example:
      >>> list(resolve(["gap"]))
      ['loss', 'gap']
    """
    if isinstance(record, str) or not isinstance(record, Sequence | Mapping):
        raise TypeError(f"record must be a list of names or a dictionary, got {record!r}")
    if isinstance(record, Mapping):
        taken = [name for name in record if name in _TAKEN]
        if taken:
            raise ValueError(f"record must not use the names {', '.join(taken)}: they are kept")
        for name, recorder in record.items():
            if not isinstance(name, str):
                raise TypeError(f"record must have strings as names, got {name!r}")
            if not callable(recorder):
                raise TypeError(
                    f"record[{name!r}] must be a function of an ArrivalInfo, got {recorder!r}"
                )
    else:
        for name in record:
            if not isinstance(name, str):
                raise TypeError(
                    f"record must name some of {', '.join(RECORDERS)}; got {name!r} of type "
                    f"{type(name).__name__}"
                )
        unknown = [name for name in record if name not in RECORDERS]
        if unknown:
            raise ValueError(
                f"record must name some of {', '.join(RECORDERS)}; got {', '.join(unknown)}"
            )
        record = {name: RECORDERS[name] for name in record}
    return {"loss": loss, **record}


def check_recorders(
    recorders: Mapping[str, Recorder], params: optax.Params, served: Any, sent: optax.Updates
) -> None:
    """Checks without computing that each recorder returns a scalar.

    Args:
      recorders: from :func:`resolve`.
      params: shapes and dtypes of the parameters.
      served: of what workers read.
      sent: of what they send.

    Raises:
      ValueError: naming the first that does not, or fails, and why.
    """
    scalar: Any = jax.ShapeDtypeStruct((), jnp.float32)
    staleness: Any = jax.ShapeDtypeStruct((), jnp.int32)
    for name, record in recorders.items():
        try:
            value = jax.eval_shape(
                record, ArrivalInfo(scalar, sent, params, params, served, staleness)
            )
        except Exception as error:  # a user's function may raise anything
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            raise ValueError(f"record[{name!r}] fails: {kind}{first_line(error)}") from error
        if getattr(value, "shape", None) != ():
            shown = jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", value)
            raise ValueError(f"record[{name!r}] must return a scalar, got {shown}")
