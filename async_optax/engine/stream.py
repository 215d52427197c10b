"""What a run needs to know of streamed data before it flows."""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import jax

from async_optax.data import Streamed
from async_optax.engine.memory import num_bytes
from async_optax.engine.problem import Problem
from async_optax.engine.states import MAX_ARRIVALS
from async_optax.engine.worker import WorkerProgram

_CHUNK_BYTES = 1 << 26  # of batches per call: it is loaded while the call before is executed


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """A streamed source, and the batches that one job draws from it.

    Attributes:
      source: where batches come from.
      batch_keys: maps a job's key to the keys of its batches.
      job: shapes of one job's batches, ``[num_batches, batch_size, ...]``.
    """

    source: Streamed
    batch_keys: Callable[[jax.Array], jax.Array]
    job: Any

    @classmethod
    def of(cls, problem: Problem, worker: WorkerProgram, key: jax.Array) -> "Stream | None":
        """Returns the stream of a problem, or ``None`` if its data is not streamed."""
        if not isinstance(problem.batch, Streamed):
            return None
        batch_keys = cast(Any, worker).batch_keys  # checked before
        num_batches = jax.eval_shape(batch_keys, key).shape[0]
        batch = jax.eval_shape(problem.batch, key, jax.ShapeDtypeStruct((), "int32"))
        return cls(problem.batch, batch_keys, _stacked(batch, num_batches))

    def capacity(self, lanes: int) -> int:
        """Returns how many arrivals a chunk may hold."""
        affordable = _CHUNK_BYTES // max(num_bytes(self.job), 1)
        return min(max(affordable, lanes), MAX_ARRIVALS)

    def shapes(self, num_rows: int) -> Any:
        """Returns the shapes of a chunk's batches."""
        return _stacked(self.job, num_rows)


def _stacked(tree: Any, length: int) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((length, *x.shape), x.dtype), tree)
