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
    """Kills workers now and then, and the server at given versions; keeps what was durable.

    At last it ends the driver, if asked to.
    """

    def __init__(self, directory, server_at=(), every=None, seed=0, end_at=None):
        self._end_at = end_at
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
        if self._end_at is not None and status.version > self._end_at and not self._server_at:
            self._end_at = None
            os.kill(os.getpid(), signal.SIGTERM)
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


def test_a_killed_server_goes_on_from_its_checkpoint_and_one_that_was_interrupted(
    ray, tmp_path, x64, caplog
):
    protocol, breaker = ao.protocols.rennala(2), Breaker(tmp_path, server_at=[60], end_at=110)
    arguments = {"extra_time": random_sleep, "checkpoint_every": 1.0, "progress": breaker}
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, protocol, num_commits=10**6, **arguments)
    assert ended.value.code == 128 + signal.SIGTERM
    assert breaker.servers_killed == 1
    assert "server 2 goes on from the checkpoint" in caplog.text
    told = [line.getMessage() for line in caplog.records if "are saved" in line.getMessage()]
    kept, before = int(told[0].split()[0]), Recording.load(tmp_path)
    assert before.timeline.num_commits == kept > 110
    num_commits = kept + 20
    result = run(tmp_path, protocol, num_commits=num_commits, **arguments)
    recording = result.recording
    assert (result.num_servers, recording.num_epochs) == (1, 3)
    check(result, breaker, num_commits)
    jobs = before.job[before.timeline.commit]
    np.testing.assert_array_equal(recording.job[recording.timeline.commit][:kept], jobs)
    assert f"server 3 goes on from commit {kept}" in caplog.text
    # The directory of a run that has ended gives its result again, and no other run may use it.
    again = run(tmp_path, protocol, num_commits=num_commits, checkpoint_every=1.0)
    np.testing.assert_array_equal(again.params["w"], result.params["w"])
    with pytest.raises(ValueError, match="holds another run: .*protocol"):
        run(tmp_path, ASYNCHRONOUS, num_commits=num_commits)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("ObjectStoreFullError", OSError),
        ("OutOfDiskError", OSError),
        ("GetTimeoutError", TimeoutError),
        ("RaySystemError", RuntimeError),
    ],
)
@pytest.mark.parametrize("where", ["driver", "server"])
def test_errors_of_ray_come_as_pythons_own(kind, expected, where, ray, tmp_path, monkeypatch):
    error = getattr(ray.exceptions, kind)("nothing left\nhere")
    if where == "server":
        inner = ray.exceptions.RayTaskError("run", "inner", error).as_instanceof_cause()
        error = ray.exceptions.RayTaskError("run", "outer", inner).as_instanceof_cause()

    def put(value):
        raise error

    monkeypatch.setattr(ray, "put", put)
    with pytest.raises(expected, match=f"{kind}: .*nothing left") as caught:
        run(tmp_path, ASYNCHRONOUS, num_commits=1)
    assert not isinstance(caught.value, ray.exceptions.RayError)
    assert "\n" not in str(caught.value)


def test_a_cluster_without_room_is_refused(ray, tmp_path):
    with pytest.raises(ValueError, match="num_workers=8 and the server need 9 CPUs, .* has 8"):
        run(tmp_path, ASYNCHRONOUS, num_workers=8, num_commits=1)


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
        return 60.0 if job == 20 else 0.02  # 300 of those take longer than the limit

    limits = dataclasses.replace(LIMITS, job=5.0)
    result = run(tmp_path, ASYNCHRONOUS, num_commits=300, extra_time=extra_time, limits=limits)
    lost = result.recording.timeline.lost
    assert np.count_nonzero(lost.reason == Reason.FAILED) == 1
    assert any("within limits.job=5 s" in line for line in result.recording.incidents)
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
    limits = dataclasses.replace(LIMITS, server=8.0)
    started = time.monotonic()
    errors = {
        "full": (OSError, "too large|disk is full"),
        "stuck": (TimeoutError, "evaluating for .* s"),
    }
    with pytest.raises(errors[kind][0], match=errors[kind][1]):
        run(tmp_path, ASYNCHRONOUS, problem=problem, num_commits=10**6, limits=limits)
    assert time.monotonic() - started < 60


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
