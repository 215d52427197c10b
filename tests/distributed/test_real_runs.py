"""Real worker processes: every protocol runs, and its record replays to the same parameters."""

import os
import signal

import numpy as np
import pytest

import async_optax as ao
from async_optax.distributed import compressed
from async_optax.timelines import Reason
from tests.distributed.runs import distance, random_sleep, run

# Aborts and time limits; the rest differ in the policy alone: tests without processes do.
CASES = {
    "aborts": (
        ao.protocols.ringmaster(1, stop=True),
        {"worker": compressed(kind="top", amount=0.3), "slot_dtype": "bfloat16"},
    ),
    "time_limits": (
        ao.protocols.mindflayer(0.3, batch_size=200),  # more trials than fit into the limit
        {"extra_time": lambda worker, job: 20.0 if job in (3, 8) else 0.003, "num_commits": 1},
    ),
}


def test_500_commits_with_random_sleeps_and_a_killed_worker(ray, tmp_path, x64):
    killed = []

    def kill_once(status):
        if not killed and status.version > 150:
            killed.append(status.version)
            os.kill(status.pids[1], signal.SIGKILL)

    result = run(
        tmp_path,
        ao.protocols.asynchronous(),
        num_workers=3,
        num_commits=600,
        extra_time=random_sleep,
        evaluate_every=200,
        progress=kill_once,
    )
    recording = result.recording
    timeline = recording.timeline
    assert timeline.num_commits == 600
    assert distance(result) < 1e-10
    # The killed worker's job is lost, and nothing else: every job was handed out and is accounted.
    failed = timeline.lost.reason == Reason.FAILED
    assert timeline.lost.worker[failed].tolist() == [1]
    assert sorted(set(range(603)) - set(recording.job.tolist()))  # lost or unfinished
    assert len(set(recording.job.tolist())) == 600
    assert recording.num_epochs == 1
    assert any("worker 1 left" in line for line in recording.incidents)
    assert recording.evaluations["version"].tolist() == [0, 200, 400, 600]
    # What the simulation predicts from the measured times of jobs.
    predicted = ao.distributed.what_if_timeline(recording, ao.protocols.asynchronous())
    whole = timeline.version < killed[0]
    measured = timeline.staleness[whole].mean()
    assert measured == pytest.approx(predicted.staleness.mean(), rel=0.1)


@pytest.mark.parametrize("name", CASES)
def test_protocols_run_for_real(name, ray, tmp_path, x64):
    protocol, arguments = CASES[name]
    arguments = {"extra_time": random_sleep, "num_commits": 25} | arguments
    result = run(tmp_path, protocol, **arguments)
    recording = result.recording
    assert recording.timeline.num_commits == arguments["num_commits"]
    assert recording.header["protocol"] == protocol.name
    assert distance(result, worker=arguments.get("worker")) < 1e-10
    if name == "aborts":
        assert recording.fresh.any()
    if name == "time_limits":
        assert np.count_nonzero(recording.timeline.lost.reason == Reason.EXPIRED) >= 2
