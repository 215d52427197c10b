"""Batches from arrays on the device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import async_optax as ao
from async_optax.data import equal_partition, in_memory, partition_rows, uniform_rows
from async_optax.transforms import split_numbers

KEY = jax.random.key(0)
DATA = {"x": np.arange(24.0).reshape(12, 2), "y": np.arange(12)}


def test_a_batch_is_the_rows_of_every_array():
    rows = uniform_rows(12, 5)
    batch = jax.jit(in_memory(DATA, rows))(KEY, 0)
    drawn = np.asarray(rows(KEY, 0))
    np.testing.assert_array_equal(batch["x"], DATA["x"][drawn])
    np.testing.assert_array_equal(batch["y"], drawn)
    assert (batch["x"].dtype, batch["y"].dtype) == (jnp.float32, jnp.int32)


@pytest.mark.usefixtures("x64")
def test_double_precision_keeps_64_bits():
    batch = in_memory(DATA, uniform_rows(12, 5))(KEY, 0)
    assert (batch["x"].dtype, batch["y"].dtype) == (jnp.float64, jnp.int64)


def test_workers_of_a_simulation_see_their_own_examples():
    partition = equal_partition(12, 3, seed=0)
    owners = jnp.asarray(partition.owners, jnp.float32)
    problem = ao.Problem(
        init=lambda key: jnp.zeros(()),
        loss=lambda x, batch, key: x * 0 + jnp.ptp(batch) + batch[0],
        batch=in_memory(owners, partition_rows(partition, 4)),
    )
    timeline = ao.simulate_timeline(
        ao.protocols.asynchronous(), ao.runtimes.gamma(cv=0.5), 3, num_commits=30, seed=0
    )
    result = ao.simulate(problem, ao.optimizers.sgd(0.1), timeline, key=KEY, lanes=1)
    np.testing.assert_array_equal(result.arrivals["loss"], result.arrivals["worker"])
    assert set(result.arrivals["worker"]) == {0, 1, 2}


def test_other_data_compiles_nothing():
    structures = set()
    for seed in range(2):
        rows = partition_rows(equal_partition(12, 3, seed=seed), 4)
        structures.add(split_numbers(in_memory(jax.tree.map(lambda x: x + 1, DATA), rows))[1])
    assert len(structures) == 1


@pytest.mark.parametrize("row", [-1, 12])
def test_a_row_that_does_not_exist_is_no_other_row(row):
    data = {**DATA, "image": np.zeros((12, 2), np.uint8)}
    batch = in_memory(data, lambda key, worker: jnp.array([row]))(KEY, 0)
    assert np.isnan(batch["x"]).all()
    assert (np.asarray(batch["y"]) == np.iinfo(np.int32).min).all()
    assert (np.asarray(batch["image"]) == 255).all()


ROWS = uniform_rows(12, 4)
BAD_INPUT = {
    "axes": (
        lambda: in_memory({**DATA, "z": np.zeros(11)}, ROWS),
        ValueError,
        "equally many examples, got .*'z'.*: 11",
    ),
    "scalar": (lambda: in_memory({"a": 1.0}, ROWS), ValueError, r"arrays\['a'\] must have"),
    "nothing": (lambda: in_memory([], ROWS), ValueError, "at least one array"),
    "empty": (lambda: in_memory(np.zeros((0, 2)), ROWS), ValueError, "a leading axis of examples"),
    "text": (
        lambda: in_memory(np.array(["a"] * 12), ROWS),
        TypeError,
        "numbers or booleans, got dtype <U1",
    ),
    "durations": (
        lambda: in_memory(np.zeros(12, "timedelta64[s]"), ROWS),
        TypeError,
        "numbers or booleans",
    ),
    "rows": (
        lambda: in_memory(np.zeros(9), ROWS),
        ValueError,
        "rows draws from 12 examples, but the data has 9",
    ),
    "large integers": (
        lambda: in_memory(np.arange(12) + 2**31, ROWS),
        ValueError,
        "arrays holds 2147483648, which does not fit int32",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input(case):
    call, error, message = BAD_INPUT[case]
    with pytest.raises(error, match=message):
        call()
