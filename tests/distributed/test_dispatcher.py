"""The dispatcher against the simulation: the same policy, the same times, the same timeline."""

import numpy as np
import pytest

from async_optax import protocols, runtimes
from async_optax.distributed.dispatcher import Dispatcher
from async_optax.timelines import Reason, simulate_timeline
from tests.distributed.virtual import VirtualRun
from tests.timelines.test_leaving import PROTOCOLS

INF = float("inf")
LAW = runtimes.two_speed(3.0, law=runtimes.gamma(cv=0.5))
SPANS = {
    1: [(0.0, 7.25), (9.5, 21.0), (24.0, INF)],
    3: [(4.5, 30.0)],
    4: [(0.0, 12.75), (13.0, INF)],
}


def compare(protocol, spans, num_commits):
    model = LAW.with_availability(spans) if spans else LAW
    expected = simulate_timeline(protocol, model, 6, num_commits=num_commits)
    ran = VirtualRun(protocol, LAW.job_times(6, 0), spans)
    ran.run(num_commits)
    columns = zip(*ran.rows, strict=True)
    names = ("worker", "read_version", "version", "start_time", "time")
    for name, column in zip((*names, "weight", "accepted", "commit"), columns, strict=True):
        np.testing.assert_array_equal(column, getattr(expected, name), err_msg=name)
    lost = expected.lost
    told = sorted(zip(lost.worker, lost.start_time, lost.stop_time, lost.reason, strict=True))
    np.testing.assert_allclose(sorted(ran.lost), told, rtol=1e-12)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_decisions_are_carried_out_as_in_the_simulation(name):
    compare(PROTOCOLS[name], None, num_commits=40)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_and_when_workers_leave_and_join(name):
    compare(PROTOCOLS[name], SPANS, num_commits=25)


class Silent:
    def __init__(self):
        self.dropped = []

    def hand_out(self, job):
        pass

    def send(self, job):
        pass

    def handle(self, job, decision, version, time):
        pass

    def drop(self, job, reason, time):
        self.dropped.append((job.number, reason))

    def commit_alone(self, worker, version, time):
        pass


def test_what_is_in_flight_at_the_end_is_unfinished_queues_included():
    crew = Silent()
    policy = protocols.asynchronous("uniform", concurrency=5).policy(2)
    dispatcher = Dispatcher("uniform", policy, 2, crew)
    dispatcher.begin([0, 1], 0.0)
    assert dispatcher.num_present == 2
    dispatcher.stop(1.0)
    assert sorted(crew.dropped) == [(number, Reason.UNFINISHED) for number in range(5)]


@pytest.mark.parametrize("event", ["time_out", "leave", "join"])
def test_nothing_is_decided_after_the_last_commit(event):
    policy = protocols.asynchronous().policy(3)
    dispatcher = Dispatcher("mine", policy, 3, Silent(), last_version=1)
    commit = protocols.Decision(commit=True)
    policy.on_timeout = lambda worker, time: commit
    policy.on_leave = lambda worker, num_lost, time: commit
    policy.on_join = lambda worker, time: commit
    dispatcher.begin([0, 1], 0.0)
    dispatcher.time_out(0, 1.0)
    assert dispatcher.version == 1
    getattr(dispatcher, event)(2 if event == "join" else 1, 1.0)  # found in the same look
    assert dispatcher.version == 1
    assert dispatcher.num_present == {"time_out": 2, "leave": 1, "join": 3}[event]


def test_a_policy_that_starts_who_is_away_or_busy_is_refused():
    crew, policy = Silent(), protocols.asynchronous().policy(2)
    dispatcher = Dispatcher("mine", policy, 2, crew)
    dispatcher.begin([0], 0.0)
    policy.on_arrival = lambda worker, staleness, time: policy.on_join(1, time)
    with pytest.raises(ValueError, match="mine starts worker 1, which is away"):
        dispatcher.arrive(0, 1.0)
    policy.on_join = lambda worker, time: protocols.Decision(start=(worker, worker))
    with pytest.raises(ValueError, match="mine starts worker 1, which is still computing"):
        dispatcher.join(1, 2.0)
