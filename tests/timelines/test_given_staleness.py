"""Timelines of given staleness: who computes, what is refused, real logs."""

import os
import pathlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_optax import Timeline
from async_optax.timelines import uniform_staleness


@given(draws=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=40))
def test_any_possible_staleness_gives_a_timeline(draws):
    staleness = [int(u * (i + 1)) for i, u in enumerate(draws)]
    timeline = Timeline.from_staleness(staleness)
    timeline.verify()
    np.testing.assert_array_equal(timeline.staleness, staleness)
    np.testing.assert_array_equal(timeline.commit_times, np.arange(len(draws)) + 1.0)
    np.testing.assert_array_equal(timeline.start_time, timeline.read_version)
    in_flight = [
        np.sum((timeline.start_time <= t) & (timeline.time > t)) for t in range(len(draws))
    ]
    assert timeline.num_workers == max(in_flight)
    assert timeline.end_time == len(draws)
    assert (timeline.utilisation() <= 1).all()
    # The lowest worker that is free: whoever comes before is busy when the job starts.
    for job in range(len(draws)):
        start = timeline.start_time[job]
        busy = (timeline.start_time <= start) & (timeline.time > start)
        assert set(range(timeline.worker[job])) <= set(timeline.worker[busy].tolist())


def test_one_worker_is_always_fresh_and_two_take_turns():
    assert Timeline.from_staleness(np.zeros(5, np.uint8)).num_workers == 1
    turns = Timeline.from_staleness([0.0, 1.0, 1.0, 1.0])
    assert turns.num_workers == 2
    np.testing.assert_array_equal(turns.worker, [0, 1, 0, 1])


@pytest.mark.parametrize(
    ("staleness", "error", "message"),
    [
        ([0, 1, 3], ValueError, "row 2 has staleness 3, but only 2 versions have been made"),
        ([1], ValueError, "row 0 has staleness 1, but only 0 versions have been made"),
        ([0, -1], ValueError, "row 1 must be an integer >= 0, got -1"),
        ([0, 0.5], ValueError, "row 1 must be an integer >= 0, got 0.5"),
        ([0, np.nan], ValueError, "row 1 must be an integer >= 0, got nan"),
        ([], ValueError, "staleness must have at least one row, got none"),
        ([[0, 1]], ValueError, r"one number per commit, got shape \(1, 2\)"),
        (3, ValueError, r"one number per commit, got shape \(\)"),
        (["a"], TypeError, "staleness must be integers >= 0, got dtype <U1"),
        ([True], TypeError, "staleness must be integers >= 0, got dtype bool"),
    ],
)
def test_impossible_staleness_is_refused(staleness, error, message):
    with pytest.raises(error, match=message):
        Timeline.from_staleness(staleness)


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("0\n1\n1\n", None),
        ("staleness\n0\n\n1\n1.0\n", None),
        ("0,9\n1,9\n1,9\n", 0),
        ("9,0\n9,1\n9,1\n", 1),
        ("step, delay\n0,0\n1,1\n2,1\n", "delay"),
        ("step,delay\n0,0\n1,1\n2,1\n", 1),
    ],
)
def test_files(tmp_path, text, column):
    path = tmp_path / "log.csv"
    path.write_text(text)
    for source in (path, str(path)):
        timeline = Timeline.from_staleness(source, column=column)
        np.testing.assert_array_equal(timeline.staleness, [0, 1, 1])


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("0,1\n1,1\n", None, "log.csv has 2 columns: say which by column=; they are 0 to 1"),
        ("a,b\n0,1\n", None, "log.csv has 2 columns: say which by column=; they are a, b"),
        ("a,b\n0,1\n", "c", "log.csv has no column 'c': its columns are a, b"),
        ("0,1\n", "a", "no column 'a': its columns are 0 to 1, without a header"),
        ("0,1\n", 2, "log.csv has no column 2"),
        ("0,1\n", -1, "column must be an integer >= 0, got -1"),
        ("a\n0\nx\n", None, r"log.csv: row 1 \(line 3\) must be an integer >= 0, got 'x'"),
        ("0,0\n0\n", 1, r"row 1 \(line 2\) must be an integer >= 0, got 1 cells"),
        ("a\n\n0\n2\n", None, r"row 1 \(line 4\) has staleness 2, but only 1 versions"),
        ("", None, "log.csv must have at least one row, got none"),
        ("a\n", None, "log.csv must have at least one row, got none"),
    ],
)
def test_faulty_files(tmp_path, text, column, message):
    path = tmp_path / "log.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        Timeline.from_staleness(path, column=column)


def test_a_column_needs_a_file(tmp_path):
    with pytest.raises(ValueError, match="column=0 is of a file, but staleness is given"):
        Timeline.from_staleness([0, 0], column=0)
    with pytest.raises(FileNotFoundError, match="there is no file .*absent.csv"):
        Timeline.from_staleness(tmp_path / "absent.csv")


def test_real_logs():
    if "ASYNC_OPTAX_DATA" not in os.environ:
        pytest.skip("ASYNC_OPTAX_DATA is not set")
    delays = pathlib.Path(os.environ["ASYNC_OPTAX_DATA"]) / "delays"
    timeline = Timeline.from_staleness(delays / "BCD_Adaptive1_MNIST.csv")
    timeline.verify()
    assert timeline.num_commits == 3001
    # Eight workers ran; without a clock, the same delays never need more.
    assert timeline.staleness.mean() == pytest.approx(6.98, abs=0.01)
    assert timeline.num_workers <= 8
    with pytest.raises(ValueError, match="PIAG_Adaptive1_MNIST.csv has 8 columns"):
        Timeline.from_staleness(delays / "PIAG_Adaptive1_MNIST.csv")
    Timeline.from_staleness(delays / "PIAG_Adaptive1_MNIST.csv", column=7).verify()


def test_uniform_staleness_is_uniform():
    staleness = uniform_staleness(4, 50_000, seed=3)
    assert staleness.dtype == np.int32
    counts = np.bincount(staleness[4:], minlength=5)
    assert len(counts) == 5
    # Five standard deviations of a binomial count.
    np.testing.assert_allclose(counts, 10_000, atol=5 * np.sqrt(50_000 * 0.2 * 0.8))
    early = np.array([uniform_staleness(4, 3, seed)[2] for seed in range(600)])
    counts = np.bincount(early, minlength=3)
    assert len(counts) == 3
    np.testing.assert_allclose(counts, 200, atol=5 * np.sqrt(600 * 2 / 9))


@given(
    max_staleness=st.integers(0, 20),
    num_commits=st.integers(1, 60),
    more=st.integers(0, 60),
    seed=st.integers(0, 5),
)
def test_uniform_staleness_is_possible_and_a_prefix(max_staleness, num_commits, more, seed):
    staleness = uniform_staleness(max_staleness, num_commits, seed)
    assert staleness.max() <= max_staleness
    Timeline.from_staleness(staleness).verify()
    longer = uniform_staleness(max_staleness, num_commits + more, seed)
    np.testing.assert_array_equal(longer[:num_commits], staleness)


def test_uniform_staleness_refuses():
    with pytest.raises(ValueError, match="max_staleness must be an integer >= 0, got -1"):
        uniform_staleness(-1, 3)
    with pytest.raises(ValueError, match="num_commits must be an integer >= 1, got 0"):
        uniform_staleness(1, 0)
    with pytest.raises(ValueError, match="seed must be an integer >= 0"):
        uniform_staleness(1, 3, seed=-1)
