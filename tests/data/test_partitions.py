"""Partitions: exact covers of the asked sizes, and label skew that follows its parameter."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from async_optax.data import (
    Partition,
    equal_partition,
    label_counts,
    label_partition,
    size_partition,
)

SEEDS = st.integers(0, 2**31 - 1)
SHARES = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20)


def assert_exact_cover(partition, num_examples, num_workers):
    parts = [partition.of(worker) for worker in range(num_workers)]
    assert partition.num_workers == num_workers
    assert [len(part) for part in parts] == partition.sizes.tolist()
    assert min(partition.sizes) >= 1
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(num_examples))


def labels_of(num_classes, num_each):
    return np.tile(np.arange(num_classes), num_each)


@given(st.integers(1, 40), st.integers(0, 200), SEEDS)
def test_equal_partitions_cover_and_differ_by_at_most_one(num_workers, spare, seed):
    num_examples = num_workers + spare
    partition = equal_partition(num_examples, num_workers, seed=seed)
    assert_exact_cover(partition, num_examples, num_workers)
    assert np.ptp(partition.sizes) <= 1


@given(SHARES, st.integers(0, 300), SEEDS)
def test_sizes_cover_in_proportion(shares, spare, seed):
    num_examples = len(shares) + spare
    partition = size_partition(num_examples, shares, seed=seed)
    assert_exact_cover(partition, num_examples, len(shares))
    order = np.argsort(shares, kind="stable")
    assert (np.diff(partition.sizes[order]) >= -1).all()
    due = num_examples * np.array(shares) / np.sum(shares)
    if (due > 1 + 1e-9).all():
        assert np.abs(partition.sizes - due).max() < 1 + 1e-9


@pytest.mark.parametrize("num_workers", [1, 3, 49, 98, 1000])
def test_one_example_each(num_workers):
    # num_workers * (1 / num_workers) rounds below one for 49.
    partition = equal_partition(num_workers, num_workers, seed=0)
    assert partition.sizes.tolist() == [1] * num_workers


@pytest.mark.parametrize(
    ("num_examples", "shares", "sizes"),
    [
        (20, [100, 1], [19, 1]),  # the second is due 0.2
        (10, [1e-300, 1.0, 1e-5, 1.0], [1, 4, 1, 4]),
        (11, [3, 3, 3], [4, 4, 3]),
        (10, [0.55, 0.26, 0.19], [5, 3, 2]),  # due 5.5, 2.6, 1.9
    ],
)
def test_sizes_by_hand(num_examples, shares, sizes):
    assert size_partition(num_examples, shares, seed=1).sizes.tolist() == sizes


@given(
    st.integers(1, 8),
    st.integers(1, 5),
    st.integers(1, 3),
    st.sampled_from([0.05, 0.5, 1.0, 100.0]),
    SEEDS,
)
def test_label_partitions_cover(num_workers, num_classes, min_size, concentration, seed):
    labels = labels_of(num_classes, 60)
    try:
        partition = label_partition(
            labels, num_workers, concentration=concentration, min_size=min_size, seed=seed
        )
    except ValueError as error:
        assume("in 100 draws" not in str(error))
        raise
    assert_exact_cover(partition, len(labels), num_workers)
    assert min(partition.sizes) >= min_size
    counts = label_counts(partition, labels)
    assert counts.shape == (num_workers, num_classes)
    assert (counts.sum(axis=0) == 60).all()
    np.testing.assert_array_equal(counts.sum(axis=1), partition.sizes)


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: equal_partition(100, 7, seed=seed),
        lambda seed: size_partition(100, [1, 2, 3], seed=seed),
        lambda seed: label_partition(labels_of(4, 25), 3, concentration=1.0, seed=seed),
    ],
)
def test_the_seed_decides(make):
    first, again, other = make(0), make(0), make(1)
    np.testing.assert_array_equal(first.examples, again.examples)
    np.testing.assert_array_equal(first.starts, again.starts)
    assert not np.array_equal(first.owners, other.owners)


def skew(concentration):
    """Mean distance in total variation between a worker's classes and all classes, in [0, 1]."""
    labels, distances = labels_of(10, 200), []
    for seed in range(5):
        partition = label_partition(labels, 8, concentration=concentration, seed=seed)
        counts = label_counts(partition, labels)
        distances.append(np.abs(counts / partition.sizes[:, None] - 0.1).sum(axis=1).mean() / 2)
    return np.mean(distances)


def test_label_skew_falls_with_the_concentration():
    skews = [skew(concentration) for concentration in (0.05, 0.2, 1.0, 10.0, 1e6)]
    assert (np.diff(skews) < -0.02).all()
    assert skews[0] > 0.7
    assert skews[-1] < 0.01


