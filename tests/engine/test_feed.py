"""The feed: what it delivers is what the program would have drawn, read ahead of its use."""

import dataclasses
import threading
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from async_optax.data import equal_partition, in_memory, partition_rows, streamed, uniform_rows
from async_optax.engine.feed import Feed, _rows_of_jobs, delivered
from tests.data.sources import Broken, Numbered, Virtual

JOB_KEY = jax.random.key(7)
ROWS = uniform_rows(50, 4)


def one_key(key):
    return jax.random.split(key, 3)[:1]


def three_keys(key):
    return jax.random.split(key, 3)


def whole(key):
    return key[None]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert not {t for t in set(threading.enumerate()) - before if "async_optax" in t.name}


def run_jobs(batch, batch_keys, jobs, workers, deliver=None):
    """Each job's batches, from the data or from what was delivered, in one compiled program."""

    @jax.jit
    def run(batch, jobs, workers, deliver):
        def job_batches(job, worker, arrived):
            keys = batch_keys(jax.random.fold_in(JOB_KEY, job))
            draw = batch if arrived is None else delivered(arrived, keys)
            return jax.lax.scan(lambda i, key: (i, draw(key, worker)), 0, keys)[1]

        return jax.vmap(job_batches)(jobs, workers, deliver)

    return run(batch, jobs, workers, deliver)


