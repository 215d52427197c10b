"""What breaks in a real run: workers, servers, disks; and what the run makes of it."""

import contextlib
import dataclasses
import os
import resource
import signal
import time

import jax.numpy as jnp
import numpy as np
import pytest

import async_optax as ao
from async_optax.distributed import Recording
from async_optax.timelines import Reason
from tests.distributed.runs import LIMITS, PROBLEM, distance, random_sleep, run

ASYNCHRONOUS = ao.protocols.asynchronous()


class Breaker:
    """Kills workers now and then, and the server at given versions; keeps what was durable."""

    def __init__(self, directory, server_at=(), every=None, seed=0):
        self._directory, self._server_at, self._every = directory, list(server_at), every
        self._rng = np.random.default_rng(seed)
        self._next = None if every is None else time.monotonic() + every
        self.workers_killed = self.servers_killed = 0
        self.durable = {}  # number of the job of each commit that was reported as durable

    def __call__(self, status):
        if status.durable_version > len(self.durable):
            recording = Recording.load(self._directory)
            commits = recording.timeline.commit
            jobs = recording.job[commits][: status.durable_version].tolist()
            assert self.durable.items() <= dict(enumerate(jobs)).items()
            self.durable = dict(enumerate(jobs))
        if self._server_at and status.version > self._server_at[0] and status.durable_version:
            del self._server_at[0]
            self.servers_killed += 1
            os.kill(status.server_pid, signal.SIGKILL)
        elif self._next is not None and time.monotonic() > self._next and status.version:
            alive = [pid for pid in status.pids if pid]
            # The status is a moment old: a server's end may have taken its workers along.
            with contextlib.suppress(ProcessLookupError):
                if alive:
                    os.kill(self._rng.choice(alive), signal.SIGKILL)
                    self.workers_killed += 1
            self._next = time.monotonic() + self._every * self._rng.uniform(0.5, 1.5)


def check(result, breaker, num_commits):
    """Every commit exactly once, those that were durable as they were, and the replay's end."""
    recording = result.recording
    commits = recording.timeline.commit
    assert np.array_equal(recording.timeline.version[commits], np.arange(num_commits))
    assert len(set(recording.job.tolist())) == len(recording.job)
    jobs = recording.job[commits].tolist()
    assert breaker.durable
    assert all(jobs[commit] == job for commit, job in breaker.durable.items())
    assert distance(result) < 1e-10


def test_a_killed_server_goes_on_from_its_checkpoint(ray, tmp_path, x64, caplog):
    breaker = Breaker(tmp_path, server_at=[60])
    result = run(
        tmp_path,
        ao.protocols.rennala(2),
        num_commits=150,
        extra_time=random_sleep,
        checkpoint_every=0.2,
        progress=breaker,
    )
    assert (breaker.servers_killed, result.num_servers, result.recording.num_epochs) == (1, 2, 2)
    check(result, breaker, 150)
    assert "server 2 goes on from the checkpoint" in caplog.text
    # The directory of a run that has ended gives its result again, and no other run may use it.
    again = run(tmp_path, ao.protocols.rennala(2), num_commits=150, checkpoint_every=0.2)
    np.testing.assert_array_equal(again.params["w"], result.params["w"])
    with pytest.raises(ValueError, match="holds another run: .*protocol"):
        run(tmp_path, ASYNCHRONOUS, num_commits=150)


def test_a_worker_that_sends_nan_is_quarantined(ray, tmp_path, x64, caplog):
    def batch(key, worker):
        return jnp.where(worker == 1, -1, PROBLEM.batch(key, worker))

    def loss(params, rows, key):
        return jnp.where(rows[0] < 0, jnp.nan, 1.0) * PROBLEM.loss(params, rows, key)

    problem = dataclasses.replace(PROBLEM, batch=batch, loss=loss)
    result = run(tmp_path, ASYNCHRONOUS, problem=problem, num_commits=30)
    recording = result.recording
    assert set(recording.timeline.worker.tolist()) == {0}
    lost = recording.timeline.lost
    assert lost.worker[lost.reason == Reason.FAILED].tolist() == [1] * LIMITS.strikes
    assert "worker 1 sent nothing usable (3 of 3): the update is not finite at" in caplog.text
    assert "worker 1 is in quarantine" in caplog.text
    assert distance(result, problem) < 1e-10


def test_when_all_workers_fail_the_run_says_why(ray, tmp_path, x64):
    def extra_time(worker, job):
        raise ZeroDivisionError("of my own")

    with pytest.raises(RuntimeError, match="all workers are in quarantine.*Zero.*of my own"):
        run(tmp_path, ASYNCHRONOUS, num_commits=30, extra_time=extra_time)


def test_a_job_that_hangs_costs_its_worker_and_no_more(ray, tmp_path, x64):
    def extra_time(worker, job):
        return 60.0 if job == 20 else 0.002

    limits = dataclasses.replace(LIMITS, job=1.0)
    result = run(tmp_path, ASYNCHRONOUS, num_commits=800, extra_time=extra_time, limits=limits)
    lost = result.recording.timeline.lost
    assert np.count_nonzero(lost.reason == Reason.FAILED) == 1
    assert any("within limits.job=1 s" in line for line in result.recording.incidents)
    assert distance(result) < 1e-10


@pytest.mark.parametrize("kind", ["full", "stuck"])
def test_a_full_disk_or_a_stuck_server_is_an_error(kind, ray, tmp_path, x64):
    driver = os.getpid()

    def evaluate(params):
        if os.getpid() != driver and kind == "full":  # in the server's process
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        elif os.getpid() != driver:
            time.sleep(30.0)
        return {"norm": jnp.linalg.norm(params["w"])}

    problem = dataclasses.replace(PROBLEM, evaluate=evaluate)
    limits = dataclasses.replace(LIMITS, server=3.0)
    started = time.monotonic()
    errors = {
        "full": (OSError, "too large|disk is full"),
        "stuck": (TimeoutError, "evaluating for .* s"),
    }
    with pytest.raises(errors[kind][0], match=errors[kind][1]):
        run(tmp_path, ASYNCHRONOUS, problem=problem, num_commits=10**6, limits=limits)
    assert time.monotonic() - started < 25


@pytest.mark.slow
def test_soak(ray, tmp_path, x64):
    num_commits = int(os.environ.get("ASYNC_OPTAX_SOAK_COMMITS", "600"))
    breaker = Breaker(tmp_path, server_at=[num_commits // 4, num_commits * 2 // 3], every=4.0)
    result = run(
        tmp_path,
        ASYNCHRONOUS,
        num_workers=3,
        num_commits=num_commits,
        extra_time=lambda worker, job: 0.02 + random_sleep(worker, job),
        checkpoint_every=1.0,
        progress=breaker,
    )
    assert breaker.servers_killed == 2
    assert breaker.workers_killed >= num_commits // 600
    assert result.recording.num_epochs == 3
    check(result, breaker, num_commits)
