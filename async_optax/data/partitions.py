"""Partitions: which worker owns which examples, dealt out equally or by size."""

import dataclasses
import functools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from async_optax.validation import require_count, require_number, require_seed


@dataclasses.dataclass(frozen=True, eq=False)
class Partition:
    """Every example belongs to exactly one worker, and every worker has at least one.

    Attributes:
      examples: int32 ``[num_examples]``, the examples of worker 0, then of worker 1, and so on:
        a permutation of ``range(num_examples)``.
      starts: int64 ``[num_workers + 1]``, where each worker's examples start;
        ``starts[-1] == num_examples``.

    Raises:
      ValueError: if the arrays are not such a partition.

    Example:
      >>> partition = Partition(examples=[2, 0, 1], starts=[0, 1, 3])
      >>> partition.of(1)
      array([0, 1], dtype=int32)
    """

    examples: np.ndarray
    starts: np.ndarray

    def __post_init__(self) -> None:
        examples = _integers("examples", self.examples)
        starts = _integers("starts", self.starts)
        if not np.array_equal(np.sort(examples), np.arange(len(examples))):
            raise ValueError(
                f"examples must hold each of range({len(examples)}) exactly once, got {examples}"
            )
        if len(starts) < 2 or starts[0] != 0 or starts[-1] != len(examples):
            raise ValueError(f"starts must go from 0 to {len(examples)}, got {starts}")
        empty = np.flatnonzero(np.diff(starts) <= 0)
        if len(empty):
            raise ValueError(f"worker {empty[0]} must have at least one example, starts={starts}")
        object.__setattr__(self, "examples", _read_only(examples.astype(np.int32)))
        object.__setattr__(self, "starts", _read_only(starts.astype(np.int64)))

    @classmethod
    def from_owners(cls, owners: ArrayLike) -> "Partition":
        """Builds a partition from each example's owner, such as the user who wrote it.

        Args:
          owners: integers ``[num_examples]``; each worker from 0 to the highest must occur.

        Returns:
          The partition; a worker's examples are in ascending order.

        Raises:
          TypeError: if they are not integers.
          ValueError: if one is negative or a worker has no example.

        Example:
          >>> Partition.from_owners([1, 0, 1]).sizes
          array([1, 2])
        """
        owners = require_labels("owners", owners)
        starts = np.concatenate([[0], np.cumsum(np.bincount(owners))])
        return cls(np.argsort(owners, kind="stable"), starts)

    @property
    def num_workers(self) -> int:
        """Number of workers."""
        return len(self.starts) - 1

    @property
    def num_examples(self) -> int:
        """Number of examples of all workers."""
        return len(self.examples)

    @property
    def sizes(self) -> np.ndarray:
        """int64 ``[num_workers]``, number of examples of each worker."""
        return np.diff(self.starts)

    @functools.cached_property
    def owners(self) -> np.ndarray:
        """int32 ``[num_examples]``, the worker that owns each example."""
        owners = np.empty(self.num_examples, np.int32)
        owners[self.examples] = np.repeat(np.arange(self.num_workers), self.sizes)
        return _read_only(owners)

    def of(self, worker: int) -> np.ndarray:
        """Returns the examples of one worker, int32 ``[sizes[worker]]``.

        Raises:
          ValueError: if there is no such worker.
        """
        require_count("worker", worker, at_least=0)
        if worker >= self.num_workers:
            raise ValueError(f"worker must be in [0, {self.num_workers}), got {worker}")
        return self.examples[self.starts[worker] : self.starts[worker + 1]]


def equal_partition(num_examples: int, num_workers: int, *, seed: int = 0) -> Partition:
    """Deals the examples out at random, in parts whose sizes differ by at most one.

    Args:
      num_examples: examples, >= ``num_workers``.
      num_workers: workers, >= 1.
      seed: decides who gets which.

    Returns:
      The partition.

    Raises:
      TypeError: if an argument is not an integer.
      ValueError: if it is out of range.

    Example:
      >>> equal_partition(10, num_workers=4, seed=0).sizes
      array([3, 3, 2, 2])
    """
    require_count("num_workers", num_workers)
    return size_partition(num_examples, np.ones(num_workers), seed=seed)


def size_partition(num_examples: int, sizes: ArrayLike, *, seed: int = 0) -> Partition:
    """Deals the examples out at random, in parts of the given relative sizes.

    Worker j is due q_j = num_examples * sizes_j / sum(sizes) examples. Who is due less than
    one gets one, and the others share the rest in proportion; they get the integer part of
    what they are due, and the largest remainders one more.

    Args:
      num_examples: examples, at least one per worker.
      sizes: relative shares ``[num_workers]``, > 0; their unit is free.
      seed: decides who gets which.

    Returns:
      The partition.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if it is out of range.

    Example:
      >>> size_partition(70, [4.0, 2.0, 1.0], seed=0).sizes
      array([40, 20, 10])
    """
    require_number("sizes", sizes if hasattr(sizes, "dtype") else np.asarray(sizes), scalar=False)
    shares = np.asarray(sizes, float)
    if shares.ndim != 1 or not len(shares) or (shares <= 0).any():
        raise ValueError(f"sizes must be a list of numbers > 0, one per worker, got {shares}")
    require_seed(seed)
    require_count("num_examples", num_examples, at_least=len(shares))
    counts = _whole_shares(shares, num_examples)
    owners = np.repeat(np.arange(len(shares)), counts)
    return Partition.from_owners(generator_of(seed).permutation(owners))


def _whole_shares(shares: np.ndarray, num_examples: int) -> np.ndarray:
    """Largest remainders, where nobody gets less than one."""
    counts = np.ones(len(shares), np.int64)
    more = np.ones(len(shares), bool)  # who is due at least one
    while more.any():
        total = num_examples - int((~more).sum())
        due = shares[more] * (total / shares[more].max())
        due *= total / due.sum()
        if (due >= 1).all():
            counts[more] = largest_remainders(due, total)
            break
        more[more] = due >= 1
    return counts


def largest_remainders(due: np.ndarray, total: int) -> np.ndarray:
    """Rounds numbers that sum to ``total`` to integers that do; ties go to the first."""
    counts = np.floor(due).astype(np.int64)
    order = np.argsort(counts - due, kind="stable")
    counts[order[: total - counts.sum()]] += 1
    return counts


def generator_of(seed: int) -> np.random.Generator:
    """The generator of a seed."""
    return np.random.Generator(np.random.PCG64(seed))


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _integers(name: str, values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{name} must be a list of integers, got an array of {array.shape}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got dtype {array.dtype}")
    return array


def require_labels(name: str, values: Any) -> np.ndarray:
    """Returns ``values`` as int64 ``[n]``, which must be integers >= 0."""
    array = _integers(name, values)
    if array.min() < 0:
        raise ValueError(f"{name} must be integers >= 0, got {array.min()}")
    return array.astype(np.int64)
