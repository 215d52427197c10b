"""One protocol after another in one run."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_optax import protocols, runtimes
from async_optax.timelines import simulate_timeline

COLUMNS = ("worker", "read_version", "version", "start_time", "time", "accepted", "commit")
STAGES = {
    "synchronous": protocols.synchronous(),
    "backup": protocols.synchronous(backup=1),
    "asynchronous": protocols.asynchronous(),
    "uniform": protocols.asynchronous("uniform", 5),
    "shuffled": protocols.asynchronous("shuffled", 2),
    "buffered": protocols.buffered(2),
    "waiting": protocols.buffered(3, wait=True),
    "softsync": protocols.softsync(1),
    "bounded_staleness": protocols.bounded_staleness(1),
    "rennala": protocols.rennala(2),
    "ringmaster": protocols.ringmaster(2),
    "ringmaster_stop": protocols.ringmaster(1, stop=True),
    "token_control": protocols.token_control(3, tolerance=0),
    "round_robin": protocols.round_robin(),
}


def run(stages, times, **end):
    timeline = simulate_timeline(
        protocols.switching(stages), runtimes.deterministic(times), len(times), **end
    )
    timeline.verify()
    return timeline


def assert_rows(timeline, rows):
    for name, expected in zip(COLUMNS, zip(*rows, strict=True), strict=True):
        np.testing.assert_array_equal(getattr(timeline, name), expected, err_msg=name)


def test_there_and_back_by_hand():
    sync = protocols.synchronous()
    stages = [(4.0, sync), (6.0, protocols.asynchronous()), (None, sync)]
    rows = [
        (0, 0, 0, 0.0, 1.0, True, False),
        (1, 0, 0, 0.0, 2.0, True, True),
        (0, 1, 1, 2.0, 3.0, True, False),
        (1, 1, 1, 2.0, 4.0, True, True),  # the commit at 4 is the last of its stage
        (0, 2, 2, 4.0, 5.0, True, True),
        (1, 2, 3, 4.0, 6.0, True, True),  # a tie: it started first
        (0, 3, 4, 5.0, 6.0, False, False),  # in flight since the stage before: stale
        (0, 4, 4, 6.0, 7.0, True, False),
        (1, 4, 4, 6.0, 8.0, True, True),
        (0, 5, 5, 8.0, 9.0, True, False),
        (1, 5, 5, 8.0, 10.0, True, True),
    ]
    timeline = run(stages, [1.0, 2.0], num_commits=6)
    assert_rows(timeline, rows)
    np.testing.assert_array_equal(timeline.weight[timeline.version >= 4], [0.0] + [0.5] * 4)


def test_from_queues_to_immediate_by_hand():
    # All that was in flight is thrown away, and everyone starts afresh.
    stages = [(3.0, protocols.asynchronous("shuffled", 6)), (None, protocols.asynchronous())]
    timeline = run(stages, [1.0, 1.5], num_commits=12)
    switch = timeline.commit_times[timeline.commit_times >= 3.0][0]
    after = timeline.time > switch
    assert timeline.start_time[after].min() == switch
    np.testing.assert_array_equal(timeline.read_version[after][:2], np.count_nonzero(~after))
    aborted = timeline.lost.aborted
    assert np.count_nonzero(aborted) == 5
    np.testing.assert_array_equal(timeline.lost.stop_time[aborted], switch)
    # Worker 1, who arrived last, had just taken up the next of its queue.
    np.testing.assert_array_equal(timeline.lost.start_time[aborted], [3.0, 3.0, 2.0, 3.0, 3.0])
    np.testing.assert_array_equal(timeline.phases.begin[after], timeline.start_time[after])


def test_to_queues_by_hand():
    # Worker 1's job is one of the two in flight; worker 0 is given the other, or worker 1 is.
    stages = [(1.0, protocols.asynchronous()), (None, protocols.asynchronous("shuffled", 2))]
    timeline = run(stages, [1.0, 1.5], num_commits=30)
    np.testing.assert_array_equal(timeline.time[:2], [1.0, 1.5])
    np.testing.assert_array_equal(timeline.staleness[3:] <= 3, True)
    assert timeline.staleness[3:].mean() == pytest.approx(1.0, abs=0.1)
    assert np.ptp(np.bincount(timeline.worker)) <= 3


def test_held_arrivals_arrive_at_the_switch():
    stages = [(2.0, protocols.round_robin()), (None, protocols.asynchronous())]
    timeline = run(stages, [3.0, 1.0, 2.0], num_commits=7)
    rows = [
        (0, 0, 0, 0.0, 3.0, True, True),
        (1, 0, 1, 0.0, 3.0, True, True),  # held since 1 and since 2
        (2, 0, 2, 0.0, 3.0, True, True),
        (1, 2, 3, 3.0, 4.0, True, True),
        (2, 3, 4, 3.0, 5.0, True, True),
        (1, 4, 5, 4.0, 5.0, True, True),
        (0, 1, 6, 3.0, 6.0, True, True),
    ]
    assert_rows(timeline, rows)
    np.testing.assert_array_equal(timeline.phases.sent[:3], [3.0, 1.0, 2.0])


def test_tokens_start_from_the_version_of_the_switch():
    stages = [(4.0, protocols.asynchronous()), (None, protocols.token_control(2, tolerance=0))]
    timeline = run(stages, [1.0, 4.0], num_commits=9)
    assert_rows(
        timeline,
        [
            (0, 0, 0, 0.0, 1.0, True, True),
            (0, 1, 1, 1.0, 2.0, True, True),
            (0, 2, 2, 2.0, 3.0, True, True),
            (1, 0, 3, 0.0, 4.0, True, True),
            (0, 3, 4, 3.0, 4.0, False, False),  # its token is the version it read
            (0, 4, 4, 4.0, 5.0, True, True),
            (0, 5, 5, 5.0, 6.0, True, False),
            (0, 5, 5, 6.0, 7.0, True, True),
            (1, 4, 6, 4.0, 8.0, False, False),
            (0, 6, 6, 7.0, 8.0, True, True),
            (0, 7, 7, 8.0, 9.0, True, False),
            (0, 7, 7, 9.0, 10.0, True, True),
            (0, 8, 8, 10.0, 11.0, True, False),
            (1, 6, 8, 8.0, 12.0, True, True),  # too late, but it completes the batch
        ],
    )
    np.testing.assert_array_equal(timeline.token, [0, 1, 2, 0, 3, 5, 5, 6, 4, 6, 7, 8, 8, 7])
    late = [4, 8, 13]
    np.testing.assert_array_equal(np.flatnonzero(timeline.weight == 0), late)
    np.testing.assert_array_equal(np.delete(timeline.weight, late), [1.0] * 4 + [0.5] * 7)


def test_to_stops_what_is_too_stale_goes():
    stages = [(3.0, protocols.asynchronous()), (None, protocols.ringmaster(1, stop=True))]
    timeline = run(stages, [1.0, 10.0], num_commits=20)
    aborted = timeline.lost.aborted
    # The first arrival of the new stage stops the job of version 0; then every other one does.
    np.testing.assert_array_equal(timeline.lost.stop_time[aborted], np.arange(4.0, 21.0, 2.0))
    np.testing.assert_array_equal(timeline.worker, 0)


@pytest.mark.parametrize(
    "stages",
    [
        [(2.0, protocols.round_robin()), (None, protocols.ringmaster(0, stop=True))],
        [
            (2.0, protocols.round_robin()),
            (2.5, protocols.asynchronous()),
            (None, protocols.asynchronous()),
        ],
    ],
    ids=["stopped", "switched again"],
)
def test_a_held_arrival_arrives_once(stages):
    timeline = run(stages, [3.0, 1.0, 1.0, 1.0], num_commits=20)
    assert (timeline.time - timeline.start_time >= 1.0).all()


@pytest.mark.parametrize("second", STAGES)
@pytest.mark.parametrize("first", STAGES)
def test_any_stage_after_any_other(first, second):
    model = runtimes.gamma(cv=0.5, machine_cv=0.6)
    protocol = protocols.switching(
        [(8.0, STAGES[first]), (16.0, STAGES[second]), (None, STAGES[first])]
    )
    timeline = simulate_timeline(protocol, model, 4, num_commits=120)
    timeline.verify()
    plain = simulate_timeline(STAGES[first], model, 4, num_commits=120)
    before = slice(np.count_nonzero(timeline.time < 8.0))
    for name in (*COLUMNS, "weight"):  # nothing of the future is known
        np.testing.assert_array_equal(
            getattr(timeline, name)[before], getattr(plain, name)[before], err_msg=name
        )
    # No commit gathers arrivals of two stages.
    ends = np.flatnonzero(timeline.commit)
    switches = [ends[np.searchsorted(timeline.commit_times, until)] for until in (8.0, 16.0)]
    stage = np.searchsorted(switches, np.arange(timeline.num_arrivals))
    fresh = {"synchronous", "backup", "rennala"}
    for number, name in enumerate((first, second, first)):
        rows = (stage == number) & timeline.accepted
        assert rows.any()
        if name in fresh:
            np.testing.assert_array_equal(timeline.staleness[rows], 0)
        if "token" not in name:
            versions, inverse = np.unique(timeline.version[rows], return_inverse=True)
            weights = np.bincount(inverse, timeline.weight[rows])
            np.testing.assert_allclose(weights, 1.0, err_msg=f"{name} {versions}")


@given(
    times=st.lists(st.integers(1, 4).map(float), min_size=4, max_size=4),
    names=st.lists(st.sampled_from(sorted(set(STAGES) - {"ringmaster_stop"})), min_size=2),
    lengths=st.lists(st.floats(2.0, 9.0), min_size=1),
)
def test_any_stages_in_a_row(times, names, lengths):
    lengths = (lengths * len(names))[: len(names) - 1]
    until = [*(12.0 + np.cumsum(lengths)).tolist(), None]
    stages = [(end, STAGES[name]) for end, name in zip(until, names, strict=True)]
    timeline = run(stages, times, num_commits=100)
    assert timeline.num_commits == 100
    assert (timeline.idle_time() > -1e-9).all()
    assert timeline.throughput() > 0.2


def test_a_single_stage_is_its_protocol():
    for name, protocol in STAGES.items():
        one = simulate_timeline(protocol, runtimes.gamma(cv=0.5), 4, num_commits=30)
        wrapped = protocols.switching([(None, protocol)])
        other = simulate_timeline(wrapped, runtimes.gamma(cv=0.5), 4, num_commits=30)
        for column in (*COLUMNS, "weight"):
            np.testing.assert_array_equal(
                getattr(one, column), getattr(other, column), err_msg=f"{name} {column}"
            )


def test_workers_that_come_and_go_between_stages():
    away = {0: [(0.0, 3.5), (6.25, np.inf)], 2: [(2.5, 9.0), (9.5, np.inf)]}
    model = runtimes.deterministic([1.0, 1.5, 2.0]).with_availability(away)
    for first, second in itertools.permutations(["synchronous", "asynchronous", "round_robin"], 2):
        protocol = protocols.switching(
            [(3.0, STAGES[first]), (8.0, STAGES[second]), (None, STAGES[first])]
        )
        timeline = simulate_timeline(protocol, model, 3, num_commits=40)
        timeline.verify()
        assert set(timeline.worker[-6:]) == {0, 1, 2}
        assert not ((timeline.worker == 0) & (timeline.time > 3.5) & (timeline.time < 7.25)).any()


def test_who_was_in_flight_counts_as_handed_out():
    stages = [(5.0, protocols.asynchronous()), (None, protocols.token_control(8, tolerance=0))]
    timeline = run(stages, [1.0] * 8, max_time=50.0)
    assert timeline.accepted[timeline.time > 6.0].all()
    assert timeline.data_staleness[timeline.time > 6.0].max() == 0


def test_stages_draw_for_themselves():
    uniform = protocols.asynchronous("uniform", concurrency=1)
    timeline = run([(100.0, uniform), (None, uniform)], [1.0] * 9, num_commits=200)
    first, second = timeline.worker[:100], timeline.worker[100:]
    assert not np.array_equal(first[:99], second[:99])
    assert np.mean(first == second) < 0.25
