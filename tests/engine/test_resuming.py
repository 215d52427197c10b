"""A run that is killed goes on where it was, to the bit, with all that a run may have."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import async_optax as ao
from async_optax.engine import execution
from tests.engine import long_run
from tests.engine.problems import make_timeline, quadratic_problem, run_quadratic

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _chunks_of_32(monkeypatch):
    monkeypatch.setattr(execution, "_FIRST_CHUNK", 32)
    monkeypatch.setattr(execution, "_CHUNK_SECONDS", 0.0)  # never doubles


def assert_identical(result, expected):
    for table in ("arrivals", "evaluations"):
        columns = getattr(expected, table)
        assert set(getattr(result, table)) == set(columns)
        for name, column in columns.items():
            np.testing.assert_array_equal(getattr(result, table)[name], column)
    trees = [(result.params, result.opt_state), (expected.params, expected.opt_state)]
    jax.tree.map(np.testing.assert_array_equal, *trees)


def test_a_run_that_is_killed_goes_on(tmp_path):
    expected = long_run.execute()
    code = f"from tests.engine import long_run; long_run.save_and_report({str(tmp_path)!r})"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        reported = 0
        while reported < 200:  # of 600 arrivals; then in the middle of a chunk or of a save
            reported = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    reports = []
    resumed = long_run.execute(
        checkpoint=ao.Checkpointing(tmp_path, every=0),
        progress=lambda done, total: reports.append(done),
    )
    assert reported <= reports[0] < 600  # what was reported was saved
    assert_identical(resumed, expected)


class _Stopped(Exception):
    pass


def stop_after(num_arrivals):
    def progress(done, total):
        if done >= num_arrivals:
            raise _Stopped

    return progress


def test_it_may_stop_anywhere_and_more_than_once(tmp_path):
    problem, timeline = quadratic_problem(), make_timeline(200)
    expected = run_quadratic(problem, timeline=timeline, evaluate_every=3)
    checkpoint = ao.Checkpointing(tmp_path, every=0, keep=1)
    for stop in (32, 64, 160):
        with pytest.raises(_Stopped):
            run_quadratic(
                problem,
                timeline=timeline,
                evaluate_every=3,
                checkpoint=checkpoint,
                progress=stop_after(stop + 1),
            )
    reports = []
    for _ in range(2):  # the second finds the end
        resumed = run_quadratic(
            problem,
            timeline=timeline,
            evaluate_every=3,
            checkpoint=checkpoint,
            progress=lambda done, total: reports.append(done),
        )
        assert_identical(resumed, expected)
    assert reports == [192, 200, 200]


def test_a_run_that_diverged_stays_where_it_was(tmp_path):
    options = {"optimizer": ao.optimizers.sgd(50.0), "timeline": make_timeline(3000)}
    checkpoint = ao.Checkpointing(tmp_path, every=0)
    problem = quadratic_problem()
    first = run_quadratic(problem, checkpoint=checkpoint, **options)
    assert first.diverged is not None
    reports = []
    again = run_quadratic(
        problem,
        checkpoint=checkpoint,
        progress=lambda done, total: reports.append(done),
        **options,
    )
    assert again.diverged == first.diverged
    assert_identical(again, first)
    assert len(reports) == 1


def test_measured_lanes_are_kept(tmp_path):
    problem, timeline = quadratic_problem(), make_timeline(200, num_workers=16)
    checkpoint = ao.Checkpointing(tmp_path, every=0)
    with pytest.raises(_Stopped):
        run_quadratic(
            problem, timeline=timeline, lanes=4, checkpoint=checkpoint, progress=stop_after(60)
        )
    resumed = run_quadratic(problem, timeline=timeline, lanes="auto", checkpoint=checkpoint)
    assert resumed.lanes.lanes == 4
    assert "checkpoint" in resumed.lanes.reason
    assert_identical(resumed, run_quadratic(problem, timeline=timeline, lanes=4))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"optimizer": ao.optimizers.sgd(0.2)}, r"optimizer.learning_rate is 0.1 there and 0.2"),
        ({"timeline": make_timeline(200, seed=1)}, r"timeline\."),
        ({"key": jax.random.key(1)}, "key is"),
        ({"problem": quadratic_problem().with_noise(ao.noise.gaussian(0.1))}, "problem.noise"),
        ({"record": ["gap"]}, "record.gap is absent there"),
        ({"evaluate_every": 5}, r"evaluations\."),
        ({"worker": ao.local_steps(2, ao.optimizers.sgd(0.1), 0.1)}, "worker"),
        ({"slot_dtype": "bfloat16"}, "slot_dtype is 'None' there and 'bfloat16' here"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(change, named, tmp_path):
    options = {"problem": quadratic_problem(), "timeline": make_timeline(200)}
    options["checkpoint"] = ao.Checkpointing(tmp_path, every=0)
    with pytest.raises(_Stopped):
        run_quadratic(progress=stop_after(60), **options)
    with pytest.raises(ValueError, match=named) as raised:
        run_quadratic(**options | change)
    assert "Use another folder" in str(raised.value)
    # And what is there still serves the run it belongs to.
    assert len(run_quadratic(**options).arrivals["loss"]) == 200


def test_what_is_no_checkpoint_is_refused_before_anything_is_computed(tmp_path):
    with pytest.raises(TypeError, match="must be an async_optax.Checkpointing"):
        run_quadratic(checkpoint=str(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        run_quadratic(checkpoint=ao.Checkpointing(tmp_path / "file" / "folder"))


def test_what_functions_read_of_their_surroundings_belongs_to_the_run(tmp_path, monkeypatch):
    def run():
        def loss(x, batch, key):
            return float(os.environ["SCALE"]) * jnp.sum((x - batch) ** 2)

        problem = dataclasses.replace(quadratic_problem(), loss=loss)
        return run_quadratic(problem, checkpoint=ao.Checkpointing(tmp_path))

    monkeypatch.setenv("SCALE", "1")
    assert_identical(run(), run())
    monkeypatch.setenv("SCALE", "2")
    message = r"another run: what the functions compute is sha256 \w+ there and sha256 \w+ here\."
    with pytest.raises(ValueError, match=message):
        run()