@pytest.mark.parametrize("batch_keys", [one_key, three_keys])
def test_delivered_batches_are_those_of_arrays_on_the_device(batch_keys):
    source = Numbered()
    rows = partition_rows(equal_partition(50, 3, seed=0), 4)
    expected = in_memory(source.arrays(), rows)
    jobs, workers = np.array([0, 4, 5, 9]), np.array([2, 0, 1, 2])
    with Feed(streamed(source, rows), batch_keys, JOB_KEY, capacity=4) as feed:
        feed.request(jobs, workers)
        arrived = feed.collect()
    fed = run_jobs(None, batch_keys, jobs, workers, arrived)
    drawn = run_jobs(expected, batch_keys, jobs, workers)
    assert jax.tree.structure(fed) == jax.tree.structure(drawn)
    for a, b in zip(jax.tree.leaves(fed), jax.tree.leaves(drawn), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_chunks_do_not_matter():
    jobs, workers = np.arange(11), np.arange(11) % 3
    batch, fed = streamed(Numbered(), ROWS), []
    for ends in ((4, 8, 11), (3, 7, 11)):
        chunks, starts = [], (0, *ends[:-1])
        with Feed(batch, three_keys, JOB_KEY, capacity=4) as feed:
            feed.request(jobs[: ends[0]], workers[: ends[0]])
            for start, end in zip(starts[1:], ends[1:], strict=True):
                feed.request(jobs[start:end], workers[start:end])
                chunks.append(feed.collect()["y"])
            chunks.append(feed.collect()["y"])
        sizes = np.diff((0, *ends))
        assert not any(chunk[size:].any() for chunk, size in zip(chunks, sizes, strict=True))
        fed.append(np.concatenate([c[:size] for c, size in zip(chunks, sizes, strict=True)]))
    assert fed[0].shape == (11, 3, 4)
    assert len(np.unique(fed[0])) > 20
    np.testing.assert_array_equal(*fed)


def test_no_jobs_are_zeros():
    with Feed(streamed(Numbered(), ROWS), one_key, JOB_KEY, capacity=2) as feed:
        feed.request(np.zeros(0, int), np.zeros(0, int))
        fed = feed.collect()
    assert fed["x"].shape == (2, 1, 4, 3)
    assert not fed["x"].any()


@pytest.mark.usefixtures("x64")
def test_double_precision_reaches_the_thread():
    with Feed(streamed(Numbered(), ROWS), one_key, JOB_KEY, capacity=2) as feed:
        feed.request([0, 1], [0, 0])
        fed = feed.collect()
    assert (fed["x"].dtype, fed["y"].dtype) == (jnp.float64, jnp.int64)


def test_generators_that_vmap_changes_draw_as_one_at_a_time():
    job_key = jax.random.key(3, impl="rbg")
    with Feed(streamed(Numbered(), ROWS), three_keys, job_key, capacity=3) as feed:
        feed.request(np.arange(3), np.zeros(3, int))
        fed = feed.collect()["y"]
    for job in range(3):
        for i, key in enumerate(three_keys(jax.random.fold_in(job_key, job))):
            np.testing.assert_array_equal(fed[job, i], ROWS(key, 0))


class Gated(Numbered):
    """Rows from 0 on are read only while the gate is open; says when reading has begun."""

    def __init__(self, num_examples=50):
        super().__init__(num_examples)
        self.gate, self.begun = threading.Event(), threading.Event()
        self.gate.set()

    def __getitem__(self, row):
        self.begun.set()
        assert self.gate.wait(30)
        return super().__getitem__(row)


def test_the_next_chunk_is_read_while_this_one_is_used():
    source = Gated()
    with Feed(streamed(source, ROWS), one_key, JOB_KEY, capacity=2) as feed:
        feed.request([0, 1], [0, 0])
        current = feed.collect()
        reads = len(source.reads)
        source.gate.clear()
        source.begun.clear()
        feed.request([2, 3], [0, 0])
        assert source.begun.wait(30)  # it reads, and we go on
        used = float(jnp.sum(current["x"]))
        assert len(source.reads) == reads
        source.gate.set()
        assert float(jnp.sum(feed.collect()["x"])) != used


def test_an_error_in_the_thread_names_the_row():
    rows = uniform_rows(50, 200)  # hits every row
    with Feed(streamed(Broken(17), rows), one_key, JOB_KEY, capacity=2) as feed:
        feed.request([0, 1], [0, 0])
        with pytest.raises(ValueError, match="row 17 of the source cannot be read: OSError"):
            feed.collect()


def fail_while_it_reads(feed, source):
    def open_when_stopped():
        assert feed._stop.wait(30)
        source.gate.set()

    opener = threading.Thread(target=open_when_stopped)
    with feed:
        source.gate.clear()
        source.begun.clear()
        feed.request([0, 1], [0, 0])
        feed.request([2, 3], [0, 0])
        assert source.begun.wait(30)
        opener.start()
        raise KeyError("in the loop")


def test_an_error_in_the_run_ends_the_thread_early():
    source = Gated(5000)
    batch = streamed(source, uniform_rows(5000, 2000), num_threads=1)
    feed = Feed(batch, one_key, JOB_KEY, capacity=2)
    with pytest.raises(KeyError, match="in the loop"):
        fail_while_it_reads(feed, source)
    assert 1 < len(source.reads) < 1000
    with pytest.raises(RuntimeError):
        feed.request([4], [0])


@dataclasses.dataclass(frozen=True)
class Program:
    num_batches: int

    def batch_keys(self, key):
        return jax.random.split(key, self.num_batches)


@pytest.mark.parametrize("batch_keys", [lambda: one_key, lambda: Program(1).batch_keys])
def test_other_seeds_compile_nothing(batch_keys):
    before = None
    source = Numbered()
    for seed in range(3):
        rows = partition_rows(equal_partition(50, 3, seed=seed), 4)
        job_key = jax.random.key(seed)
        with Feed(streamed(source, rows), batch_keys(), job_key, capacity=3) as feed:
            for n in (3, 2):
                feed.request(np.arange(n), np.zeros(n, int))
                feed.collect()
        before = before or _rows_of_jobs._cache_size()
    assert _rows_of_jobs._cache_size() == before


def test_ten_gigabytes_through_little_memory():
    rows = uniform_rows(10**7, 16)
    batch = streamed(Virtual(), rows)
    with Feed(batch, whole, JOB_KEY, capacity=32) as feed:
        tracemalloc.start()
        for start in range(0, 320, 32):
            jobs = np.arange(start, start + 32)
            feed.request(jobs, np.zeros(32, int))
            fed = feed.collect()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 8 * fed.nbytes < 2**23
    drawn = rows(jax.random.fold_in(JOB_KEY, 319), 0)
    np.testing.assert_array_equal(fed[31, 0, :, 0], drawn.astype(np.float32))


def test_a_key_that_was_not_announced_gets_nan():
    keys = jax.random.split(JOB_KEY, 4)
    batch = delivered({"x": jnp.arange(6.0).reshape(3, 2)}, keys[:3])
    for i in range(3):
        np.testing.assert_array_equal(batch(keys[i], 0)["x"], [2.0 * i, 2.0 * i + 1])
    assert np.isnan(batch(keys[3], 0)["x"]).all()


def request(jobs, workers, times=1):
    with Feed(streamed(Numbered(), ROWS), one_key, JOB_KEY, capacity=2) as feed:
        for _ in range(times):
            feed.request(jobs, workers)


def collect_nothing():
    with Feed(streamed(Numbered(), ROWS), one_key, JOB_KEY, capacity=2) as feed:
        feed.collect()


BAD_INPUT = {
    "batch": (lambda: Feed(ROWS, one_key, JOB_KEY, 2), TypeError, "what streamed(.*) returns"),
    "capacity": (
        lambda: Feed(streamed(Numbered(), ROWS), one_key, JOB_KEY, 0),
        ValueError,
        "capacity must be an integer >= 1, got 0",
    ),
    "many": (lambda: request([0, 1, 2], [0, 0, 0]), ValueError, "at most 2 integers"),
    "shapes": (lambda: request([0, 1], [0]), ValueError, r"shapes \(2,\) and \(1,\)"),
    "floats": (lambda: request([0.0], [0]), TypeError, "jobs and workers must be integers"),
    "third": (lambda: request([0], [0], times=3), RuntimeError, "one of the 2 requests first"),
    "nothing": (collect_nothing, RuntimeError, "nothing to collect"),
    "keys": (
        lambda: delivered(jnp.zeros((3, 2)), jax.random.split(JOB_KEY, 2)),
        ValueError,
        r"leading axis of 2 batches, one per key, got shape \(3, 2\)",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input(case):
    call, error, message = BAD_INPUT[case]
    with pytest.raises(error, match=message):
        call()
