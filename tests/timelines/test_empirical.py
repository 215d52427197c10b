"""The law of measured times."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_optax import protocols, runtimes
from async_optax.timelines import read_jobs, simulate_timeline

OF_WORKERS = {"a": [3.0, 1.0], "b": [5.0], "c": [2.0, 2.0, 4.0]}
times = st.lists(st.floats(0.01, 100), min_size=1, max_size=20)
draws = st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=20)


@given(samples=times, draws=draws)
def test_quantile_is_the_inverse_of_the_empirical_distribution(samples, draws):
    model = runtimes.empirical(samples)
    for draw, drawn in zip(draws, model.quantile(np.array(draws), 0), strict=True):
        # The smallest sample up to which more than a share ``draw`` of all samples are.
        shares = [np.mean(np.array(samples) <= x) for x in samples]
        assert drawn == min(x for x, share in zip(samples, shares, strict=True) if share > draw)


@given(groups=st.lists(times, min_size=1, max_size=5), data=st.data())
def test_each_worker_draws_of_its_own(groups, data):
    model = runtimes.empirical(groups)
    count = data.draw(st.integers(1, 30))
    worker = np.array(
        data.draw(st.lists(st.integers(0, len(groups) - 1), min_size=count, max_size=count))
    )
    uniform = np.random.default_rng(count).random(count)
    drawn = model.quantile(uniform, worker)
    for u, k, t in zip(uniform, worker, drawn, strict=True):
        assert t == sorted(groups[k])[int(u * len(groups[k]))]
        assert t == model.quantile(np.array([u]), int(k))[0]


def test_each_time_is_drawn_equally_often():
    model = runtimes.empirical([1.0, 2.0, 3.0, 4.0])
    stream = model.job_times(num_workers=1, seed=0)[0]
    counts = np.unique([next(stream) for _ in range(8000)], return_counts=True)[1]
    np.testing.assert_allclose(counts, 2000, atol=5 * np.sqrt(8000 * 3 / 16))


def test_all_sources_of_laws_per_worker(tmp_path):
    rows = [("a", 0, 3), ("b", 0, 5), ("a", 4, 5), ("c", 1, 3), ("c", 3, 5), ("c", 5, 9)]
    path = tmp_path / "trace.csv"
    path.write_text("worker,start,finish\n" + "".join(f"{w},{s},{f}\n" for w, s, f in rows))
    uniform, worker = np.linspace(0, 0.99, 60), np.arange(60) % 3
    expected = runtimes.empirical(OF_WORKERS).quantile(uniform, worker)
    numbered = {10: OF_WORKERS["b"], 2: OF_WORKERS["a"], 11: OF_WORKERS["c"]}
    for samples in (list(OF_WORKERS.values()), numbered, path, str(path), read_jobs(rows)):
        model = runtimes.empirical(samples)
        np.testing.assert_array_equal(model.quantile(uniform, worker), expected)
        assert model.name == "empirical(6 times of 3 workers)"
    pooled = runtimes.empirical(path, pooled=True)
    everything = runtimes.empirical([1.0, 2.0, 2.0, 3.0, 4.0, 5.0])
    assert pooled.name == everything.name == "empirical(6 times)"
    for model in (pooled, runtimes.empirical(OF_WORKERS, pooled=True)):
        np.testing.assert_array_equal(
            model.quantile(uniform, worker), everything.quantile(uniform, worker)
        )


def test_a_law_per_worker_wants_its_workers():
    model = runtimes.empirical(OF_WORKERS)
    simulate_timeline(protocols.asynchronous(), model, 3, num_commits=20).verify()
    message = "a law for each of 3 workers, but there are {}: pooled=True lets any number"
    for num_workers in (1, 2, 4):
        with pytest.raises(ValueError, match=message.format(num_workers)):
            simulate_timeline(protocols.asynchronous(), model, num_workers, num_commits=5)
    with pytest.raises(ValueError, match=message.format(1)):
        simulate_timeline(
            protocols.asynchronous(), runtimes.gamma().with_server(model), 3, num_commits=5
        )
    with pytest.raises(ValueError, match=message.format(4)):
        simulate_timeline(
            protocols.synchronous(), runtimes.two_speed(2.0, law=model), 4, num_commits=5
        )
    pooled = runtimes.empirical(OF_WORKERS, pooled=True)
    assert simulate_timeline(protocols.asynchronous(), pooled, 7, num_commits=50).num_workers == 7


def test_one_law_per_worker_is_not_one_for_all():
    model = runtimes.empirical([[1.0, 2.0]])
    model.job_times(num_workers=1, seed=0)
    with pytest.raises(ValueError, match="a law for each of 1 workers, but there are 2"):
        model.job_times(num_workers=2, seed=0)


@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        ([], ValueError, r"samples must be a sequence of times, got shape \(0,\)"),
        ({}, ValueError, "samples must have at least one worker, got none"),
        ([1.0, 0.0], ValueError, "samples must be a finite number > 0"),
        ([1.0, np.inf], ValueError, "samples must be a finite number > 0"),
        (["1.0"], TypeError, "samples must be a finite number > 0"),
        ([[1.0], [-1.0]], ValueError, r"samples\[1\] must be a finite number > 0"),
        ([[1.0], []], ValueError, r"samples\[1\] must be a sequence of times, got shape \(0,\)"),
        ({"x": [np.nan]}, ValueError, r"samples\[x\] must be a finite number > 0"),
        ({1: [1.0], "1": [2.0]}, ValueError, "samples must name each worker once"),
        ({None: [1.0]}, ValueError, "samples must name each worker once"),
        (3.0, TypeError, "samples must be times, one sequence or one per worker, or a trace"),
    ],
)
def test_bad_samples_raise(samples, error, message):
    with pytest.raises(error, match=message):
        runtimes.empirical(samples)


def test_bad_files_and_flags_raise(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.csv"):
        runtimes.empirical(tmp_path / "absent.csv")
    with pytest.raises(TypeError, match="pooled must be True or False, got 'yes'"):
        runtimes.empirical([1.0], pooled="yes")
