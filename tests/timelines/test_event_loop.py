"""The event loop: the same rows as renewals, jobs in their phases, a server, stalls."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from async_optax import protocols, runtimes
from async_optax.timelines import Reason, simulate_timeline
from async_optax.timelines.event_loop import EventLoop
from async_optax.timelines.renewals import renewal_timeline
from async_optax.timelines.runtimes.streams import COMPUTE, DOWNLOAD, SERVER, UPLOAD

COLUMNS = ("worker", "read_version", "version", "start_time", "time", "weight")
COLUMNS += ("accepted", "commit")
LOST = ("worker", "start_time", "stop_time", "reason")

COINS = runtimes.RuntimeModel(  # jobs of one or two: ties in every order
    "coins", np.ones_like, lambda draws, worker: np.where(draws < 0.5, 1.0, 2.0)
)
LAWS = {
    "equal": runtimes.deterministic(),
    "tenths": runtimes.deterministic(0.1),
    "two_speed": runtimes.two_speed(3.0),
    "roots": runtimes.power_law(0.5),
    "linear": runtimes.power_law(1.0, fast_time=0.3),
    "coins": COINS,
    "gamma": runtimes.gamma(cv=0.5, machine_cv=0.6),
    "exponential": runtimes.exponential().with_machines(runtimes.lognormal()),
    "pareto": runtimes.pareto(0.7),
    "half_normal": runtimes.half_normal(),
}
UNCOUPLED = {
    "asynchronous": lambda n: protocols.asynchronous(),
    "buffered": lambda n: protocols.buffered(3),
    "softsync": lambda n: protocols.softsync(min(n, 2)),
    "token_control": lambda n: protocols.token_control(2, tolerance=1),
}


def event_loop(protocol, model, num_workers, num_commits=None, max_time=np.inf, seed=0):
    policy = protocol.policy(num_workers, seed)
    return EventLoop(protocol.name, policy, model, num_workers, seed).run(num_commits, max_time)


def renewals(protocol, model, num_workers, num_commits=None, max_time=np.inf, seed=0):
    policy = protocol.policy(num_workers, seed)
    return renewal_timeline(policy, model, num_workers, num_commits, max_time, seed)


def assert_same_run(one, other):
    """To the bit, and in dtypes."""
    names = COLUMNS if one.token is None else (*COLUMNS, "token")
    pairs = [(name, getattr(one, name), getattr(other, name)) for name in names]
    pairs += [(name, getattr(one.lost, name), getattr(other.lost, name)) for name in LOST]
    for name, column, expected in pairs:
        np.testing.assert_array_equal(column, expected, err_msg=name)
        assert column.dtype == expected.dtype, name
    assert one.end_time == other.end_time
    assert (one.phases, one.absences) == (other.phases, other.absences) == (None, None)


any_end = st.builds(dict, num_commits=st.integers(1, 150)) | st.builds(
    dict, max_time=st.sampled_from([2.0, 6.0, 11.7, 40.0])
)


@pytest.mark.parametrize("protocol", UNCOUPLED)
@pytest.mark.parametrize("law", LAWS)
@settings(max_examples=12)
@given(num_workers=st.integers(1, 9), end=any_end, seed=st.integers(0, 9))
def test_renewals_are_the_event_loop_to_the_bit(protocol, law, num_workers, end, seed):
    protocol = UNCOUPLED[protocol](num_workers)
    fast = renewals(protocol, LAWS[law], num_workers, **end, seed=seed)
    if fast is None:  # ties that take more than one look, or nothing arrives
        assert law == "coins" or "max_time" in end
    else:
        assert_same_run(fast, event_loop(protocol, LAWS[law], num_workers, **end, seed=seed))


@given(
    protocol=st.sampled_from(sorted(UNCOUPLED)),
    times=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    unit=st.sampled_from([1.0, 0.1, 1 / 3]),
    end=any_end,
)
def test_renewals_are_the_event_loop_when_ties_abound(protocol, times, unit, end):
    protocol = UNCOUPLED[protocol](len(times))
    model = runtimes.deterministic([unit * time for time in times])
    fast = renewals(protocol, model, len(times), **end)
    if fast is not None:
        assert_same_run(fast, event_loop(protocol, model, len(times), **end))


def test_many_renewals_are_the_event_loop():
    # More than one round of drawing, and more than one block of rows.
    law = runtimes.pareto(0.9)
    for end in ({"num_commits": 70_000}, {"max_time": 20_000.0}):
        fast = renewals(protocols.asynchronous(), law, 17, **end)
        assert fast.num_arrivals > 20_000
        assert_same_run(fast, event_loop(protocols.asynchronous(), law, 17, **end))


def test_the_event_loop_decides_where_renewals_cannot():
    # Two jobs that start and end together, the one of the later worker handed out first.
    declined = 0
    ends = [{"num_commits": number} for number in (1, 7, 8, 12, 14)] + [{"max_time": 6.0}]
    for seed, end in itertools.product(range(7), ends):
        for make in UNCOUPLED.values():
            protocol = make(3)
            expected = event_loop(protocol, COINS, 3, **end, seed=seed)
            assert_same_run(simulate_timeline(protocol, COINS, 3, **end, seed=seed), expected)
            declined += renewals(protocol, COINS, 3, **end, seed=seed) is None
    assert 10 < declined < 7 * len(ends) * len(UNCOUPLED)


def test_times_of_any_size_are_drawn_in_steps():
    # Nine of ten jobs take no time to speak of: what the first ones tell of the rest is wrong.
    law = runtimes.RuntimeModel(
        "mixed", np.ones_like, lambda draws, worker: np.where(draws < 0.9, 1e-9 * draws, 1 + draws)
    )
    for end in ({"max_time": 100.0}, {"num_commits": 3000}):
        for seed in range(5):
            fast = renewals(protocols.asynchronous(), law, 4, **end, seed=seed)
            assert fast.num_arrivals < 10_000
            assert fast.end_time < 300
    for protocol in (protocols.asynchronous(), protocols.synchronous()):
        with pytest.raises(ValueError, match=r"pareto\(alpha=0.001.* drawn a time that is not fin"):
            simulate_timeline(protocol, runtimes.pareto(0.001), 4, num_commits=500)


PROTOCOLS = {
    "synchronous": protocols.synchronous(),
    "backup": protocols.synchronous(backup=1),
    "asynchronous": protocols.asynchronous(),
    "uniform": protocols.asynchronous("uniform", 6),
    "shuffled": protocols.asynchronous("shuffled"),
    "buffered": protocols.buffered(2),
    "waiting": protocols.buffered(2, wait=True),
    "bounded_staleness": protocols.bounded_staleness(1),
    "rennala": protocols.rennala(3),
    "ringmaster": protocols.ringmaster(1, stop=True),
    "mindflayer": protocols.mindflayer(1.2),
    "token_control": protocols.token_control(3, tolerance=1),
    "round_robin": protocols.round_robin(),
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_kth_job_of_a_worker_computes_its_kth_time(name):
    model = LAWS["exponential"]
    timeline = event_loop(PROTOCOLS[name], model, 4, num_commits=60, seed=3)
    lost = timeline.lost
    drawn = model.job_times(4, seed=3)
    num_cut_short = 0
    for worker in range(4):
        mine, gone = timeline.worker == worker, lost.worker == worker
        mine &= timeline.accepted | ~timeline.commit  # those that are jobs
        gone &= lost.reason != Reason.UNFINISHED
        begin = np.concatenate([timeline.begin_time[mine], lost.start_time[gone]])
        end = np.concatenate([timeline.sent_time[mine], lost.stop_time[gone]])
        arrives = np.repeat([True, False], [mine.sum(), gone.sum()])
        order = np.lexsort((end, begin))  # some are aborted as soon as they have begun
        times = np.array(list(itertools.islice(drawn[worker], len(order))))
        lasts, whole = (end - begin)[order], arrives[order]
        np.testing.assert_allclose(lasts[whole], times[whole], atol=1e-12)
        assert (lasts[~whole] <= times[~whole]).all()  # an aborted job has used up its time
        num_cut_short += np.count_nonzero(~whole)
    assert (num_cut_short > 0) == (name in ("rennala", "ringmaster", "mindflayer"))


@pytest.mark.parametrize("name", ["asynchronous", "uniform", "backup", "bounded_staleness"])
def test_phases_last_as_long_as_drawn(name):
    model = runtimes.gamma(cv=0.5).with_transfers(
        download=runtimes.exponential(0.3), upload=runtimes.two_speed(3.0, fast_time=0.1)
    )
    timeline = simulate_timeline(PROTOCOLS[name], model, 4, num_commits=80, seed=2)
    timeline.verify()
    phases = timeline.phases
    np.testing.assert_array_equal(phases.sent, timeline.time)
    if name != "uniform":
        np.testing.assert_array_equal(phases.begin, timeline.start_time)
    parts = [(model.download, DOWNLOAD), (model, COMPUTE), (model.upload, UPLOAD)]
    moments = [phases.begin, phases.compute, phases.upload, phases.sent]
    for worker in range(4):
        mine = timeline.worker == worker
        for (law, part), start, end in zip(parts, moments, moments[1:], strict=False):
            times = law.part_times(4, 2, part)[worker]
            drawn = np.array(list(itertools.islice(times, mine.sum())))
            np.testing.assert_array_equal(start[mine] + drawn, end[mine])
    # Parts have streams of their own: the computations are those of the model without transfers.
    assert not np.array_equal(
        simulate_timeline(PROTOCOLS[name], runtimes.gamma(cv=0.5), 4, num_commits=80, seed=2).time,
        timeline.time,
    )


def test_what_a_job_reads_is_current_when_its_download_starts():
    model = runtimes.deterministic([1.0, 1.0]).with_transfers(
        download=runtimes.deterministic([4.0, 0.5]), upload=runtimes.deterministic(0.5)
    )
    timeline = simulate_timeline(protocols.asynchronous(), model, 2, num_commits=4)
    np.testing.assert_array_equal(timeline.time, [2.0, 4.0, 5.5, 6.0])
    np.testing.assert_array_equal(timeline.worker, [1, 1, 0, 1])
    np.testing.assert_array_equal(timeline.staleness, [0, 0, 2, 1])
    np.testing.assert_allclose(timeline.utilisation(), 1)


@given(
    service=st.sampled_from(["deterministic", "exponential"]),
    mean=st.sampled_from([0.05, 0.3, 1.0]),
    num_workers=st.integers(1, 8),
    seed=st.integers(0, 5),
)
def test_the_server_handles_one_after_another(service, mean, num_workers, seed):
    law = getattr(runtimes, service)(mean)
    model = runtimes.gamma(cv=0.5).with_server(law)
    timeline = simulate_timeline(
        protocols.asynchronous(), model, num_workers, num_commits=50, seed=seed
    )
    timeline.verify()
    sent, time = timeline.phases.sent, timeline.time
    assert (np.diff(sent) >= 0).all()  # first come, first served
    services = itertools.islice(law.part_times(1, seed, SERVER)[0], 50)
    free = 0.0
    for row, duration in enumerate(services):
        free = max(sent[row], free) + duration
        assert time[row] == free
    # A worker waits from when it has sent to when it is handled.
    busy = np.bincount(timeline.worker, sent - timeline.phases.begin, minlength=num_workers)
    np.testing.assert_array_less(busy - 1e-9, timeline.busy_time())
    assert (timeline.busy_time() <= timeline.end_time + 1e-9).all()


def test_a_busy_server_is_the_limit():
    def throughput(num_workers):
        model = runtimes.exponential().with_server(runtimes.deterministic(0.1))
        timeline = simulate_timeline(protocols.asynchronous(), model, num_workers, max_time=500.0)
        return timeline.throughput()

    assert throughput(1) == pytest.approx(1 / 1.1, rel=0.1)
    assert throughput(5) == pytest.approx(5 / 1.1, rel=0.1)
    assert throughput(40) == pytest.approx(10, rel=0.01)
    assert throughput(80) == pytest.approx(10, rel=0.01)


def test_a_server_makes_a_round_last_longer():
    model = runtimes.deterministic(2.0).with_server(runtimes.deterministic(0.5))
    timeline = simulate_timeline(protocols.synchronous(), model, 4, num_commits=3)
    np.testing.assert_array_equal(timeline.commit_times, [4.0, 8.0, 12.0])
    np.testing.assert_array_equal(timeline.time[:4], [2.5, 3.0, 3.5, 4.0])
    np.testing.assert_allclose(timeline.utilisation(), 0.5)


def test_an_aborted_upload_does_not_arrive():
    # Worker 1's upload, sent at 2, waits for the server until 2.5: the commit at 2.25 stops it.
    model = runtimes.deterministic([1.75, 2.0]).with_server(runtimes.deterministic([0.5]))
    timeline = simulate_timeline(protocols.rennala(1), model, 2, num_commits=2)
    timeline.verify()
    np.testing.assert_array_equal(timeline.worker, [0, 0])
    np.testing.assert_array_equal(timeline.time, [2.25, 4.5])
    stopped = timeline.lost.aborted
    np.testing.assert_array_equal(timeline.lost.worker[stopped], [1, 1])
    np.testing.assert_array_equal(timeline.lost.stop_time[stopped], [2.0, 4.25])


STALLS = {
    "limits nobody meets": (protocols.mindflayer(0.5), runtimes.deterministic()),
    "failures before any job ends": (
        protocols.asynchronous(),
        runtimes.deterministic(10.0).with_failures(runtimes.uniform(1, 2), runtimes.exponential()),
    ),
    "failures in every round": (
        protocols.synchronous(),
        runtimes.deterministic(10.0).with_failures(runtimes.uniform(1, 2), runtimes.exponential()),
    ),
    "turns that never come": (
        protocols.round_robin(),
        runtimes.deterministic(10.0).with_failures(runtimes.uniform(1, 2), runtimes.exponential()),
    ),
    "too few survivors": (
        protocols.buffered(3, wait=True),
        runtimes.deterministic().with_availability({0: [(0.0, 3.5)]}),
    ),
}


@pytest.mark.parametrize("end", [{"num_commits": 10}, {"max_time": 1e6}], ids=str)
@pytest.mark.parametrize("name", STALLS)
def test_a_run_that_stalls_raises(name, end):
    protocol, model = STALLS[name]
    with pytest.raises(ValueError, match=r" stalls at time [\d.]+ after \d+( of 10)? commits: "):
        simulate_timeline(protocol, model, 3, **end)
