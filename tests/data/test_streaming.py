"""Batches read from a source on the host: the same as from memory, each row read once."""

import threading
from concurrent.futures import CancelledError

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import async_optax as ao
from async_optax.data import equal_partition, in_memory, partition_rows, streamed, uniform_rows
from async_optax.transforms import split_numbers
from tests.data.sources import Broken, BrokenTogether, Numbered, Together, Virtual

KEY = jax.random.key(0)
ROWS = uniform_rows(50, 8)


def assert_trees_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("source", [Numbered, Together])
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_streamed_equals_in_memory(source, wrap):
    source = source()
    rows = partition_rows(equal_partition(50, 4, seed=0), 8)
    expected = in_memory(source.arrays(), rows)
    batch = wrap(streamed(source, rows))
    for worker in range(4):
        assert_trees_equal(batch(KEY, jnp.int32(worker)), expected(KEY, worker))


def test_under_vmap_and_scan():
    source = Numbered()
    batch, expected = streamed(source, ROWS), in_memory(source.arrays(), ROWS)
    keys = jax.random.split(KEY, 3)
    workers = jnp.arange(3)
    want = jax.vmap(expected)(keys, workers)
    assert_trees_equal(jax.jit(jax.vmap(batch))(keys, workers), want)
    scanned = jax.lax.scan(lambda carry, key: (carry, batch(key, carry)), jnp.int32(0), keys)[1]
    assert_trees_equal(scanned, want)


@pytest.mark.usefixtures("x64")
def test_double_precision_keeps_64_bits():
    batch = streamed(Numbered(), ROWS)
    assert (batch.example["x"].dtype, batch.example["y"].dtype) == (jnp.float64, jnp.int64)
    assert_trees_equal(batch(KEY, 0), in_memory(Numbered().arrays(), ROWS)(KEY, 0))


def test_in_a_problem():
    source = Numbered()

    def problem(batch):
        return ao.Problem(
            init=lambda key: jnp.zeros(3),
            loss=lambda x, batch, key: jnp.mean((x[None] - batch["x"]) ** 2),
            batch=batch,
        )

    batch = streamed(source, ROWS)
    problem(batch).check()
    reads = len(source.reads)
    timeline = ao.simulate_timeline(
        ao.protocols.asynchronous(), ao.runtimes.gamma(cv=0.5), 3, num_commits=6, seed=0
    )
    runs = [
        ao.simulate(problem(b), ao.optimizers.sgd(0.1), timeline, key=KEY, lanes=1)
        for b in (batch, in_memory(source.arrays(), ROWS))
    ]
    assert len(source.reads) > reads
    np.testing.assert_array_equal(runs[0].params, runs[1].params)


def test_each_distinct_row_is_read_once():
    source = Numbered()
    batch = streamed(source, ROWS)
    assert source.reads == [0]
    rows = np.random.default_rng(0).integers(0, 50, (7, 5, 9))
    loaded = batch.load(rows)
    assert sorted(source.reads[1:]) == np.unique(rows).tolist()
    np.testing.assert_array_equal(loaded["y"], rows)
    np.testing.assert_array_equal(loaded["x"], np.repeat(rows[..., None] + 0.5, 3, axis=-1))


def test_rows_are_read_together_where_the_source_can():
    source = Together(1000)
    loaded = streamed(source, ROWS, num_threads=2).load(np.arange(999, -1, -1))
    np.testing.assert_array_equal(loaded["y"], np.arange(999, -1, -1))
    assert sum(source.calls) == len(source.reads) - 1 == 1000
    assert len(source.calls) <= 10


def test_rows_are_read_at_the_same_time():
    # Passes only if four rows are being read at once.
    barrier = threading.Barrier(4, timeout=30)

    def meet(example):
        if example["y"] > 0:
            barrier.wait()
        return example

    batch = streamed(Numbered(), ROWS, transform=meet, num_threads=4)
    np.testing.assert_array_equal(batch.load(np.arange(1, 9))["y"], np.arange(1, 9))


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("shape", [(), (0,), (4, 0), (1,), (200,)])
def test_rows_of_any_shape(shape, num_threads):
    rows = np.random.default_rng(0).integers(0, 50, shape)
    loaded = streamed(Numbered(), ROWS, num_threads=num_threads).load(rows)
    assert loaded["x"].shape == (*shape, 3)
    np.testing.assert_array_equal(loaded["y"], rows)


def test_padding_is_zero():
    loaded = streamed(Numbered(), ROWS).load(np.array([[3, 4]]), pad_to=3)
    np.testing.assert_array_equal(loaded["y"], [[3, 4], [0, 0], [0, 0]])
    assert loaded["x"].shape == (3, 2, 3)
    assert not loaded["x"][1:].any()


def test_the_same_source_and_transform_compile_nothing():
    source, traces = Numbered(), []

    def double(example):
        return 2 * example["x"]

    @jax.jit
    def draw(batch, key):
        traces.append(1)
        return batch(key, 0)

    for seed in range(3):
        rows = partition_rows(equal_partition(50, 2, seed=seed), 4)
        batch = streamed(source, rows, transform=double)
        drawn = np.asarray(rows(jax.random.key(seed), 0))
        np.testing.assert_array_equal(draw(batch, jax.random.key(seed))[:, 0], 2 * drawn + 1)
    assert len(traces) == 1
    structure = split_numbers(batch)[1]
    hash(structure)
    assert structure != split_numbers(streamed(Numbered(), rows, transform=double))[1]
    assert structure != split_numbers(streamed(source, rows, transform=abs_x))[1]


