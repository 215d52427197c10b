"""What a run has reached: saved when that is due, restored when it goes on."""

import contextlib
import dataclasses
import importlib.metadata
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from async_optax.engine.checkpoints import Checkpointing, CheckpointStore
from async_optax.engine.fingerprint import describe
from async_optax.engine.run import Run
from async_optax.engine.states import Server


@dataclasses.dataclass(frozen=True, eq=False)
class Reached:
    """How far a run has come.

    Attributes:
      server: the state.
      records: float ``[num_arrivals, num_recorders]``, of the arrivals so far.
      metrics: float ``[num_evaluations, 1 + num_metrics]``, of the evaluations so far; the first
        column tells by 1 that the parameters are finite.
    """

    server: Server
    records: np.ndarray
    metrics: np.ndarray

    @classmethod
    def at_start(cls, run: Run) -> "Reached":
        """Nothing yet: version 0."""
        empty = np.zeros((0, run.num_recorders)), np.zeros((0, run.num_metrics))
        return cls(run.initial_server(), *empty)


class Saver:
    """Saves a run now and then, or never.

    Attributes:
      restored: what the newest checkpoint of this run held, or ``None``.
      lanes: the width of the run's waves; ``None`` until it is restored or chosen.
    """

    restored: Reached | None = None
    lanes: int | None = None

    def is_due(self) -> bool:
        """Whether it is time to save."""
        return False

    def save(self, reached: Reached) -> None:
        """Saves; returns when it is safe on disk."""


class _StoreSaver(Saver):
    def __init__(self, store: CheckpointStore, like: Server):
        self._store = store
        self._saved: tuple[int, int] | None = None
        found = store.restore(like)
        if found is not None:
            _, server, tables = found
            self.restored = Reached(server, tables["records"], tables["metrics"])
            self.lanes = int(tables["lanes"])
            self._saved = len(self.restored.records), len(self.restored.metrics)

    def is_due(self) -> bool:
        return self._store.due()

    def save(self, reached: Reached) -> None:
        position = len(reached.records), len(reached.metrics)
        if position == self._saved:
            return
        tables = {"records": reached.records, "metrics": reached.metrics}
        self._store.save(position[0], reached.server, tables | {"lanes": np.array(self.lanes)})
        self._saved = position


@contextlib.contextmanager
def saving(
    checkpoint: Checkpointing | None, like: Server, description: Mapping[str, str]
) -> Iterator[Saver]:
    """Opens the folder of a run's checkpoints, if it is to have any.

    Args:
      checkpoint: where and how often, or ``None``.
      like: shapes, dtypes and places of the state.
      description: of the run; see :func:`described`.

    Raises:
      TypeError: if ``checkpoint`` is something else.
      ValueError: if the folder holds checkpoints of another run; says what differs.
    """
    if checkpoint is None:
        yield Saver()
        return
    with CheckpointStore(checkpoint, description) as store:
        yield _StoreSaver(store, like)


def described(config: Mapping[str, Any]) -> dict[str, str]:
    """Describes a run: what decides its result, and the versions of what computes it.

    Args:
      config: everything that decides the result, by name.
    """
    description = {
        "async_optax": _installed_version(),
        "jax": jax.__version__,
        "optax": optax.__version__,
        "platform": jax.default_backend(),
        "precision": str(jnp.result_type(float)),
        "matmul_precision": str(jax.config.jax_default_matmul_precision),  # type: ignore
    }
    for name, value in config.items():
        description |= describe(name, value)
    return description


def _installed_version() -> str:
    try:
        return importlib.metadata.version("async_optax")
    except importlib.metadata.PackageNotFoundError:  # run from a folder
        return "unknown"
