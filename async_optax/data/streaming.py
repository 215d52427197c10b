"""Batches from a source larger than the device: rows are read as jobs need them."""

import dataclasses
import functools
import threading
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from async_optax.data.loading import Loader
from async_optax.data.sampling import Rows, require_rows


@functools.partial(jax.tree_util.register_dataclass, data_fields=("rows",), meta_fields=("loader",))
@dataclasses.dataclass(frozen=True)
class Streamed:
    """A batch function over a source on the host, made by :func:`streamed`.

    A pytree whose children are ``rows``; the loader is static and compares by the identity of
    its source and transform, so another seed or partition compiles nothing.

    Attributes:
      rows: ``rows(key, worker) -> int32 [batch_size]``.
      loader: reads the rows.

    Example:
      >>> import jax
      >>> from async_optax.data import streamed, uniform_rows
      >>> batch = streamed([10, 11, 12], uniform_rows(3, batch_size=4))
      >>> batch.load([[2], [0]])
      array([[12],
             [10]], dtype=int32)
      >>> batch(jax.random.key(0), 0).shape
      (4,)
    """

    rows: Rows
    loader: Loader

    @property
    def example(self) -> Any:
        """Pytree of ``jax.ShapeDtypeStruct`` of one example."""
        return self.loader.example

    def load(
        self, rows: Any, *, pad_to: int | None = None, stop: threading.Event | None = None
    ) -> Any:
        """Reads rows on the host; see :meth:`async_optax.data.loading.Loader.load`."""
        return self.loader.load(rows, pad_to=pad_to, stop=stop)

    def __call__(self, key: jax.Array, worker: jax.Array) -> Any:
        """Returns a batch, anywhere: in a compiled program by a call back to the host.

        Each call waits for its rows, and the device waits with it: good for loops of your
        own and for evaluations. Under ``vmap`` all batches are read in one call.

        Args:
          key: the job's key for its batch.
          worker: int32 scalar.

        Returns:
          Pytree like ``example`` of arrays ``[batch_size, *example_shape]``.

        Raises:
          ValueError: if a row cannot be read; compiled, ``jax.errors.JaxRuntimeError``.
        """
        rows = self.rows(key, worker)
        batch = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(rows.shape + x.shape, x.dtype), self.example
        )
        return jax.pure_callback(self._load, batch, rows, vmap_method="broadcast_all")

    def _load(self, rows: jax.Array) -> Any:
        return self.load(np.asarray(rows))


def streamed(
    source: Any,
    rows: Rows,
    *,
    transform: Callable[[Any], Any] | None = None,
    num_threads: int = 8,
) -> Streamed:
    """Streams batches from a source with random access, read as needed.

    Job i draws its rows by its own key, as with :func:`in_memory`, so its batch does not
    depend on what was read before: results stay exact, and a resumed run needs no position
    in the data.

    Args:
      source: anything with ``len(source)`` and ``source[i]``, an example: a pytree of NumPy
        arrays or scalars of constant shapes and dtypes, once transformed. Such are
        ``tfds.data_source(...)``, Grain's ``MapDataset`` and data sources, array_record
        files, ``numpy.memmap`` and lists. It must not change.
      rows: ``rows(key, worker) -> int32 [batch_size]``; see :func:`uniform_rows` and
        :func:`partition_rows`.
      transform: ``transform(example) -> pytree``, run on the host for each example: select,
        decode, normalise. It must be a pure function: job i is to see the same example
        however often it is read.
      num_threads: threads that read and transform; 1 for a source that is not thread-safe.

    Returns:
      ``batch(key, worker)``, for :class:`async_optax.Problem`. 64-bit numbers arrive in 32
      bits, unless JAX computes in double precision.

    Raises:
      TypeError: if the source has no random access, row 0 holds anything but numbers, or an
        argument is of the wrong kind.
      ValueError: if row 0 cannot be read, or ``rows`` draws from more examples than there are.

    Example:
      >>> import jax
      >>> from async_optax.data import uniform_rows
      >>> source = [{"image": np.full((2, 2), i, np.uint8), "name": "x"} for i in range(5)]
      >>> batch = streamed(
      ...     source, uniform_rows(5, batch_size=3), transform=lambda e: e["image"] / 255
      ... )
      >>> batch.example
      ShapeDtypeStruct(shape=(2, 2), dtype=float32)
    """
    loader = Loader(source, transform, num_threads)
    require_rows(rows, len(source))
    return Streamed(rows, loader)
