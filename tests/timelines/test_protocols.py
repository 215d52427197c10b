"""Protocols by hand on two or three workers, and their closed-form facts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_optax import protocols, runtimes
from async_optax.timelines import simulate_timeline

COLUMNS = ("worker", "read_version", "version", "start_time", "time", "accepted", "commit")
LAWS = {
    "equal": runtimes.deterministic(),
    "two_speed": runtimes.two_speed(8.0),
    "gamma": runtimes.gamma(cv=0.5, machine_cv=0.6),
    "exponential": runtimes.exponential(),
    "pareto": runtimes.pareto(1.2),
}
any_law = st.sampled_from(sorted(LAWS)).map(LAWS.get)


def run(protocol, times, num_workers=None, **end):
    if isinstance(times, list):
        num_workers, times = len(times), runtimes.deterministic(times)
    end = end or {"num_commits": 30}
    timeline = simulate_timeline(protocol, times, num_workers, **end)
    timeline.verify()
    return timeline


def assert_rows(timeline, rows):
    for name, expected in zip(COLUMNS, zip(*rows, strict=True), strict=True):
        np.testing.assert_array_equal(getattr(timeline, name), expected, err_msg=name)


def assert_same_rows(one, other, names=(*COLUMNS, "weight")):
    for name in names:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


# Each row: worker, read version, version, start, arrival, accepted, commit.
BY_HAND = {
    "synchronous": (
        protocols.synchronous(),
        [1.0, 2.0],
        [
            (0, 0, 0, 0.0, 1.0, True, False),
            (1, 0, 0, 0.0, 2.0, True, True),
            (0, 1, 1, 2.0, 3.0, True, False),
            (1, 1, 1, 2.0, 4.0, True, True),
        ],
    ),
    "backup": (  # worker 2 arrives late, once, and starts on the version of then
        protocols.synchronous(backup=1),
        [1.0, 1.5, 2.0],
        [
            (0, 0, 0, 0.0, 1.0, True, False),
            (1, 0, 0, 0.0, 1.5, True, True),
            (2, 0, 1, 0.0, 2.0, False, False),
            (0, 1, 1, 1.5, 2.5, True, False),
            (1, 1, 1, 1.5, 3.0, True, True),
        ],
    ),
    "bounded_staleness": (
        protocols.bounded_staleness(1),
        [1.0, 3.5],
        [
            (0, 0, 0, 0.0, 1.0, True, True),
            (0, 1, 1, 1.0, 2.0, True, True),  # two ahead: waits for worker 1
            (1, 0, 2, 0.0, 3.5, True, True),
            (0, 3, 3, 3.5, 4.5, True, True),  # two ahead again
            (1, 3, 4, 3.5, 7.0, True, True),
        ],
    ),
    "rennala": (
        protocols.rennala(2),
        [1.0, 1.5],
        [
            (0, 0, 0, 0.0, 1.0, True, False),
            (1, 0, 0, 0.0, 1.5, True, True),  # worker 0 is thrown back
            (0, 1, 1, 1.5, 2.5, True, False),
            (1, 1, 1, 1.5, 3.0, True, True),
        ],
    ),
    "rennala without stops": (
        protocols.rennala(2, stop=False),
        [1.0, 1.5],
        [
            (0, 0, 0, 0.0, 1.0, True, False),
            (1, 0, 0, 0.0, 1.5, True, True),
            (0, 0, 1, 1.0, 2.0, False, False),
            (1, 1, 1, 1.5, 3.0, True, False),
            (0, 1, 1, 2.0, 3.0, True, True),
        ],
    ),
    "ringmaster": (
        protocols.ringmaster(0),
        [1.0, 1.5],
        [
            (0, 0, 0, 0.0, 1.0, True, True),
            (1, 0, 1, 0.0, 1.5, False, False),
            (0, 1, 1, 1.0, 2.0, True, True),
            (1, 1, 2, 1.5, 3.0, False, False),  # a tie: started first, but too stale
            (0, 2, 2, 2.0, 3.0, True, True),
        ],
    ),
    "ringmaster with stops": (
        protocols.ringmaster(1, stop=True),
        [1.0, 1.75],
        [
            (0, 0, 0, 0.0, 1.0, True, True),
            (1, 0, 1, 0.0, 1.75, True, True),
            (0, 1, 2, 1.0, 2.0, True, True),
            (0, 3, 3, 2.0, 3.0, True, True),  # worker 1, on version 2, is stopped
            (0, 4, 4, 3.0, 4.0, True, True),
            (1, 4, 5, 3.0, 4.75, True, True),
        ],
    ),
    "mindflayer": (  # worker 1 never meets its limit, which ends a batch at 4
        protocols.mindflayer([2.0, 2.0], batch_size=3),
        [1.5, 5.0],
        [
            (0, 0, 0, 0.0, 1.5, True, False),
            (0, 0, 0, 1.5, 3.0, True, True),
            (0, 1, 1, 3.0, 4.5, True, False),
            (0, 1, 1, 4.5, 6.0, True, True),
        ],
    ),
    "mindflayer, the last trial fails": (
        protocols.mindflayer(2.0, batch_size=2),
        [1.5, 5.0],
        [
            (0, 0, 0, 0.0, 1.5, True, False),
            (1, 0, 0, 2.0, 2.0, False, True),
            (0, 1, 1, 2.0, 3.5, True, False),
            (1, 1, 1, 4.0, 4.0, False, True),
        ],
    ),
    "token_control": (  # tokens 0 0 1 1 2 2 ...; worker 2 brings token 1 at version 2
        protocols.token_control(2, tolerance=0),
        [1.0, 1.25, 2.5],
        [
            (0, 0, 0, 0.0, 1.0, True, False),
            (1, 0, 0, 0.0, 1.25, True, True),
            (0, 0, 1, 1.0, 2.0, True, False),
            (2, 0, 1, 0.0, 2.5, True, True),
            (1, 1, 2, 1.25, 2.5, True, False),
            (0, 1, 2, 2.0, 3.0, True, True),
        ],
    ),
    "round_robin": (
        protocols.round_robin(),
        [2.0, 1.0, 1.0],
        [
            (0, 0, 0, 0.0, 2.0, True, True),
            (1, 0, 1, 0.0, 2.0, True, True),
            (2, 0, 2, 0.0, 2.0, True, True),
            (0, 1, 3, 2.0, 4.0, True, True),
        ],
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name):
    protocol, times, rows = BY_HAND[name]
    timeline = run(protocol, times, num_commits=sum(row[-1] for row in rows))
    assert_rows(timeline, rows)


def test_by_hand_what_is_lost():
    timeline = run(protocols.rennala(2), [1.0, 1.5], num_commits=2)
    lost, aborted = timeline.lost, timeline.lost.aborted
    np.testing.assert_array_equal(lost.worker[aborted], [0, 0])
    np.testing.assert_array_equal(lost.start_time[aborted], [1.0, 2.5])
    np.testing.assert_array_equal(lost.stop_time[aborted], [1.5, 3.0])
    np.testing.assert_allclose(timeline.aborted_time(), [1.0, 0.0])
    np.testing.assert_allclose(timeline.idle_time(), 0.0)


@given(law=any_law, num_workers=st.integers(1, 8), bound=st.integers(0, 5))
def test_clocks_spread_by_at_most_the_bound_and_one(law, num_workers, bound):
    timeline = run(protocols.bounded_staleness(bound), law, num_workers, num_commits=60)
    arrived = timeline.worker[:, None] == np.arange(num_workers)
    clocks = np.cumsum(arrived, axis=0)
    assert np.ptp(clocks, axis=1).max() <= bound + 1
    # Nobody waits who is within the bound: the spread is reached if speeds are unequal.
    if law is LAWS["two_speed"] and num_workers > 1 and bound < 5:
        assert np.ptp(clocks, axis=1).max() == bound + 1


@given(
    law=any_law, num_workers=st.integers(1, 8), max_staleness=st.integers(0, 9), stop=st.booleans()
)
def test_nothing_staler_than_the_threshold_is_used(law, num_workers, max_staleness, stop):
    timeline = run(protocols.ringmaster(max_staleness, stop), law, num_workers, num_commits=60)
    np.testing.assert_array_equal(timeline.accepted, timeline.staleness <= max_staleness)
    np.testing.assert_array_equal(timeline.commit, timeline.accepted)
    if stop:
        assert timeline.accepted.all()
    if max_staleness >= 60:
        assert_same_rows(timeline, run(protocols.asynchronous(), law, num_workers, num_commits=60))


@given(
    law=any_law, num_workers=st.integers(1, 8), batch_size=st.integers(1, 12), stop=st.booleans()
)
def test_rennala_is_never_stale(law, num_workers, batch_size, stop):
    timeline = run(protocols.rennala(batch_size, stop), law, num_workers, num_commits=20)
    np.testing.assert_array_equal(timeline.staleness[timeline.accepted], 0)
    assert timeline.num_arrivals >= 20 * batch_size
    assert np.count_nonzero(timeline.accepted) == 20 * batch_size
    if stop:
        assert timeline.accepted.all()


@pytest.mark.parametrize("num_workers", [1, 3, 8])
def test_protocols_that_are_synchronous_at_equal_speeds(num_workers):
    equal = runtimes.deterministic(1.5)
    expected = run(protocols.synchronous(), equal, num_workers)
    for protocol in (
        protocols.rennala(num_workers),
        protocols.buffered(num_workers, wait=True),
        protocols.mindflayer(2.0),
    ):
        assert_same_rows(run(protocol, equal, num_workers), expected)
    # Clocks in step: the same jobs at the same times, each a commit of its own.
    steps = run(protocols.bounded_staleness(0), equal, num_workers, num_commits=30 * num_workers)
    assert_same_rows(steps, expected, ["worker", "start_time", "time", "accepted"])
    np.testing.assert_array_equal(steps.staleness, np.tile(np.arange(num_workers), 30))
    # The last of the batch commits, so that it alone starts on the new version.
    tokens = run(protocols.token_control(num_workers, tolerance=0), equal, num_workers)
    assert_same_rows(tokens, expected, ["worker", "version", "time", "weight", "commit"])
    assert tokens.accepted.all()
    np.testing.assert_array_equal(tokens.data_staleness, 0)
    np.testing.assert_array_equal(tokens.token, tokens.version)
    np.testing.assert_array_equal(
        tokens.staleness[num_workers:], np.tile(np.arange(num_workers) < num_workers - 1, 29)
    )


@given(law=any_law, num_workers=st.integers(1, 8))
def test_protocols_that_are_asynchronous(law, num_workers):
    expected = run(protocols.asynchronous(), law, num_workers)
    for protocol in (
        protocols.buffered(1, wait=False),
        protocols.softsync(num_workers),
        protocols.bounded_staleness(30),
        protocols.ringmaster(30),
        protocols.token_control(1, tolerance=30),
    ):
        assert_same_rows(run(protocol, law, num_workers), expected)
    gathering = run(protocols.softsync(1), law, num_workers)
    assert_same_rows(gathering, run(protocols.buffered(num_workers), law, num_workers))


@given(num_workers=st.integers(1, 8), global_batch=st.integers(1, 9), tolerance=st.integers(0, 3))
def test_tokens_beyond_the_tolerance_have_no_weight(num_workers, global_batch, tolerance):
    protocol = protocols.token_control(global_batch, tolerance)
    timeline = run(protocol, LAWS["gamma"], num_workers, num_commits=40)
    within = timeline.data_staleness <= tolerance
    np.testing.assert_array_equal(timeline.weight, np.where(within, 1 / global_batch, 0.0))
    np.testing.assert_array_equal(timeline.accepted, within | timeline.commit)
    np.testing.assert_array_equal(np.flatnonzero(timeline.commit) % global_batch, global_batch - 1)
    assert (timeline.staleness >= 0).all()


@pytest.mark.parametrize("num_workers", [2, 5])
def test_round_robin_is_always_as_stale(num_workers):
    timeline = run(protocols.round_robin(), LAWS["gamma"], num_workers, num_commits=50)
    np.testing.assert_array_equal(timeline.worker, np.arange(50) % num_workers)
    np.testing.assert_array_equal(timeline.staleness[num_workers:], num_workers - 1)
    assert timeline.waiting().max() > 0.05


def test_throughput_is_the_sum_of_rates():
    means = [1.0, 2.0, 4.0, 5.0]
    law = runtimes.exponential().with_machines(runtimes.deterministic(means))
    timeline = run(protocols.asynchronous(), law, 4, max_time=20_000.0)
    assert timeline.throughput() == pytest.approx(np.sum(1 / np.array(means)), rel=0.02)


@pytest.mark.parametrize("backup", [0, 2, 5])
def test_rounds_last_as_long_as_the_order_statistic(backup):
    num_workers = 6
    timeline = run(protocols.synchronous(backup), LAWS["exponential"], 6, num_commits=8000)

    def mean_time(num_waiting, num_late):
        """Until the round is full; everyone who computes is done at rate one."""
        computing = num_workers - num_waiting
        if computing == backup:
            return 0.0
        in_time = (computing - num_late) * mean_time(num_waiting + 1, num_late)
        late = num_late * mean_time(num_waiting, num_late - 1) if num_late else 0.0
        return (1 + in_time + late) / computing

    expected = mean_time(0, backup)
    if not backup:  # the largest of n exponential times
        assert expected == pytest.approx(sum(1 / k for k in range(1, num_workers + 1)))
    assert timeline.end_time / timeline.num_commits == pytest.approx(expected, rel=0.03)
    rate = (num_workers - backup) / expected
    assert timeline.throughput() == pytest.approx(rate, rel=0.03)


WEIGHTS_ADD_UP = {
    "synchronous": protocols.synchronous(),
    "backup": protocols.synchronous(backup=1),
    "asynchronous": protocols.asynchronous(),
    "shuffled": protocols.asynchronous("shuffled", 3),
    "buffered": protocols.buffered(3),
    "waiting": protocols.buffered(3, wait=True),
    "softsync": protocols.softsync(2),
    "bounded_staleness": protocols.bounded_staleness(1),
    "rennala": protocols.rennala(3),
    "ringmaster": protocols.ringmaster(2),
    "token_control": protocols.token_control(3, tolerance=99),
    "round_robin": protocols.round_robin(),
}


@pytest.mark.parametrize("name", WEIGHTS_ADD_UP)
def test_the_weights_of_a_commit_add_up_to_one(name):
    timeline = run(WEIGHTS_ADD_UP[name], LAWS["gamma"], 5, num_commits=40)
    weights = np.bincount(timeline.version, timeline.weight * timeline.accepted)
    np.testing.assert_allclose(weights, 1.0)


def test_the_weights_of_trials_are_corrected_for_those_that_fail():
    # A job takes at most 1 with probability 1 - 1/e: the mean weight of a commit is one.
    success = 1 - np.exp(-1)
    protocol = protocols.mindflayer(1.0, batch_size=8, success_probability=success)
    timeline = run(protocol, LAWS["exponential"], 1, num_commits=3000)
    weights = np.bincount(timeline.version, timeline.weight * timeline.accepted)
    assert weights.mean() == pytest.approx(1.0, abs=0.02)


def test_a_job_just_at_its_time_limit_is_in_time():
    for time in (0.1, 1 / 3):
        timeline = run(
            protocols.mindflayer(time), runtimes.deterministic(time), 1, max_time=30 * time
        )
        assert timeline.num_arrivals >= 29
        assert not timeline.lost.aborted.any()


def test_ringmaster_remembers_no_more_than_is_in_flight():
    policy = protocols.ringmaster(10**9, stop=True).policy(4)
    policy.begin(range(4), {}, 0)
    for arrival in range(10_000):
        policy.on_arrival(arrival % 4, 3, float(arrival))
    assert len(policy._oldest) < 100