def test_proportions_of_a_class_are_dirichlet():
    # Of Dirichlet(a) over n workers a share has variance (1/n)(1 - 1/n) / (n a + 1).
    labels = labels_of(300, 400)
    partition = label_partition(labels, 4, concentration=0.5, seed=0)
    shares = label_counts(partition, labels) / 400
    assert shares.var() == pytest.approx(0.25 * 0.75 / 3, rel=0.1)


@pytest.mark.parametrize("concentration", [5e-324, 1e-5, 1e300])
def test_extreme_concentrations(concentration):
    partition = label_partition(labels_of(50, 20), 4, concentration=concentration, seed=0)
    assert_exact_cover(partition, 1000, 4)
    if concentration < 1:
        assert (label_counts(partition, labels_of(50, 20)) % 20 == 0).all()


def test_own_owners_and_gaps_in_the_labels():
    partition = Partition.from_owners([2, 0, 1, 0])
    assert [partition.of(j).tolist() for j in range(3)] == [[1, 3], [2], [0]]
    assert partition.owners.tolist() == [2, 0, 1, 0]
    assert label_counts(partition, [3, 3, 0, 0]).tolist() == [
        [1, 0, 0, 1],
        [1, 0, 0, 0],
        [0, 0, 0, 1],
    ]


def test_partitions_cannot_be_changed():
    partition = equal_partition(10, 2, seed=0)
    for array in (partition.examples, partition.starts, partition.owners, partition.of(0)):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


LABELS = [0, 1, 0, 1]
BAD_INPUT = {
    "twice": (lambda: Partition([0, 0, 1], [0, 1, 3]), ValueError, "exactly once"),
    "starts": (lambda: Partition([0, 1], [0, 1]), ValueError, "from 0 to 2, got"),
    "empty worker": (lambda: Partition([0, 1], [0, 0, 2]), ValueError, "worker 0 must have"),
    "floats": (lambda: Partition([0.0, 1.0], [0, 2]), TypeError, "examples must be integers"),
    "no owner": (lambda: Partition.from_owners([0, 2]), ValueError, "worker 1 must have"),
    "owner below 0": (lambda: Partition.from_owners([0, -1]), ValueError, ">= 0, got -1"),
    "of": (lambda: equal_partition(4, 2, seed=0).of(2), ValueError, r"in \[0, 2\), got 2"),
    "of below 0": (lambda: equal_partition(4, 2, seed=0).of(-1), ValueError, "got -1"),
    "too few": (lambda: equal_partition(3, 4, seed=0), ValueError, "num_examples .* >= 4, got 3"),
    "no workers": (lambda: equal_partition(3, 0, seed=0), ValueError, "num_workers .* got 0"),
    "seed": (lambda: equal_partition(3, 1, seed=-1), ValueError, "seed .* got -1"),
    "share 0": (lambda: size_partition(3, [1, 0], seed=0), ValueError, "sizes .* got"),
    "share nan": (lambda: size_partition(3, [np.nan], seed=0), ValueError, "sizes .*nan"),
    "no shares": (lambda: size_partition(3, [], seed=0), ValueError, "sizes must be a list"),
    "share text": (lambda: size_partition(3, ["a"], seed=0), TypeError, "sizes"),
    "concentration": (
        lambda: label_partition(LABELS, 2, concentration=0.0, seed=0),
        ValueError,
        "concentration must be a finite number > 0, got 0.0",
    ),
    "float labels": (
        lambda: label_partition([0.5], 1, concentration=1.0, seed=0),
        TypeError,
        "labels must be integers",
    ),
    "min_size": (
        lambda: label_partition(LABELS, 2, concentration=1.0, min_size=3, seed=0),
        ValueError,
        "num_workers=2 times min_size=3 exceeds the 4 labels",
    ),
    "no such split": (
        lambda: label_partition([0] * 90, 9, concentration=0.01, min_size=9, seed=0),
        ValueError,
        "raise concentration, lower min_size or take fewer workers",
    ),
    "other labels": (
        lambda: label_counts(equal_partition(4, 2, seed=0), [0, 1]),
        ValueError,
        "labels must be one per example of 4, got 2",
    ),
}


def test_the_seed_is_0_by_default():
    for by_default, of_0 in [
        (equal_partition(40, 4), equal_partition(40, 4, seed=0)),
        (size_partition(40, [1, 2]), size_partition(40, [1, 2], seed=0)),
        (
            label_partition(LABELS, 2, concentration=1.0),
            label_partition(LABELS, 2, concentration=1.0, seed=0),
        ),
    ]:
        np.testing.assert_array_equal(by_default.owners, of_0.owners)


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input(case):
    call, error, message = BAD_INPUT[case]
    with pytest.raises(error, match=message) as raised:
        call()
    assert len(str(raised.value).splitlines()) == 1
