"""Workers that fail, leave, join and return; and what a plan makes of the commits they cause."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import async_optax as ao
from async_optax import protocols, runtimes
from async_optax.engine import compile_timeline
from async_optax.timelines import Reason, simulate_timeline
from tests.engine.problems import quadratic_problem

INF = float("inf")
PROTOCOLS = {
    "synchronous": protocols.synchronous(),
    "backup": protocols.synchronous(backup=2),
    "asynchronous": protocols.asynchronous(),
    "uniform": protocols.asynchronous("uniform", 6),
    "shuffled": protocols.asynchronous("shuffled", 3),
    "buffered": protocols.buffered(3),
    "waiting": protocols.buffered(2, wait=True),
    "softsync": protocols.softsync(2),
    "bounded_staleness": protocols.bounded_staleness(1),
    "rennala": protocols.rennala(3),
    "rennala_all": protocols.rennala(3, stop=False),
    "ringmaster": protocols.ringmaster(2),
    "ringmaster_stop": protocols.ringmaster(1, stop=True),
    "mindflayer": protocols.mindflayer(2.5),
    "token_control": protocols.token_control(3, tolerance=1),
    "round_robin": protocols.round_robin(),
    "switching": protocols.switching(
        [
            (6.0, protocols.synchronous()),
            (15.0, protocols.round_robin()),
            (None, protocols.rennala(2)),
        ]
    ),
}
any_protocol = st.sampled_from(sorted(PROTOCOLS))


def run(protocol, model, num_workers, **end):
    timeline = simulate_timeline(protocol, model, num_workers, **end)
    timeline.verify()
    return timeline


def test_who_fails_loses_only_its_own_job():
    law = runtimes.gamma(cv=0.5)
    plain = run(protocols.asynchronous(), law, 4, max_time=30.0)
    leaving = law.with_availability({2: [(0.0, 10.25), (12.0, 20.0)]})
    timeline = run(protocols.asynchronous(), leaving, 4, max_time=30.0)
    for name in ("worker", "start_time", "time"):
        np.testing.assert_array_equal(
            getattr(timeline, name)[timeline.worker != 2], getattr(plain, name)[plain.worker != 2]
        )
    failed = timeline.lost.reason == Reason.FAILED
    np.testing.assert_array_equal(timeline.lost.worker[failed], [2, 2])
    np.testing.assert_array_equal(timeline.lost.stop_time[failed], [10.25, 20.0])
    mine = timeline.time[timeline.worker == 2]
    assert ((mine <= 10.25) | (mine > 12.0)).all()
    assert mine.max() <= 20.0
    np.testing.assert_allclose(timeline.absent_time(), [0, 0, 11.75, 0])
    np.testing.assert_allclose(timeline.idle_time(), 0, atol=1e-12)


def test_who_delivers_just_when_it_leaves_has_delivered():
    model = runtimes.deterministic([1.0, 2.0]).with_availability({0: [(0.0, 3.0), (3.5, INF)]})
    timeline = run(protocols.asynchronous(), model, 2, num_commits=6)
    np.testing.assert_array_equal(timeline.worker, [0, 1, 0, 0, 1, 0])
    np.testing.assert_array_equal(timeline.time, [1.0, 2.0, 2.0, 3.0, 4.0, 4.5])
    # It had started again, and lost that job at once.
    failed = timeline.lost.reason == Reason.FAILED
    np.testing.assert_array_equal(timeline.lost.start_time[failed], [3.0])


def test_a_round_goes_on_without_who_leaves():
    model = runtimes.deterministic([1.0, 2.0, 4.0]).with_availability({2: [(0.0, 2.5), (6.0, INF)]})
    timeline = run(protocols.synchronous(), model, 3, num_commits=4)
    # Worker 2's leaving is the commit, and no arrival; it returns amid a round and joins the next.
    np.testing.assert_array_equal(timeline.worker, [0, 1, 2, 0, 1, 0, 1, 0, 1, 2])
    np.testing.assert_array_equal(timeline.time, [1, 2, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 10.5])
    assert np.flatnonzero(~timeline.accepted) == [2]
    np.testing.assert_array_equal(np.flatnonzero(timeline.commit), [2, 4, 6, 9])
    weights = [1 / 3, 1 / 3, 0, 1 / 2, 1 / 2, 1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3]
    np.testing.assert_allclose(timeline.weight, weights)

    plan = compile_timeline(timeline)
    np.testing.assert_array_equal(plan.job, np.delete(np.arange(10), 2))
    np.testing.assert_array_equal(np.flatnonzero(plan.commit), [1, 3, 5, 8])
    np.testing.assert_array_equal(plan.time, [1, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 10.5])
    np.testing.assert_array_equal(plan.version, [0, 1, 1, 2, 2, 3, 3, 3, 4])
    np.testing.assert_array_equal(plan.staleness, 0)


def by_hand(timeline, key, learning_rate):
    """Sums of weighted gradients of the quadratic, applied at each commit."""
    _, job_key = jax.random.split(key)
    version, gathered = np.full(3, 4.0), np.zeros(3)
    versions = [version]
    for row in range(timeline.num_arrivals):
        if timeline.accepted[row]:
            batch_key, _, _ = jax.random.split(jax.random.fold_in(job_key, row), 3)
            batch = 1 + np.asarray(jax.random.normal(batch_key, (3,)))
            gradient = versions[timeline.read_version[row]] - batch
            gathered = gathered + timeline.weight[row] * gradient
        if timeline.commit[row]:
            versions.append(versions[-1] - learning_rate * gathered)
            gathered = np.zeros(3)
    return np.array(versions)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("name", "lanes"), [("synchronous", 1), ("backup", 4), ("mindflayer", 4)])
def test_commits_without_an_arrival_are_run_as_by_hand(name, lanes):
    model = runtimes.gamma(cv=0.8, machine_cv=0.5).with_failures(
        runtimes.exponential(8.0), runtimes.exponential(2.0)
    )
    timeline = run(PROTOCOLS[name], model, 5, num_commits=40)
    alone = timeline.commit & ~timeline.accepted
    assert alone.any()
    problem, key = quadratic_problem(), jax.random.key(3)
    result = ao.simulate(problem, ao.optimizers.sgd(0.3), timeline, key=key, lanes=lanes)
    expected = by_hand(timeline, key, 0.3)[-1]
    np.testing.assert_allclose(result.params, expected, rtol=0, atol=1e-12)
    assert len(result.arrivals["loss"]) == np.count_nonzero(timeline.accepted)
    plan = compile_timeline(timeline)
    np.testing.assert_array_equal(plan.time[plan.commit], timeline.commit_times)
    assert (np.diff(plan.time) >= 0).all()


def test_nobody_left_raises():
    for times in ([1.0, 2.0], [1.0, 1.0]):
        gone = {0: [(0.0, 5.5)], 1: [(0.0, 5.5)]}
        model = runtimes.deterministic(times).with_availability(gone)
        for name in ("synchronous", "asynchronous", "round_robin", "uniform", "rennala"):
            for end in ({"num_commits": 40}, {"max_time": 100.0}):
                with pytest.raises(ValueError, match=r"stalls at time .* no worker is left"):
                    simulate_timeline(PROTOCOLS[name], model, 2, **end)
        # Until then all is well.
        assert run(protocols.synchronous(), model, 2, max_time=5.0).num_commits >= 2


@given(name=any_protocol)
def test_one_survivor_goes_on(name):
    gone = {worker: [(0.0, 4.25 + worker)] for worker in (0, 1, 3)}
    model = runtimes.deterministic([1.0, 1.5, 2.0, 1.25]).with_availability(gone)
    if name == "waiting":  # waits for two
        with pytest.raises(ValueError, match="all 1 workers that are there wait"):
            simulate_timeline(PROTOCOLS[name], model, 4, num_commits=60)
        return
    timeline = run(PROTOCOLS[name], model, 4, num_commits=60)
    late = timeline.time > 12.0
    assert late.any()
    np.testing.assert_array_equal(timeline.worker[late], 2)
    assert timeline.staleness[late][5:].max() <= 6
    np.testing.assert_allclose(timeline.present_time()[2], timeline.end_time)


@given(name=any_protocol)
def test_workers_that_join_late_are_made_use_of(name):
    late = {0: [(7.5, INF)], 1: [(20.0, 30.0), (31.0, INF)], 2: [(0.0, 40.0), (40.5, INF)]}
    model = runtimes.gamma(cv=0.3).with_availability(late)
    timeline = run(PROTOCOLS[name], model, 4, max_time=80.0)
    jobs = timeline.accepted | ~timeline.commit
    for worker, ((join, *_), *_) in late.items():
        mine = jobs & (timeline.worker == worker)
        assert timeline.start_time[mine].min() >= join
        assert np.count_nonzero(timeline.start_time[mine] > 41.0) >= 5
    np.testing.assert_allclose(timeline.absent_time(), [7.5, 21.0, 0.5, 0.0])


@given(name=any_protocol, num_workers=st.integers(3, 6), seed=st.integers(0, 20))
def test_every_protocol_stands_failures(name, num_workers, seed):
    law = runtimes.gamma(cv=0.5)
    model = law.with_failures(runtimes.exponential(6.0), runtimes.uniform(0.1, 2.0))
    timeline = run(PROTOCOLS[name], model, num_workers, num_commits=60, seed=seed)
    assert timeline.num_commits == 60
    # Each is there for three quarters of the time or so, and nobody works while away.
    assert 0.4 < timeline.present_time().mean() / timeline.end_time < 0.97
    spans = model.availability.spans(num_workers, seed)
    for worker in range(num_workers):
        there = []
        for join, leave in spans.of(worker):
            there.append((join, leave))
            if leave > timeline.end_time:
                break
        joins, leaves = np.array(there).T
        mine = (timeline.worker == worker) & (timeline.accepted | ~timeline.commit)
        lost = timeline.lost.worker == worker
        begins = np.append(timeline.begin_time[mine], timeline.lost.start_time[lost])
        ends = np.append(timeline.sent_time[mine], timeline.lost.stop_time[lost])
        span = np.searchsorted(joins, begins, side="right") - 1
        assert (ends <= leaves[span]).all()
        present = np.minimum(leaves, timeline.end_time) - np.minimum(joins, timeline.end_time)
        assert timeline.present_time()[worker] == pytest.approx(present.sum())
    failed = timeline.lost.reason == Reason.FAILED
    assert failed.any() or timeline.end_time < 20


def test_uptimes_are_the_same_under_every_protocol():
    model = runtimes.gamma().with_failures(runtimes.exponential(5.0), runtimes.exponential(1.0))
    absent = [
        run(PROTOCOLS[name], model, 3, max_time=40.0).absent_time()
        for name in ("synchronous", "asynchronous", "rennala", "uniform")
    ]
    for other in absent[1:]:
        np.testing.assert_allclose(other, absent[0], atol=1e-9)


def test_without_returns_everyone_fails_once():
    model = runtimes.deterministic(0.5).with_failures(runtimes.uniform(10.0, 20.0))
    timeline = run(protocols.asynchronous(), model, 5, max_time=10.0)
    assert (timeline.absent_time() == 0).all()
    with pytest.raises(ValueError, match="no worker is left"):
        simulate_timeline(protocols.asynchronous(), model, 5, max_time=25.0)


def test_a_lost_job_is_a_failed_trial():
    model = runtimes.deterministic([1.0, 3.0]).with_availability({1: [(0.0, 1.5)]})
    timeline = run(protocols.mindflayer(5.0, batch_size=2), model, 2, num_commits=2)
    np.testing.assert_array_equal(timeline.worker, [0, 1, 0, 0])
    np.testing.assert_array_equal(timeline.time, [1.0, 1.5, 2.5, 3.5])
    np.testing.assert_array_equal(timeline.accepted, [True, False, True, True])
    np.testing.assert_array_equal(timeline.commit, [False, True, False, True])


def test_who_joins_gets_the_next_token():
    model = runtimes.deterministic().with_availability({1: [(0.5, INF)]})
    timeline = run(protocols.token_control(2, tolerance=0), model, 2, num_commits=10)
    np.testing.assert_array_equal(timeline.token, np.arange(20) // 2)
    np.testing.assert_array_equal(timeline.data_staleness, 0)


@pytest.mark.parametrize("assignment", ["uniform", "shuffled"])
def test_as_many_jobs_are_in_flight_after_a_queue_is_lost(assignment):
    away = {1: [(0.0, 10.5), (13.0, INF)], 2: [(0.0, 20.5)]}
    model = runtimes.deterministic([1.0, 2.0, 2.0]).with_availability(away)
    timeline = run(protocols.asynchronous(assignment, 6), model, 3, num_commits=60)
    failed = timeline.lost.reason == Reason.FAILED
    assert np.count_nonzero(failed) > 2  # of a queue, too
    assert np.count_nonzero(~failed) == 6


def test_turns_begin_with_who_comes_when_nobody_is_there():
    model = runtimes.deterministic().with_availability(
        {0: [(0.0, 2.5), (7.25, INF)], 1: [(4.0, INF)]}
    )
    timeline = run(protocols.round_robin(), model, 2, num_commits=9)
    np.testing.assert_array_equal(timeline.worker, [0, 0, 1, 1, 1, 1, 0, 1, 0])
    np.testing.assert_array_equal(timeline.time, [1, 2, 5, 6, 7, 8, 8.25, 9, 9.25])


def test_tokens_keep_step_when_jobs_are_lost():
    model = runtimes.two_speed(4.0).with_failures(
        runtimes.exponential(10.0), runtimes.exponential()
    )
    timeline = run(protocols.token_control(8, tolerance=0), model, 8, max_time=2000.0)
    assert (timeline.lost.reason == Reason.FAILED).sum() > 1000
    assert timeline.data_staleness.min() >= -3
    assert 0.05 < np.mean(timeline.weight == 0) < 0.5


def test_a_worker_may_be_gone_before_the_clock_can_tell():
    # Some of its times until it fails are shorter than the clock's resolution.
    model = runtimes.exponential().with_failures(
        runtimes.gamma(10.0, cv=3.0), runtimes.exponential()
    )
    for name in ("asynchronous", "bounded_staleness", "synchronous"):
        run(PROTOCOLS[name], model, 8, max_time=300.0).verify()