def abs_x(example):
    return np.abs(example["x"])


@pytest.mark.parametrize("make", [Broken, BrokenTogether])
def test_a_row_that_raises_is_named(make):
    batch = streamed(make(bad=17), ROWS)
    message = "row 17 of the source cannot be read: OSError: disk on fire"
    with pytest.raises(ValueError, match=message) as raised:
        batch.load(np.arange(50))
    assert isinstance(raised.value.__cause__, OSError)
    everything = streamed(make(bad=17), lambda key, worker: jnp.arange(50))
    with pytest.raises(jax.errors.JaxRuntimeError, match=message):
        jax.block_until_ready(jax.jit(everything)(KEY, 0))


class OnlyTogether(Numbered):
    def __getitems__(self, rows):
        raise OSError("too many")


class TooFew(Numbered):
    def __getitems__(self, rows):
        return [self[row] for row in rows if row != 3]


class Columns(Numbered):
    def __getitems__(self, rows):
        return {"x": rows}


def unlike(row, value):
    """A source whose row ``row`` is ``value``, unlike the others."""
    return [value if i == row else {"x": np.zeros(2), "y": 1} for i in range(9)]


BAD_ROWS = {
    "beyond": (Numbered(), [3, 50], r"row 50 is not in the source's \[0, 50\)"),
    "negative": (Numbered(), [3, -1], "row -1 is not in the source's"),
    "together": (OnlyTogether(), [1, 2], "rows 1 to 2 .* together: OSError: too many"),
    "too few": (TooFew(), [1, 3], "list of 2 examples for the rows 1 to 3, got list of 1"),
    "columns": (Columns(), [1], "must return a list of 1 examples .* got dict"),
    "shape": (
        unlike(5, {"x": np.zeros(3), "y": 1}),
        range(9),
        r"row 5: example\['x'\] is float64\[3\], but in row 0 it is float64\[2\]",
    ),
    "dtype": (
        unlike(5, {"x": np.zeros(2), "y": 1.0}),
        range(9),
        r"row 5: example\['y'\] is float64\[\], but in row 0 it is int64\[\]",
    ),
    "keys": (unlike(5, {"x": np.zeros(2)}), range(9), "row 5 is a PyTreeDef.*, but row 0 is a"),
    "too large": (
        unlike(5, {"x": np.zeros(2), "y": -(2**40)}),
        range(9),
        r"row 5: example\['y'\] holds -1099511627776, which does not fit int32",
    ),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_rows_are_named(case):
    source, rows, message = BAD_ROWS[case]
    batch = streamed(source, uniform_rows(len(source), 2), num_threads=1)
    with pytest.raises(ValueError, match=message):
        batch.load(np.asarray(rows))


def test_a_failing_transform_names_the_row():
    batch = streamed(Numbered(), ROWS, transform=lambda e: 1 / (e["y"] - 21))
    with pytest.raises(ValueError, match="transform fails on row 21: ZeroDivisionError"):
        batch.load(np.arange(50))


def test_a_stopped_load_ends_early():
    source, stop = Numbered(10_000), threading.Event()

    def stopping(example):
        if example["y"] > 0:
            stop.set()
        return example

    batch = streamed(source, ROWS, transform=stopping, num_threads=1)
    with pytest.raises(CancelledError):
        batch.load(np.arange(10_000), stop=stop)
    assert len(source.reads) < 1000


def test_ten_million_rows_need_no_memory():
    batch = streamed(Virtual(), uniform_rows(10**7, 64))
    drawn = np.asarray(batch.rows(KEY, 0))
    assert drawn.max() > 10**6
    np.testing.assert_array_equal(batch(KEY, 0)[:, -1], drawn.astype(np.float32))


def generator():
    yield 1.0


BAD_INPUT = {
    "generator": (lambda: streamed(generator(), ROWS), TypeError, "got generator: each job draws"),
    "mapping": (lambda: streamed({0: 1.0}, ROWS), TypeError, "got dict: each job draws"),
    "empty": (lambda: streamed([], ROWS), ValueError, "at least one example"),
    "text": (
        lambda: streamed([{"id": b"a"}], ROWS),
        TypeError,
        r"example\['id'\] must be numbers or booleans, got dtype \|S1: drop or encode it",
    ),
    "nothing": (lambda: streamed([None], ROWS), ValueError, "row 0 holds no array, got None"),
    "row 0": (lambda: streamed(Broken(0), ROWS), ValueError, "row 0 .* disk on fire"),
    "transform": (lambda: streamed(Numbered(), ROWS, transform=3), TypeError, "transform must be"),
    "threads": (lambda: streamed(Numbered(), ROWS, num_threads=0), ValueError, "num_threads"),
    "rows": (lambda: streamed(Numbered(49), ROWS), ValueError, "draws from 50 examples"),
    "float rows": (
        lambda: streamed(Numbered(), ROWS).load(np.zeros(2)),
        TypeError,
        "rows must be integers, got dtype float64",
    ),
    "padding": (
        lambda: streamed(Numbered(), ROWS).load(np.arange(3), pad_to=2),
        ValueError,
        "pad_to must be an integer >= 3, got 2",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input(case):
    call, error, message = BAD_INPUT[case]
    with pytest.raises(error, match=message):
        call()
