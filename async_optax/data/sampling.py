"""Which rows a job draws: functions ``rows(key, worker)`` of nothing but their arguments."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from async_optax.data.partitions import Partition
from async_optax.transforms.workers import require_worker
from async_optax.validation import first_line, require_count

Rows = Callable[[jax.Array, jax.Array], jax.Array]
"""``rows(key, worker) -> int32 [batch_size]``."""

MAX_EXAMPLES = 2**31 - 1
NO_ROW = MAX_EXAMPLES  # the row of a worker that does not exist: out of range of any data


def uniform_rows(num_examples: int, batch_size: int) -> Rows:
    """Every worker draws from all examples, uniformly and with replacement.

    Row i of a batch is ``randint(key, (batch_size,), 0, num_examples)[i]`` in int32, the same
    for one key on every device and in double precision.

    Args:
      num_examples: examples to draw from, in ``[1, 2**31)``.
      batch_size: rows per batch, >= 1.

    Returns:
      ``rows(key, worker) -> int32 [batch_size]`` in ``[0, num_examples)``. A pytree without
      leaves: both numbers decide shapes or limits and are static.

    Raises:
      TypeError: if an argument is not an integer.
      ValueError: if it is out of range.

    Example:
      >>> import jax
      >>> rows = uniform_rows(num_examples=1000, batch_size=4)
      >>> rows(jax.random.key(0), 0).shape
      (4,)
    """
    _check_counts(num_examples, batch_size)
    return Partial(_UniformRows(int(num_examples), int(batch_size)))


def partition_rows(partition: Partition, batch_size: int) -> Rows:
    """Every worker draws from its own examples, uniformly and with replacement.

    Worker j with n_j examples e_j draws ``e_j[randint(key, (batch_size,), 0, n_j)]``.

    Args:
      partition: who owns which examples.
      batch_size: rows per batch, >= 1.

    Returns:
      ``rows(key, worker) -> int32 [batch_size]``. The partition's arrays are leaves, so
      partitions of as many examples among as many workers share one compilation. A concrete
      worker out of range raises ``ValueError``; a traced one draws rows that no data has,
      never another worker's.

    Raises:
      TypeError: if ``partition`` is not a :class:`Partition`, or ``batch_size`` no integer.
      ValueError: if ``batch_size`` is below 1.

    Example:
      >>> import jax
      >>> from async_optax.data import equal_partition
      >>> partition = equal_partition(10, num_workers=5, seed=0)
      >>> rows = partition_rows(partition, batch_size=6)(jax.random.key(0), 3)
      >>> set(rows.tolist()) <= set(partition.of(3).tolist())
      True
    """
    if not isinstance(partition, Partition):
        raise TypeError(f"partition must be a Partition, got {partition!r}")
    _check_counts(partition.num_examples, batch_size)
    rows = _PartitionRows(partition.num_examples, int(batch_size))
    starts = jnp.asarray(partition.starts, jnp.int32)
    return Partial(rows, starts, jnp.asarray(partition.examples, jnp.int32))


def require_rows(rows: Any, num_examples: int) -> None:
    """Raises unless ``rows`` returns rows that data of ``num_examples`` examples can have.

    How far the rows of a function of the user's own reach cannot be known: only
    :func:`uniform_rows` and :func:`partition_rows` are compared with ``num_examples``.

    Raises:
      TypeError: if it is not callable, or returns no array of integers.
      ValueError: if it fails, or draws from more than ``num_examples`` examples.

    Example:
      >>> require_rows(uniform_rows(11, 4), num_examples=10)
      Traceback (most recent call last):
      ...
      ValueError: rows draws from 11 examples, but the data has 10
    """
    if not callable(rows):
        raise TypeError(f"rows must be callable, such as uniform_rows(...), got {rows!r}")
    drawn_from = getattr(getattr(rows, "func", rows), "num_examples", 0)
    if drawn_from > num_examples:
        raise ValueError(f"rows draws from {drawn_from} examples, but the data has {num_examples}")
    key = jax.eval_shape(lambda: jax.random.key(0))
    try:
        drawn = jax.eval_shape(rows, key, jax.ShapeDtypeStruct((), jnp.int32))
    except Exception as error:  # a user's function may raise anything
        reason = first_line(error)
        raise ValueError(f"rows fails on a key and an int32 worker: {reason}") from error
    dtype = getattr(drawn, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.integer):
        raise TypeError(f"rows must return an array of integers, got {drawn}")


@dataclasses.dataclass(frozen=True)
class _UniformRows:
    num_examples: int
    batch_size: int

    def __call__(self, key: jax.Array, worker: jax.Array) -> jax.Array:
        del worker  # all workers draw from the same examples
        return jax.random.randint(key, (self.batch_size,), 0, self.num_examples, jnp.int32)


@dataclasses.dataclass(frozen=True)
class _PartitionRows:
    num_examples: int
    batch_size: int

    def __call__(
        self, starts: jax.Array, examples: jax.Array, key: jax.Array, worker: jax.Array
    ) -> jax.Array:
        num_workers = starts.shape[0] - 1
        require_worker(worker, num_workers)
        worker = jnp.asarray(worker, jnp.int32)
        known = (worker >= 0) & (worker < num_workers)
        worker = jnp.where(known, worker, 0)
        start = starts[worker]
        size = starts[worker + 1] - start
        drawn = jax.random.randint(key, (self.batch_size,), 0, size, jnp.int32)
        return jnp.where(known, examples[start[jnp.newaxis] + drawn], NO_ROW)


def _check_counts(num_examples: int, batch_size: int) -> None:
    require_count("batch_size", batch_size)
    require_count("num_examples", num_examples)
    if num_examples > MAX_EXAMPLES:
        raise ValueError(f"num_examples must be an integer < 2**31, got {num_examples}")
