"""Timelines against the closed-form facts of each protocol, and an event loop of another kind."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_optax import protocols, runtimes
from async_optax.timelines import simulate_timeline

RUNTIMES = {
    "equal": runtimes.deterministic(),
    "two_speed": runtimes.two_speed(8.0),
    "gamma": runtimes.gamma(cv=0.5, machine_cv=0.6),
    "exponential": runtimes.exponential(),
    "pareto": runtimes.pareto(1.2),
}
any_runtimes = st.sampled_from(sorted(RUNTIMES))


def columns(timeline):
    return {
        field.name: getattr(timeline, field.name)
        for field in dataclasses.fields(timeline)
        if isinstance(getattr(timeline, field.name), np.ndarray)
    }


def assert_same(one, other):
    for name, column in columns(one).items():
        np.testing.assert_array_equal(column, columns(other)[name], err_msg=name)


@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize("num_workers", [1, 5, 16])
def test_mean_staleness_is_workers_minus_one(name, num_workers):
    timeline = simulate_timeline(
        protocols.asynchronous(), RUNTIMES[name], num_workers, num_commits=20_000
    )
    # Each commit ages all jobs in flight but the one that arrives. What jobs in flight at the
    # end have aged is the only difference, and it is known.
    last_commit = np.full(num_workers, 0)
    last_commit[timeline.worker] = timeline.version + 1
    still_aging = (timeline.num_commits - last_commit).sum()
    total = timeline.staleness.sum() + still_aging
    assert total == (num_workers - 1) * timeline.num_commits
    if name != "pareto":  # there, one job may be in flight for the whole run
        assert timeline.staleness.mean() == pytest.approx(num_workers - 1, abs=0.2)


@pytest.mark.parametrize(("slow_factor", "max_staleness"), [(4.0, 39), (8.0, 71)])
def test_largest_staleness_of_two_speeds(slow_factor, max_staleness):
    timeline = simulate_timeline(
        protocols.asynchronous(), runtimes.two_speed(slow_factor), 16, num_commits=5000
    )
    assert timeline.staleness.max() == max_staleness
    assert timeline.staleness.mean() == pytest.approx(15, abs=0.1)
    time_per_arrival = timeline.end_time / timeline.num_arrivals
    assert time_per_arrival == pytest.approx(1 / (8 + 8 / slow_factor), rel=0.01)


def test_synchronous_waits_for_the_slowest():
    timeline = simulate_timeline(protocols.synchronous(), runtimes.two_speed(8.0), 4, num_commits=5)
    np.testing.assert_array_equal(timeline.commit_times, [8, 16, 24, 32, 40])
    np.testing.assert_array_equal(timeline.staleness, 0)
    np.testing.assert_array_equal(timeline.weight, 0.25)
    np.testing.assert_allclose(timeline.utilisation(), [1 / 8, 1 / 8, 1, 1])
    np.testing.assert_allclose(timeline.idle_time(), [35, 35, 0, 0])
    assert timeline.throughput() == pytest.approx(20 / 40)


def test_buffered_schemes_by_hand():
    # The picture of the two schemes: two fast workers and a slow one, commits of two uploads.
    times = runtimes.deterministic([1.0, 1.5, 4.0])
    waiting = simulate_timeline(protocols.buffered(2, wait=True), times, 3, num_commits=3)
    rows = [
        (0, 0, 0, 0.0, 1.0, False),  # worker, read, version, start, arrival, commit
        (1, 0, 0, 0.0, 1.5, True),
        (0, 1, 1, 1.5, 2.5, False),
        (1, 1, 1, 1.5, 3.0, True),
        (2, 0, 2, 0.0, 4.0, False),  # a tie: the job that started first comes first
        (0, 2, 2, 3.0, 4.0, True),
    ]
    names = ("worker", "read_version", "version", "start_time", "time", "commit")
    for name, expected in zip(names, zip(*rows, strict=True), strict=True):
        np.testing.assert_array_equal(columns(waiting)[name], expected, err_msg=name)

    restless = simulate_timeline(protocols.buffered(2, wait=False), times, 3, num_commits=2)
    np.testing.assert_array_equal(restless.worker, [0, 1, 0, 1])
    np.testing.assert_array_equal(restless.time, [1.0, 1.5, 2.0, 3.0])
    # Worker 0 restarted before the commit at 1.5, worker 1 right after it.
    np.testing.assert_array_equal(restless.read_version, [0, 0, 0, 1])
    np.testing.assert_array_equal(restless.staleness, [0, 0, 1, 0])


@given(name=any_runtimes, num_workers=st.integers(1, 8), seed=st.integers(0, 5))
def test_equal_protocols_give_equal_timelines(name, num_workers, seed):
    def run(protocol):
        return simulate_timeline(protocol, RUNTIMES[name], num_workers, num_commits=30, seed=seed)

    assert_same(run(protocols.buffered(1)), run(protocols.asynchronous()))
    assert_same(run(protocols.buffered(1, wait=True)), run(protocols.asynchronous()))
    assert_same(run(protocols.buffered(num_workers, wait=True)), run(protocols.synchronous()))


@given(
    name=any_runtimes,
    num_workers=st.integers(1, 8),
    size=st.integers(1, 8),
    wait=st.booleans(),
    seed=st.integers(0, 5),
)
def test_every_timeline_keeps_the_invariants(name, num_workers, size, wait, seed):
    size = min(size, num_workers) if wait else size
    protocol = protocols.buffered(size, wait)
    timeline = simulate_timeline(protocol, RUNTIMES[name], num_workers, max_time=20.0, seed=seed)
    timeline.verify()
    assert timeline.end_time == 20.0
    # Weights of one commit add up to one.
    ends = np.flatnonzero(timeline.commit)
    for first, last in zip(np.append(0, ends[:-1] + 1), ends, strict=True):
        assert timeline.weight[first : last + 1].sum() == pytest.approx(1)
    # A worker's jobs do not overlap, and its k-th job takes its k-th drawn time.
    streams = RUNTIMES[name].job_times(num_workers, seed)
    for worker in range(num_workers):
        mine = timeline.worker == worker
        starts, ends = timeline.start_time[mine], timeline.time[mine]
        assert (starts[1:] >= ends[:-1]).all()
        drawn = [next(streams[worker]) for _ in range(mine.sum())]
        np.testing.assert_allclose(ends - starts, drawn, atol=1e-9)
        if not wait:
            np.testing.assert_array_equal(starts[1:], ends[:-1])
    assert (timeline.utilisation() <= 1 + 1e-12).all()
    assert len(timeline.lost.worker) <= num_workers
    assert not timeline.lost.aborted.any()


def test_jobs_that_never_arrive_are_accounted_for():
    timeline = simulate_timeline(
        protocols.asynchronous(), runtimes.deterministic([1.0, 10.0]), 2, max_time=3.5
    )
    np.testing.assert_array_equal(timeline.lost.worker, [0, 1])
    np.testing.assert_array_equal(timeline.lost.start_time, [3.0, 0.0])
    np.testing.assert_array_equal(timeline.lost.stop_time, [3.5, 3.5])
    np.testing.assert_allclose(timeline.utilisation(), 1)


class _AbortSlowest(protocols.Policy):
    """Restarts worker 1 whenever worker 0 arrives: exercises aborting."""

    name = "abort_slowest"

    def policy(self, num_workers, seed=0):
        del num_workers, seed
        return self

    def on_arrival(self, worker, staleness, time):
        del staleness, time
        others = [1] if worker == 0 else []
        return protocols.Decision(True, 1.0, True, start=[worker, *others], abort=others)


def test_aborted_jobs_are_lost_and_restarted():
    timeline = simulate_timeline(
        _AbortSlowest(), runtimes.deterministic([1.0, 3.0]), 2, num_commits=4
    )
    np.testing.assert_array_equal(timeline.worker, 0)
    aborted = timeline.lost.aborted
    np.testing.assert_array_equal(timeline.lost.worker[aborted], 1)
    np.testing.assert_array_equal(timeline.lost.start_time[aborted], [0, 1, 2, 3])
    np.testing.assert_array_equal(timeline.lost.stop_time[aborted], [1, 2, 3, 4])
    np.testing.assert_allclose(timeline.busy_time(), [4, 0])
    np.testing.assert_allclose(timeline.aborted_time(), [0, 4])


def test_verify_names_the_first_broken_row():
    good = simulate_timeline(protocols.asynchronous(), runtimes.gamma(), 3, num_commits=10)
    good.verify()

    def broken(**changes):
        replaced = {}
        for name, (row, value) in changes.items():
            column = getattr(good, name).copy()
            column[row] = value
            replaced[name] = column
        return dataclasses.replace(good, **replaced)

    for changes, message in [
        ({"worker": (4, 3)}, r"row 4 breaks the rule: worker is in \[0, num_workers\)"),
        ({"version": (2, 9)}, "row 2 breaks the rule: version counts the commits before"),
        ({"read_version": (5, 6)}, "row 5 breaks the rule: read_version is between"),
        ({"time": (3, good.time[2] - 1e-9)}, "row 3 breaks the rule: time does not decrease"),
        ({"start_time": (1, 1e9)}, "row 1 breaks the rule: a job starts before it arrives"),
        ({"time": (9, 1e9)}, "row 9 breaks the rule: time is within end_time"),
        ({"weight": (7, np.nan)}, "row 7 breaks the rule: weight is finite"),
        (
            {"accepted": (6, False)},
            "row 6 breaks the rule: a commit has accepted an arrival of its own",
        ),
        ({"read_version": (8, 0)}, "row 8 breaks the rule: read_version is current at start"),
        ({"weight": (9, np.nan), "version": (3, 7)}, "row 3 breaks the rule: version counts"),
    ]:
        with pytest.raises(ValueError, match=message):
            broken(**changes).verify()


def test_verify_notices_overlaps_and_short_columns():
    good = simulate_timeline(protocols.asynchronous(), runtimes.gamma(), 3, num_commits=10)
    with pytest.raises(ValueError, match="breaks the rule: jobs of a worker do not overlap"):
        dataclasses.replace(good, worker=np.zeros_like(good.worker)).verify()
    with pytest.raises(ValueError, match="timeline column weight is not as long as commit"):
        dataclasses.replace(good, weight=good.weight[:-1]).verify()
    with pytest.raises(ValueError, match="timeline column commit has the wrong dtype int64"):
        dataclasses.replace(good, commit=good.commit.astype(np.int64)).verify()


class _Stubborn(protocols.Policy):
    """Starts the workers it is told to, or nobody."""

    name = "stubborn"

    def __init__(self, start):
        self.start = start

    def policy(self, num_workers, seed=0):
        del num_workers, seed
        return self

    def on_arrival(self, worker, staleness, time):
        del worker, staleness, time
        return protocols.Decision(True, 1.0, True, start=self.start)


def test_impossible_decisions_raise():
    times = runtimes.deterministic([1.0, 3.0])
    with pytest.raises(ValueError, match="stubborn starts worker 1, which is still computing"):
        simulate_timeline(_Stubborn([1]), times, 2, num_commits=3)
    for nobody in (2, -1):
        with pytest.raises(ValueError, match=f"stubborn starts worker {nobody} of 2"):
            simulate_timeline(_Stubborn([nobody]), times, 2, num_commits=3)
    with pytest.raises(ValueError, match="stubborn stalls at time 3 after 2 of 3 commits"):
        simulate_timeline(_Stubborn([]), times, 2, num_commits=3)


def test_wrong_kinds_raise():
    times = runtimes.deterministic()
    for protocol in ("asynchronous", protocols.asynchronous, protocols.Policy):
        with pytest.raises(TypeError, match=r"protocol must be a protocol such as"):
            simulate_timeline(protocol, times, 2, num_commits=3)
    for model in (1.0, runtimes.gamma):
        with pytest.raises(TypeError, match=r"runtimes must be a model such as"):
            simulate_timeline(protocols.asynchronous(), model, 2, num_commits=3)
    with pytest.raises(TypeError, match="law must be a runtime model"):
        runtimes.two_speed(2.0, law=runtimes.gamma)
    with pytest.raises(TypeError, match="wait must be True or False, got 'no'"):
        protocols.buffered(2, wait="no")


def test_timelines_print_in_one_line():
    timeline = simulate_timeline(
        protocols.synchronous(), runtimes.deterministic(), 3, num_commits=2
    )
    assert repr(timeline) == "Timeline(3 workers, 6 arrivals, 2 commits, end_time=2)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_workers": 0}, "num_workers must be an integer >= 1, got 0"),
        ({"num_commits": None}, "exactly one of num_commits and max_time"),
        ({"max_time": 1.0}, "exactly one of num_commits and max_time"),
        ({"num_commits": 0}, "num_commits must be an integer >= 1, got 0"),
        ({"num_commits": None, "max_time": -1.0}, "max_time must be a finite number > 0"),
        ({"num_commits": None, "max_time": 0.01}, "nothing arrives before max_time=0.01"),
        ({"protocol": protocols.buffered(5, wait=True)}, "size must be <= num_workers"),
        ({"seed": -1}, "seed must be an integer >= 0"),
    ],
)
def test_bad_input_raises(arguments, message):
    defaults = {
        "protocol": protocols.asynchronous(),
        "runtimes": runtimes.deterministic(),
        "num_workers": 4,
        "num_commits": 5,
    }
    with pytest.raises(ValueError, match=message):
        simulate_timeline(**(defaults | arguments))


def test_bad_protocols_raise():
    with pytest.raises(ValueError, match="size must be an integer >= 1, got 0"):
        protocols.buffered(0)
    with pytest.raises(TypeError, match="size must be an integer >= 1, got 2.5"):
        protocols.buffered(2.5)


def test_verify_looks_at_what_is_lost_or_away():
    model = runtimes.gamma().with_failures(runtimes.exponential(4.0), runtimes.exponential())
    good = simulate_timeline(protocols.asynchronous(), model, 3, max_time=30.0)
    good.verify()
    for name in ("lost", "absences"):
        table = getattr(good, name)
        for column, value in (("worker", 3), ("start_time", -1.0), ("stop_time", 31.0)):
            changed = getattr(table, column).copy()
            changed[1] = value
            broken = dataclasses.replace(table, **{column: changed})
            with pytest.raises(ValueError, match=f"timeline.{name} row 1 breaks the rule"):
                dataclasses.replace(good, **{name: broken}).verify()
        short = dataclasses.replace(table, worker=table.worker[1:])
        with pytest.raises(ValueError, match=f"timeline.{name} has columns of different lengths"):
            dataclasses.replace(good, **{name: short}).verify()


def test_verify_knows_that_lost_jobs_take_their_worker():
    good = simulate_timeline(protocols.ringmaster(1, stop=True), runtimes.gamma(), 3, max_time=9.0)
    lost = good.lost
    twice = dataclasses.replace(lost, start_time=np.zeros_like(lost.start_time))
    with pytest.raises(ValueError, match=r"overlap"):
        dataclasses.replace(good, lost=twice).verify()
    nowhen = dataclasses.replace(good, end_time=np.inf)
    with pytest.raises(ValueError, match="timeline.end_time must be a finite number > 0, got inf"):
        nowhen.verify()
    why = dataclasses.replace(lost, reason=np.full_like(lost.reason, 77))
    with pytest.raises(ValueError, match="timeline.lost.reason must be one of"):
        dataclasses.replace(good, lost=why).verify()
