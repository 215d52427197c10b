"""Batches for a problem: which rows each worker draws, from arrays or from a larger source.

A :class:`async_optax.Problem` takes its batches from ``batch(key, worker)``. It is made of two
parts: ``rows(key, worker)``, drawn from all examples (:func:`uniform_rows`) or from the worker's
own (:func:`partition_rows`), and the data, held on the device (:func:`in_memory`) or read as
needed (:func:`streamed`).
"""

from async_optax.data.in_memory import in_memory
from async_optax.data.label_skew import label_counts, label_partition
from async_optax.data.partitions import Partition, equal_partition, size_partition
from async_optax.data.sampling import partition_rows, uniform_rows
from async_optax.data.streaming import Streamed, streamed

__all__ = [
    "Partition",
    "Streamed",
    "equal_partition",
    "in_memory",
    "label_counts",
    "label_partition",
    "partition_rows",
    "size_partition",
    "streamed",
    "uniform_rows",
]
