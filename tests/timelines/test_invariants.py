"""What holds for every protocol on every model of workers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from async_optax import protocols, runtimes
from async_optax.timelines import simulate_timeline

COLUMNS = ("worker", "read_version", "version", "start_time", "time", "weight")
COLUMNS += ("accepted", "commit", "begin_time", "sent_time")

LAWS = {
    "equal": runtimes.deterministic(),
    "two_speed": runtimes.two_speed(3.0),
    "gamma": runtimes.gamma(cv=0.5, machine_cv=0.6),
    "exponential": runtimes.exponential(),
}
SURROUNDINGS = {
    "plain": lambda law: law,
    "transfers": lambda law: law.with_transfers(
        download=runtimes.deterministic(0.25), upload=runtimes.exponential(0.2)
    ),
    "server": lambda law: law.with_transfers(upload=runtimes.uniform(0.1, 0.2)).with_server(
        runtimes.deterministic(0.125)
    ),
    "failures": lambda law: law.with_failures(runtimes.exponential(9.0), runtimes.exponential()),
    "availability": lambda law: law.with_availability(
        {0: [(0.0, 3.0), (5.0, 8.5), (9.0, float("inf"))]}
    ),
    "speeds": lambda law: law.with_speeds([0.0, 3.0, 4.0], [1.0, 0.25, 2.0], 5.0),
    "all": lambda law: (
        law.with_machines(runtimes.lognormal())
        .with_transfers(upload=runtimes.exponential(0.1))
        .with_server(runtimes.exponential(0.05))
        .with_failures(runtimes.exponential(12.0), runtimes.deterministic(1.5))
        .with_speeds([0.0, 3.0, 4.0], [1.0, 0.5, 2.0])
    ),
}
STAGES = [
    protocols.synchronous(),
    protocols.asynchronous("uniform", 3),
    protocols.asynchronous(),
    protocols.ringmaster(1, stop=True),
    protocols.token_control(2, tolerance=0),
    protocols.round_robin(),
    protocols.buffered(2),
]
PROTOCOLS = {
    "synchronous": lambda n: protocols.synchronous(),
    "backup": lambda n: protocols.synchronous(backup=n // 2),
    "cohorts": lambda n: protocols.synchronous(cohort=(n + 2) // 2, backup=n // 4),
    "asynchronous": lambda n: protocols.asynchronous(),
    "uniform": lambda n: protocols.asynchronous("uniform", n + 2),
    "shuffled": lambda n: protocols.asynchronous("shuffled", max(1, n - 1)),
    "buffered": lambda n: protocols.buffered(3),
    "waiting": lambda n: protocols.buffered((n + 1) // 2, wait=True),
    "softsync": lambda n: protocols.softsync((n + 1) // 2),
    "bounded_staleness": lambda n: protocols.bounded_staleness(n % 3),
    "rennala": lambda n: protocols.rennala(n),
    "rennala_all": lambda n: protocols.rennala(n, stop=False),
    "ringmaster": lambda n: protocols.ringmaster(n),
    "ringmaster_stop": lambda n: protocols.ringmaster(n, stop=True),
    "mindflayer": lambda n: protocols.mindflayer([2.0 + worker % 3 for worker in range(n)]),
    "token_control": lambda n: protocols.token_control(n, tolerance=1),
    "round_robin": lambda n: protocols.round_robin(),
    "switching": lambda n: protocols.switching(
        [(3.0 * stage, protocol) for stage, protocol in enumerate(STAGES, start=1)]
        + [(None, protocols.rennala(2))]
    ),
}


def assert_prefix(short, long):
    """All columns of the shorter run are the beginning of the longer one's."""
    for name in COLUMNS if short.token is None else (*COLUMNS, "token"):
        column = getattr(short, name)
        np.testing.assert_array_equal(column, getattr(long, name)[: len(column)], err_msg=name)


def most_jobs_at_once(timeline):
    """Of any worker; jobs that end as others begin do not overlap."""
    begin = np.concatenate([timeline.begin_time, timeline.lost.start_time])
    end = np.concatenate([timeline.sent_time, timeline.lost.stop_time])
    worker = np.concatenate([timeline.worker, timeline.lost.worker])
    most = 0
    for one in range(timeline.num_workers):
        mine = worker == one
        order = np.lexsort((end[mine], begin[mine]))
        starts, ends = begin[mine][order], np.maximum.accumulate(end[mine][order])
        overlaps = starts[1:] < ends[:-1]
        most = max(most, 1 + int(overlaps.any()))
    return most


@pytest.mark.parametrize("name", PROTOCOLS)
@settings(max_examples=60)
@given(data=st.data())
def test_every_run_keeps_the_rules(name, data):
    num_workers = data.draw(st.integers(1, 8), "num_workers")
    law = data.draw(st.sampled_from(sorted(LAWS)), "law")
    surroundings = data.draw(st.sampled_from(sorted(SURROUNDINGS)), "surroundings")
    model = SURROUNDINGS[surroundings](LAWS[law])
    seed = data.draw(st.integers(0, 20), "seed")
    num_commits = data.draw(st.integers(1, 50), "num_commits")
    protocol = PROTOCOLS[name](num_workers)

    def run(**end):
        return simulate_timeline(protocol, model, num_workers, **end, seed=seed)

    timeline = run(num_commits=num_commits)
    timeline.verify()
    assert timeline.num_commits == num_commits
    assert timeline.commit[-1]
    assert timeline.end_time == timeline.time[-1]
    assert (timeline.read_version <= timeline.version).all()
    np.testing.assert_array_equal(timeline.version, np.cumsum(timeline.commit) - timeline.commit)
    assert (np.diff(timeline.time) >= 0).all()
    assert most_jobs_at_once(timeline) == 1
    assert (timeline.token is not None) == (name in ("token_control", "switching"))

    # Every worker is somewhere at any time: busy, or on what is lost, or waiting, or away.
    assert (timeline.idle_time() >= -1e-9).all()
    shares = timeline.utilisation() + timeline.waiting() + timeline.aborted()
    np.testing.assert_allclose(shares[timeline.present_time() > 0], 1.0)
    assert (timeline.absences is None) == (model.availability is None)

    # The same seed is the same run, and the past does not know when the run will end.
    again, longer = run(num_commits=num_commits), run(num_commits=num_commits + 7)
    assert_prefix(timeline, again)
    assert timeline.num_arrivals == again.num_arrivals
    assert_prefix(timeline, longer)
    by_time = run(max_time=timeline.end_time)
    by_time.verify()
    assert_prefix(timeline, by_time)
    assert by_time.end_time == timeline.end_time
    late = longer.time > timeline.end_time  # all of the last moment, but none beyond it
    if longer.time[-1] > timeline.end_time:
        assert by_time.num_arrivals == np.count_nonzero(~late)
        assert_prefix(by_time, longer)


@pytest.mark.parametrize("name", sorted({"asynchronous", "uniform", "synchronous", "rennala"}))
def test_seeds_are_different_runs(name):
    runs = [
        simulate_timeline(PROTOCOLS[name](4), LAWS["gamma"], 4, num_commits=10, seed=seed)
        for seed in range(5)
    ]
    assert len({run.end_time for run in runs}) == 5
    if name == "uniform":  # whom the jobs go to, too
        equal = [
            simulate_timeline(PROTOCOLS[name](4), LAWS["equal"], 4, num_commits=10, seed=seed)
            for seed in range(5)
        ]
        assert len({tuple(run.worker) for run in equal}) > 1
