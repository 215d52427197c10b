"""Who gets the next job: queues, concurrency, balance, and federated cohorts."""

import numpy as np
import pytest

from async_optax import protocols, runtimes
from tests.timelines.test_protocols import run


def test_a_job_for_a_busy_worker_waits_in_its_queue():
    # Four jobs for two workers: one of them always waits.
    timeline = run(protocols.asynchronous("uniform", 4), [1.0, 2.0], max_time=40.0)
    begin, start = timeline.phases.begin, timeline.start_time
    assert (begin > start).any()
    for worker in range(2):
        mine = timeline.worker == worker
        assert (np.diff(start[mine]) >= 0).all()  # first in, first out
        ends = np.append(0.0, timeline.time[mine][:-1])
        np.testing.assert_array_equal(begin[mine], np.maximum(start[mine], ends))
    assert timeline.staleness.max() > 3


@pytest.mark.parametrize("concurrency", [3, 10, 25])
def test_assignments_keep_as_many_jobs_in_flight_as_they_are_told(concurrency):
    model = runtimes.two_speed(6.0)
    for assignment in ("uniform", "shuffled"):
        protocol = protocols.asynchronous(assignment, concurrency)
        timeline = run(protocol, model, 10, num_commits=4000)
        assert len(timeline.lost.worker) == concurrency  # in flight at the end
        assert np.count_nonzero(timeline.start_time == 0) <= concurrency
        # Each commit ages all jobs in flight but the one that arrives.
        assert timeline.staleness.mean() == pytest.approx(concurrency - 1, rel=0.02)
        delivered = np.bincount(timeline.worker, minlength=10)
        if assignment == "uniform":
            np.testing.assert_allclose(delivered, 400, atol=5 * np.sqrt(400))
        else:  # all but what waits in queues
            assert delivered.max() - delivered.min() <= concurrency + 1
    immediate = run(protocols.asynchronous(), model, 10, num_commits=4000)
    delivered = np.bincount(immediate.worker)
    assert delivered[0] == pytest.approx(6 * delivered[-1], rel=0.01)


def test_federated_clients_of_two_kinds():
    # 900 clients of 10 s and 100 of 60 s: 15 s on average, so 10 at a time deliver 10 per 15 s.
    # The little more is what waits in a queue behind a job of the same client.
    clients = runtimes.two_speed(6.0, slow_fraction=0.1, fast_time=10.0)
    protocol = protocols.asynchronous("uniform", concurrency=10)
    timeline = run(protocol, clients, 1000, num_commits=20_000)
    assert 10 * timeline.end_time / timeline.num_arrivals == pytest.approx(15.0, rel=0.02)
    # A round of 10 random clients lasts 10 s if all are fast, else 60 s: 42.6 s on average.
    rounds = run(protocols.synchronous(cohort=10), clients, 1000, num_commits=2000)
    assert rounds.end_time / 2000 == pytest.approx(60 - 50 * 0.9**10, rel=0.03)
    np.testing.assert_array_equal(rounds.staleness, 0)
    cohorts = rounds.worker.reshape(-1, 10)
    assert all(len(set(cohort)) == 10 for cohort in cohorts.tolist())
    delivered = np.bincount(rounds.worker, minlength=1000)  # binomial, 20 each on average
    assert delivered.var() == pytest.approx(20 * (1 - 10 / 1000), rel=0.2)
