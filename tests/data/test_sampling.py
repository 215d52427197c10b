"""Rows: from the right examples, uniformly, by the key alone, without recompiling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from async_optax.data import equal_partition, partition_rows, size_partition, uniform_rows
from async_optax.data.sampling import require_rows
from async_optax.transforms import split_numbers

KEY = jax.random.key(0)


def test_uniform_rows_are_plain_randint():
    rows = uniform_rows(1000, 32)(KEY, 5)
    assert rows.dtype == jnp.int32
    np.testing.assert_array_equal(rows, jax.random.randint(KEY, (32,), 0, 1000))


@pytest.mark.usefixtures("x64")
def test_double_precision_draws_the_same_rows():
    partition = equal_partition(1000, 4, seed=0)
    drawn = [uniform_rows(1000, 8)(KEY, 0), partition_rows(partition, 8)(KEY, jnp.int64(3))]
    with jax.enable_x64(False):
        single = [uniform_rows(1000, 8)(KEY, 0), partition_rows(partition, 8)(KEY, 3)]
    for a, b in zip(drawn, single, strict=True):
        assert a.dtype == jnp.int32
        np.testing.assert_array_equal(a, b)


@settings(max_examples=10)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 1000))
def test_workers_draw_from_their_own_examples(sizes, seed):
    partition = size_partition(sum(sizes), sizes, seed=seed)
    rows = partition_rows(partition, 64)
    for worker in range(len(sizes)):
        drawn = np.asarray(rows(jax.random.key(seed), worker))
        np.testing.assert_array_equal(partition.owners[drawn], worker)


def test_own_examples_are_drawn_uniformly():
    partition = size_partition(20, [7, 13], seed=0)
    drawn = np.asarray(partition_rows(partition, 20_000)(KEY, 1))
    counts = np.bincount(drawn, minlength=20)[partition.of(1)]
    assert counts.sum() == 20_000
    assert stats.chisquare(counts).pvalue > 0.01


def test_the_whole_partition_draws_as_one_worker():
    partition = equal_partition(50, 1, seed=0)
    drawn = partition_rows(partition, 16)(KEY, 0)
    np.testing.assert_array_equal(drawn, partition.of(0)[uniform_rows(50, 16)(KEY, 0)])


def test_under_vmap_each_job_draws_what_it_draws_alone():
    rows = partition_rows(size_partition(40, [1, 2, 3, 4], seed=0), 5)
    keys, workers = jax.random.split(KEY, 6), jnp.array([3, 0, 1, 1, 2, 3])
    together = jax.vmap(rows)(keys, workers)
    alone = [rows(k, j) for k, j in zip(keys, workers, strict=True)]
    np.testing.assert_array_equal(together, alone)


def test_another_partition_compiles_nothing():
    traces = []

    @jax.jit
    def draw(rows, key, worker):
        traces.append(1)
        return rows(key, worker)

    for seed in range(3):
        rows = partition_rows(size_partition(30, [1, 1 + seed], seed=seed), 4)
        draw(rows, jax.random.key(seed), seed % 2)
    assert len(traces) == 1
    assert len({split_numbers(uniform_rows(30, 4))[1] for _ in range(2)}) == 1
    assert split_numbers(uniform_rows(30, 4))[1] != split_numbers(uniform_rows(31, 4))[1]


@pytest.mark.parametrize("worker", [-1, 2])
def test_a_worker_that_does_not_exist_gets_nobodys_rows(worker):
    rows = partition_rows(equal_partition(10, 2, seed=0), 4)
    with pytest.raises(ValueError, match=rf"worker must be in \[0, 2\), got {worker}"):
        rows(KEY, worker)
    assert (np.asarray(jax.jit(rows)(KEY, worker)) >= 10).all()


BAD_INPUT = {
    "batch": (lambda: uniform_rows(10, 0), ValueError, "batch_size must be an integer >= 1"),
    "examples": (lambda: uniform_rows(2.0, 1), TypeError, "num_examples must be an integer"),
    "too many": (lambda: uniform_rows(2**31, 1), ValueError, r"< 2\*\*31, got 2147483648"),
    "partition": (lambda: partition_rows([0, 1], 1), TypeError, "partition must be a Partition"),
    "rows": (lambda: require_rows(3, 10), TypeError, "rows must be callable"),
    "fewer": (
        lambda: require_rows(partition_rows(equal_partition(12, 2, seed=0), 1), 10),
        ValueError,
        "rows draws from 12 examples, but the data has 10",
    ),
    "failing": (lambda: require_rows(lambda key: key, 10), ValueError, "rows fails on a key"),
    "floats": (
        lambda: require_rows(lambda key, worker: jnp.ones(3), 10),
        TypeError,
        "rows must return an array of integers",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input(case):
    call, error, message = BAD_INPUT[case]
    with pytest.raises(error, match=message):
        call()
