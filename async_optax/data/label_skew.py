"""Label skew: workers that see some classes more than others, and how much more."""

import numpy as np
from numpy.typing import ArrayLike

from async_optax.data.partitions import (
    Partition,
    generator_of,
    largest_remainders,
    require_labels,
)
from async_optax.validation import require_count, require_number, require_seed

_MAX_DRAWS = 100


def label_partition(
    labels: ArrayLike, num_workers: int, *, concentration: float, min_size: int = 1, seed: int = 0
) -> Partition:
    """Skews the labels: each class is spread unevenly over the workers.

    For each class c, proportions p_c over the workers are drawn from the symmetric
    Dirichlet(concentration), and the class's examples are dealt out at random in these
    proportions (largest remainders), so every example is used exactly once. Small
    concentrations give each class to few workers; large ones approach equal parts. All
    classes are drawn again, up to 100 times, until each worker has ``min_size`` examples.

    This draws per class over workers, so sizes vary too, as in Yurochkin et al. 2019
    (arXiv:1905.12022) and Li et al. 2021 (arXiv:2102.02079). Hsu, Qi and Brown 2019
    (arXiv:1909.06335), who introduced the Dirichlet skew, draw per worker over classes and
    keep sizes equal: the same concentration does not mean the same skew.

    Args:
      labels: the class of each example, integers >= 0 ``[num_examples]``.
      num_workers: workers, >= 1.
      concentration: parameter of the Dirichlet distribution, > 0; 0.1 is strong skew, 100
        hardly any.
      min_size: least number of examples of a worker, >= 1.
      seed: decides proportions, and who gets which.

    Returns:
      The partition.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if it is out of range, or if no draw gave all workers enough examples.

    Example:
      >>> labels = [0, 0, 0, 0, 1, 1, 1, 1]
      >>> partition = label_partition(labels, 2, concentration=0.1, seed=0)
      >>> label_counts(partition, labels).sum(axis=0)
      array([4, 4])
    """
    labels = require_labels("labels", labels)
    require_count("num_workers", num_workers)
    require_count("min_size", min_size)
    require_number("concentration", concentration, above=0)
    require_seed(seed)
    if num_workers * min_size > len(labels):
        raise ValueError(
            f"num_workers={num_workers} times min_size={min_size} exceeds the {len(labels)} labels"
        )
    generator = generator_of(seed)
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    fewest = 0
    for _ in range(_MAX_DRAWS):
        owners = np.empty(len(labels), np.int64)
        for member in members:
            shares = generator.dirichlet(np.full(num_workers, float(concentration)))
            counts = largest_remainders(shares * len(member), len(member))
            owners[member] = generator.permutation(np.repeat(np.arange(num_workers), counts))
        smallest = int(np.bincount(owners, minlength=num_workers).min())
        if smallest >= min_size:
            return Partition.from_owners(owners)
        fewest = max(fewest, smallest)
    raise ValueError(
        f"in {_MAX_DRAWS} draws of concentration={concentration} the smallest of "
        f"num_workers={num_workers} never had more than {fewest} of min_size={min_size} examples: "
        "raise concentration, lower min_size or take fewer workers"
    )


def label_counts(partition: Partition, labels: ArrayLike) -> np.ndarray:
    """Counts each worker's examples of each class.

    Args:
      partition: who owns which examples.
      labels: the class of each example, integers >= 0 ``[num_examples]``.

    Returns:
      int64 ``[num_workers, max(labels) + 1]``.

    Raises:
      TypeError: if the labels are not integers.
      ValueError: if they are negative or not as many as the examples.

    Example:
      >>> label_counts(Partition([0, 2, 1], [0, 2, 3]), labels=[0, 1, 1])
      array([[1, 1],
             [0, 1]])
    """
    labels = require_labels("labels", labels)
    if len(labels) != partition.num_examples:
        raise ValueError(
            f"labels must be one per example of {partition.num_examples}, got {len(labels)}"
        )
    num_classes = int(labels.max()) + 1
    cells = partition.owners.astype(np.int64) * num_classes + labels
    counts = np.bincount(cells, minlength=partition.num_workers * num_classes)
    return counts.reshape(partition.num_workers, num_classes)
