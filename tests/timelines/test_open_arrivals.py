"""Workers that come, do one job and leave: queueing theory, and a slow loop of another kind."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_optax import runtimes
from async_optax.timelines import Reason, open_arrivals
from async_optax.timelines.runtimes.streams import VISITORS, stream

LAWS = {
    "deterministic": runtimes.deterministic(1.5),
    "gamma": runtimes.gamma(cv=0.5, machine_cv=0.6),
    "exponential": runtimes.exponential(2.0),
    "pareto": runtimes.pareto(1.2).with_machines(runtimes.uniform(0.5, 1.5)),
}
COLUMNS = ("worker", "read_version", "version", "start_time", "time", "weight")
COLUMNS += ("accepted", "commit")
any_law = st.sampled_from(sorted(LAWS))


def assert_first_rows(fewer, more):
    for name in COLUMNS:
        ours = getattr(fewer, name)
        np.testing.assert_array_equal(ours, getattr(more, name)[: len(ours)], err_msg=name)


@pytest.mark.parametrize(
    ("name", "mean"), [("deterministic", 1.5), ("gamma", 1.0), ("exponential", 2.0)]
)
def test_mean_staleness_is_rate_times_mean_time(name, mean):
    rate, max_time = 4.0, 6000.0
    timeline = open_arrivals(rate, LAWS[name], max_time=max_time, seed=1)
    # Poisson: the visitors of a time have mean and variance rate * time.
    assert timeline.num_workers == pytest.approx(rate * max_time, abs=5 * np.sqrt(rate * max_time))
    in_flight = (timeline.busy_time().sum()) / max_time
    assert in_flight == pytest.approx(rate * mean, rel=0.03)
    assert timeline.staleness.mean() == pytest.approx(rate * mean, rel=0.03)


@given(
    name=any_law,
    size=st.integers(1, 4),
    num_commits=st.integers(1, 30),
    rate=st.sampled_from([0.3, 1.0, 10.0]),
    seed=st.integers(0, 5),
)
def test_an_independent_loop_gives_the_same_rows(name, size, num_commits, rate, seed):
    timeline = open_arrivals(rate, LAWS[name], size=size, num_commits=num_commits, seed=seed)
    timeline.verify()
    count = timeline.num_workers + 1  # one more than came
    draws = stream(seed, VISITORS, 0), stream(seed, VISITORS, 1)
    scales = LAWS[name].scales(count, seed)
    clock, events = 0.0, []
    for k in range(count):
        clock -= np.log1p(-draws[0].random()) / rate
        time = scales[k] * LAWS[name].quantile(np.array([draws[1].random()]), k)[0]
        events += [(clock + time, 0, k, clock), (clock, 1, k, clock)]
    assert clock > timeline.end_time
    version, gathered, read, rows = 0, 0, {}, []
    for time, is_start, k, start in sorted(events):
        if version == num_commits:
            break
        if is_start:
            read[k] = version
            continue
        gathered += 1
        commit = gathered == size
        rows.append((k, read[k], version, start, time, 1 / size, True, commit))
        if commit:
            version, gathered = version + 1, 0
    assert version == num_commits
    for column, expected in zip(COLUMNS, zip(*rows, strict=True), strict=True):
        np.testing.assert_allclose(
            getattr(timeline, column), expected, rtol=1e-13, atol=0, err_msg=column
        )
    in_flight = set(read) - set(timeline.worker.tolist())
    np.testing.assert_array_equal(timeline.lost.worker, sorted(in_flight))


@given(
    name=any_law,
    size=st.integers(1, 3),
    num_commits=st.integers(1, 40),
    more=st.integers(1, 300),
    seed=st.integers(0, 5),
)
def test_fewer_commits_are_the_first_of_more(name, size, num_commits, more, seed):
    def run(**end):
        return open_arrivals(2.0, LAWS[name], size=size, seed=seed, **end)

    fewer = run(num_commits=num_commits)
    assert_first_rows(fewer, run(num_commits=num_commits + more))
    timed = run(max_time=fewer.end_time)
    assert_first_rows(fewer, timed)
    assert timed.num_arrivals == fewer.num_arrivals
    assert timed.num_workers == fewer.num_workers


@pytest.mark.parametrize("name", sorted(LAWS.keys() - {"deterministic"}))
def test_times_follow_their_law(name):
    # All arrive before the end: none is cut off, so the times are a fair sample.
    timeline = open_arrivals(np.linspace(0, 1, 4000), LAWS[name], max_time=1e9)
    assert timeline.num_arrivals == 4000
    times = np.empty(4000)
    times[timeline.worker] = timeline.time - timeline.start_time
    times /= LAWS[name].scales(4000, 0)
    for level in (0.1, 0.5, 0.9):
        bound = LAWS[name].quantile(np.array([level]), 0)
        # Five standard deviations of a binomial share.
        spread = 5 * np.sqrt(level * (1 - level) / 4000)
        assert np.mean(times <= bound) == pytest.approx(level, abs=spread)


def test_given_starts_by_hand():
    starts = [0.0, 0.0, 1.0, 2.5, 2.5, 9.0]
    times = runtimes.deterministic([2.0, 1.0, 1.0, 0.25, 7.0, 1.0])
    timeline = open_arrivals(starts, times, size=2, num_commits=2)
    timeline.verify()
    rows = [
        (1, 0, 0, 0.0, 1.0, False),  # worker, read, version, start, arrival, commit
        (0, 0, 0, 0.0, 2.0, True),  # a tie: the job that started first comes first
        (2, 0, 1, 1.0, 2.0, False),  # it started when only one had arrived
        (3, 1, 1, 2.5, 2.75, True),
    ]
    names = ("worker", "read_version", "version", "start_time", "time", "commit")
    for name, expected in zip(names, zip(*rows, strict=True), strict=True):
        np.testing.assert_array_equal(getattr(timeline, name), expected, err_msg=name)
    assert (timeline.num_workers, timeline.end_time) == (5, 2.75)  # the last never came
    np.testing.assert_array_equal(timeline.lost.worker, [4])
    np.testing.assert_array_equal(timeline.lost.start_time, [2.5])
    np.testing.assert_array_equal(timeline.lost.stop_time, [2.75])
    np.testing.assert_array_equal(timeline.lost.reason, Reason.UNFINISHED)
    np.testing.assert_array_equal(timeline.present_time(), [2.0, 1.0, 1.0, 0.25, 0.25])
    np.testing.assert_array_equal(timeline.utilisation(), 1)

    timed = open_arrivals(starts, times, size=2, max_time=2.0)
    np.testing.assert_array_equal(timed.worker, [1, 0, 2])
    assert timed.num_workers == 3
    assert timed.num_commits == 1


def test_seeds_give_other_visitors():
    one, other = (open_arrivals(1.0, runtimes.gamma(), num_commits=5, seed=k) for k in (0, 1))
    assert not np.intersect1d(one.start_time, other.start_time).size


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"starts": 0.0}, ValueError, "starts must be a finite number > 0, got 0.0"),
        ({"starts": "often"}, TypeError, "starts must be a finite number > 0, got 'often'"),
        ({"starts": []}, ValueError, r"starts must be a rate or start times, got shape \(0,\)"),
        ({"starts": [-1.0, 0.0]}, ValueError, "starts must be a finite number >= 0"),
        ({"starts": [0.0, np.nan]}, ValueError, "starts must be a finite number >= 0"),
        (
            {"starts": [0.0, 2.0, 1.0]},
            ValueError,
            "starts must be in order, got 1.0 after 2.0 for visitor 2",
        ),
        (
            {"starts": [0.0, 1.0, 2.0], "size": 2},
            ValueError,
            "starts has 3 visitors, but 2 commits of 2 arrivals take 4",
        ),
        (
            {"runtimes": runtimes.gamma().with_transfers(upload=runtimes.gamma())},
            ValueError,
            "runtimes must be a plain law of times, without transfers",
        ),
        ({"runtimes": 1.0}, TypeError, "runtimes must be a runtime model"),
        (
            {"runtimes": runtimes.deterministic([1.0, 2.0])},
            ValueError,
            "runtimes must serve any number of visitors if starts is a rate: times has 2 entries",
        ),
        (
            {"runtimes": runtimes.two_speed(2.0)},
            ValueError,
            r"same machine however many follow if starts is a rate, got two_speed\(2",
        ),
        ({"size": 0}, ValueError, "size must be an integer >= 1, got 0"),
        ({"num_commits": 0}, ValueError, "num_commits must be an integer >= 1, got 0"),
        ({"num_commits": None}, ValueError, "exactly one of num_commits and max_time"),
        ({"max_time": 3.0}, ValueError, "exactly one of num_commits and max_time"),
        (
            {"num_commits": None, "max_time": 0.0},
            ValueError,
            "max_time must be a finite number > 0",
        ),
        (
            {"num_commits": None, "max_time": 1e-9},
            ValueError,
            "nothing arrives before max_time=1e-09",
        ),
        ({"seed": -1}, ValueError, "seed must be an integer >= 0"),
    ],
)
def test_bad_input_raises(changes, error, message):
    arguments = {"starts": 1.0, "runtimes": runtimes.gamma(), "num_commits": 2} | changes
    with pytest.raises(error, match=message):
        open_arrivals(arguments.pop("starts"), arguments.pop("runtimes"), **arguments)


def test_a_rate_far_too_high_is_refused():
    with pytest.raises(ValueError, match=r"the rate starts=1 is too high for deterministic"):
        open_arrivals(1.0, runtimes.deterministic(1e10), num_commits=1)
    with pytest.raises(ValueError, match=r"the rate starts=1e\+12 is too high"):
        open_arrivals(1e12, runtimes.deterministic(1.0), max_time=1e3)
