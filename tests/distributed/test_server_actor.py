"""The server's loop without processes: workers that fail for good or now and then, ends, breaks."""

import time

import jax
import numpy as np
import pytest

import async_optax as ao
from async_optax.distributed import (
    Limits,
    Recording,
    attendance,
    replay,
    server_actor,
    what_if_timeline,
    worker_actor,
)
from async_optax.distributed.trace_file import read_events
from tests.distributed.fake_ray import DIES, HANGS, METHOD, PROBLEM, FakeRay, FakeRun

ASYNCHRONOUS = ao.protocols.asynchronous()


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    ray = FakeRay()
    for module in (server_actor, worker_actor):
        monkeypatch.setattr(module, "import_ray", lambda: ray)
        monkeypatch.setattr(module, "configure_jax", lambda *arguments: None)
    monkeypatch.setattr(attendance, "_PAUSE", 0.001)


def quarantined(server):
    return server.status().quarantined


def replayed(directory, result):
    again = replay(PROBLEM, METHOD, Recording.load(directory), lanes=1)
    np.testing.assert_allclose(
        jax.tree.leaves(again.params), jax.tree.leaves(result["params"]), atol=1e-5
    )


@pytest.mark.parametrize("how", ["dies", "hangs", "nan", "negative", "none"])
def test_jobs_that_always_fail_end_the_run(how, tmp_path):
    def breaks(worker, method):
        return {"dies": DIES, "hangs": HANGS}.get(how) if method == "compute" else None

    seconds = {"nan": float("nan"), "negative": -1.0, "none": None}.get(how, 0.0)
    extra_time = lambda worker, job: seconds  # noqa: E731
    why = {
        "dies": r"its process ended \(RayActorError\)",
        "hangs": "it did not finish job . within limits.job=0.05 s",
    }.get(how, rf"extra_time\(., .\) must be a finite number >= 0, got {seconds}")
    limits = Limits(job=0.05 if how == "hangs" else 60.0)
    run = FakeRun(tmp_path, ASYNCHRONOUS, breaks, num_commits=9, extra_time=extra_time)
    message = f"all workers are in quarantine, the last one for: .*{why}"
    with pytest.raises(RuntimeError, match=message) as caught:
        run.serve(limits=limits)
    assert "\n" not in str(caught.value)
    assert sum(event.kind == "lost" for event in read_events(tmp_path / "trace.jsonl")) == 6


def test_who_fails_now_and_then_is_forgiven(tmp_path):
    def breaks(worker, method):
        if method == "compute" and worker == 1 and run.num_jobs[1] % 3 == 1:
            if run.num_jobs[1] % 2:
                return DIES
            raise ZeroDivisionError
        return None

    run = FakeRun(tmp_path, ASYNCHRONOUS, breaks, num_commits=60, limits=Limits(strikes=2))
    server, result = run.serve()
    recording = Recording.load(tmp_path)
    assert quarantined(server) == ()
    assert len(recording.incidents) > 6
    assert np.count_nonzero(recording.timeline.worker == 1) > 10
    replayed(tmp_path, result)


@pytest.mark.parametrize("at", ["first", "later"])
def test_a_worker_that_cannot_be_set_up_is_absent(at, tmp_path):
    def breaks(worker, method):
        if worker == 0 or (at == "later" and not run.num_jobs[1]):
            return None
        if method == "compute":
            return DIES
        raise ZeroDivisionError("of its own")

    run = FakeRun(tmp_path, ASYNCHRONOUS, breaks, num_commits=40)
    server, result = run.serve()
    status = server.status()
    assert (status.quarantined, status.workers_up, status.version) == ((1,), 1, 40)
    assert any("worker 1 cannot start (3 of 3): Zero" in line for line in status.messages)
    recording = Recording.load(tmp_path)
    assert set(recording.timeline.worker.tolist()) == {0}
    assert "worker 1, quarantine: Zero" in recording.incidents[-1]
    replayed(tmp_path, result)


def test_when_nobody_can_be_set_up_the_run_says_why(tmp_path):
    def breaks(worker, method):
        raise ZeroDivisionError("of its own")

    with pytest.raises(RuntimeError, match="no worker can start, at last: Zero.*of its own"):
        FakeRun(tmp_path, ASYNCHRONOUS, breaks, num_commits=5).serve()


def test_workers_that_are_away_at_first_are_waited_for(tmp_path):
    asked = []

    def breaks(worker, method):
        asked.append(worker)
        return DIES if len(asked) <= 6 else None

    _, result = FakeRun(tmp_path, ASYNCHRONOUS, breaks, num_commits=5).serve()
    assert result["version"] == 5


def test_time_in_which_no_server_runs_does_not_count(tmp_path, monkeypatch):
    run = FakeRun(tmp_path, ao.protocols.buffered(7))
    _, first = run.serve(max_time=0.2)
    assert first["version"] == first["durable_version"] > 0
    ended = Recording.load(tmp_path).timeline.end_time
    assert ended >= 0.2
    # A run that has ended is recognised, whatever was gathered when its time was over.
    _, again = run.serve(max_time=0.2)
    assert again["version"] == first["version"]
    assert Recording.load(tmp_path).num_epochs == 1
    # A day later it goes on where it was.
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86400)
    _, last = run.serve(max_time=ended + 0.2)
    recording = Recording.load(tmp_path)
    assert last["version"] > first["version"]
    assert ended + 0.2 <= recording.timeline.end_time < ended + 100
    assert recording.timeline.num_commits == last["version"]
    began = recording.timeline.start_time.min()
    assert began > 0  # the evaluation before is not the workers' time
    what_if = what_if_timeline(recording, ASYNCHRONOUS)
    assert what_if.end_time == pytest.approx(recording.timeline.end_time - began, abs=1e-9)
    replayed(tmp_path, last)


@pytest.mark.parametrize("protocol", [ASYNCHRONOUS, ao.protocols.buffered(5)])
def test_an_interrupted_server_saves_and_another_goes_on(protocol, tmp_path):
    def breaks(worker, method):
        if sum(run.num_jobs) == 23:
            server.interrupt()

    run = FakeRun(tmp_path, protocol, breaks, num_commits=30)
    server = run.server()
    _, kept = run.serve(server)
    assert 0 < kept["version"] == kept["durable_version"] < 30
    server, result = run.serve()
    assert f"server 2 goes on from commit {kept['version']}" in server.status().messages[0]
    recording = Recording.load(tmp_path)
    assert recording.timeline.num_commits == 30
    assert len(set(recording.job.tolist())) == len(recording.job)
    replayed(tmp_path, result)


def test_an_interrupted_server_does_not_wait_for_long(tmp_path):
    def breaks(worker, method):
        if sum(run.num_jobs) < 9:
            return None
        server.interrupt()
        return HANGS

    run = FakeRun(tmp_path, ao.protocols.buffered(5), breaks, num_commits=30)
    server = run.server(limits=Limits(stop=0.2))
    _, result = run.serve(server)
    assert (result["version"], result["durable_version"]) == (1, 0)
    assert any("what was gathered is not saved" in line for line in server.status().messages)
