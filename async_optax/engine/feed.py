"""Feeding a run from a source on the host: the next chunk's batches are read meanwhile."""

import collections
import functools
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import Partial
from jax.typing import ArrayLike

from async_optax.data import Streamed
from async_optax.transforms import Structure, split_numbers
from async_optax.validation import require_count

_MAX_OUTSTANDING = 2


class Feed:
    """Reads the batches of a run's jobs ahead of their use, in one background thread.

    Job i with worker j draws ``rows(k, j)`` for each k of ``batch_keys(fold_in(job_key, i))``,
    which is what the compiled program would draw, whatever the chunks. The rows are computed
    on the device: request a chunk's batches before dispatching the chunk that is to run
    meanwhile, or they wait for it.

    Used as a context manager, it ends its thread on leaving; reading stops early.

    Args:
      streamed: the batch function.
      batch_keys: ``batch_keys(key) -> keys [num_batches]``, the keys with which the worker
        program draws its batches in the job of that key.
      job_key: the run's key; job i has ``fold_in(job_key, i)``.
      capacity: most jobs per request, >= 1; the size of what :meth:`collect` returns.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if ``capacity`` is below 1.

    Example:
      >>> import jax
      >>> from async_optax.data import streamed, uniform_rows
      >>> batch = streamed([10.0, 11.0, 12.0], uniform_rows(3, batch_size=2))
      >>> with Feed(batch, lambda key: key[None], jax.random.key(0), capacity=4) as feed:
      ...     feed.request(jobs=np.array([5, 6, 8]), workers=np.array([0, 1, 0]))
      ...     feed.collect().shape
      (4, 1, 2)
    """

    def __init__(
        self,
        streamed: Streamed,
        batch_keys: Callable[[jax.Array], jax.Array],
        job_key: jax.Array,
        capacity: int,
    ):
        if not isinstance(streamed, Streamed):
            raise TypeError(f"streamed must be what streamed(...) returns, got {streamed!r}")
        require_count("capacity", capacity)
        self._streamed = streamed
        if inspect.ismethod(batch_keys):
            # A method compares by its object's identity, so equal objects would compile anew.
            batch_keys = Partial(batch_keys.__func__, batch_keys.__self__)
        self._numbers, self._structure = split_numbers((streamed.rows, batch_keys))
        self._job_key = job_key
        self._capacity = capacity
        self._pending: collections.deque[Future] = collections.deque()
        self._stop = threading.Event()
        self._thread = ThreadPoolExecutor(1, "async_optax-feed")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def request(self, jobs: ArrayLike, workers: ArrayLike) -> None:
        """Starts reading the batches of some jobs.

        Args:
          jobs: integers ``[n]``, the jobs' numbers, n <= capacity.
          workers: integers ``[n]``, who computes them.

        Raises:
          TypeError: if they are not integers.
          ValueError: if shapes differ, or there are more than ``capacity``.
          RuntimeError: if two requests have not been collected yet.
        """
        jobs, workers = np.asarray(jobs), np.asarray(workers)
        if jobs.dtype.kind not in "iu" or workers.dtype.kind not in "iu":
            raise TypeError(f"jobs and workers must be integers, got {jobs.dtype, workers.dtype}")
        if jobs.ndim != 1 or jobs.shape != workers.shape or len(jobs) > self._capacity:
            raise ValueError(
                f"jobs and workers must be two lists of at most {self._capacity} integers, got "
                f"shapes {jobs.shape} and {workers.shape}"
            )
        if len(self._pending) == _MAX_OUTSTANDING:
            raise RuntimeError(f"collect() one of the {_MAX_OUTSTANDING} requests first")
        padded = np.zeros((2, self._capacity), np.int32)
        padded[:, : len(jobs)] = jobs, workers
        rows = _rows_of_jobs(self._structure, self._numbers, self._job_key, *padded)
        double = jnp.result_type(float) == jnp.float64  # a setting of this thread
        self._pending.append(self._thread.submit(self._load, rows, len(jobs), double))

    def collect(self) -> Any:
        """Waits for the oldest request.

        Returns:
          Pytree of device arrays ``[capacity, num_batches, batch_size, *example_shape]``; zero
          beyond the jobs of the request.

        Raises:
          ValueError: if a row could not be read; it is named.
          RuntimeError: if nothing was requested.
        """
        if not self._pending:
            raise RuntimeError("nothing to collect: call request(jobs, workers) first")
        return self._pending.popleft().result()

    def _load(self, rows: jax.Array, num_jobs: int, double: bool) -> Any:
        loaded = self._streamed.load(
            np.asarray(rows)[:num_jobs], pad_to=self._capacity, stop=self._stop
        )
        device = rows.addressable_shards[0].device
        with jax.enable_x64(double), jax.default_device(device):
            return jax.tree.map(jnp.asarray, loaded)


@functools.partial(jax.jit, static_argnums=0)
def _rows_of_jobs(
    structure: Structure,
    numbers: tuple[Any, ...],
    job_key: jax.Array,
    jobs: jax.Array,
    workers: jax.Array,
) -> jax.Array:
    rows, batch_keys = structure.join(numbers)

    def rows_of_job(job: jax.Array, worker: jax.Array) -> jax.Array:
        keys = batch_keys(jax.random.fold_in(job_key, job))
        return each(lambda key: rows(key, worker), keys)

    # Generators other than threefry draw other numbers under vmap than one at a time.
    one_at_a_time = jax.random.key_impl(job_key) != "threefry2x32"

    def each(function: Callable, *args: jax.Array) -> jax.Array:
        if one_at_a_time:
            return lax.map(lambda arg: function(*arg), args)
        return jax.vmap(function)(*args)

    return each(rows_of_job, jobs, workers)


def delivered(batches: Any, keys: jax.Array) -> Callable[[jax.Array, jax.Array], Any]:
    """Turns one job's batches into its batch function, for use inside the compiled program.

    Args:
      batches: pytree of arrays ``[num_batches, batch_size, ...]``, one job's part of what
        :meth:`Feed.collect` returned.
      keys: the job's typed batch keys ``[num_batches]``.

    Returns:
      ``batch(key, worker)``: the batch whose key is ``key``. A key that is none of ``keys``
      gets NaN, or the lowest integers (the highest if unsigned). With one batch the key is
      not looked at.

    Raises:
      ValueError: if batches and keys differ in number.

    Example:
      >>> keys = jax.random.split(jax.random.key(0), 3)
      >>> batch = delivered(jnp.array([[1.0], [2.0], [3.0]]), keys)
      >>> print(batch(keys[1], 0))
      [2.]
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(batches):
        if leaf.shape[:1] != keys.shape:
            raise ValueError(
                f"batches{jax.tree_util.keystr(path)} must have a leading axis of "
                f"{len(keys)} batches, one per key, got shape {leaf.shape}"
            )
    return Partial(_pick, batches, keys)


def _pick(batches: Any, keys: jax.Array, key: jax.Array, worker: jax.Array) -> Any:
    del worker  # the rows are drawn already
    if len(keys) == 1:
        return jax.tree.map(lambda x: x[0], batches)
    same = jax.random.key_data(keys) == jax.random.key_data(key)[jnp.newaxis]
    found = jnp.all(same, axis=-1)
    index = jnp.where(jnp.any(found), jnp.argmax(found), len(keys))
    return jax.tree.map(lambda x: x.at[index].get(mode="fill"), batches)
