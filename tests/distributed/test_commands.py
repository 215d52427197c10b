"""The commands ``train`` and ``replay``: digits to the demo's target, for real and again."""

import importlib
import io
import json
import logging
import shlex

import jax
import numpy as np
import pytest
from rich.console import Console

import async_optax as ao
from async_optax import cli
from async_optax.cli.run import DigitsProblem
from async_optax.cli.saved_params import read_params, save_params
from async_optax.cli.training import Method, Setting, as_note
from async_optax.distributed import Recording
from experiments.real_workers.measure import row_of
from experiments.real_workers.tables import holds
from tests.distributed.test_dispatcher import LAW
from tests.distributed.virtual import VirtualRun

TRAIN = (
    "train --num-workers 2 --num-commits 300 --extra-time 0.01 --slow-factor 3 --checkpoint-every 1"
    " --digits.hidden 32 --method async_heavy_tailed --arguments weight_fn concurrency --output"
)
COMMAND = importlib.import_module("async_optax.cli.train")


def table_of(printed):
    """Rows of the table of staleness: cells, each of what was measured and predicted."""
    shown = [line for line in printed.splitlines() if "│" in line]
    rows = [line.split("│")[1:-1] for line in shown]
    return {row[0].strip(): [cell.split("/") for cell in row[1:]] for row in rows}


def test_real_workers_reach_the_target_and_replay_tells_what_if(ray, tmp_path, capsys):
    run = str(tmp_path / "run")
    assert cli.main([*shlex.split(TRAIN), run]) == 0
    printed = capsys.readouterr().out
    assert "accuracy 0.8 reached at commit" in printed
    assert "300 commits in" in printed
    table = table_of(printed)
    assert list(table) == ["all", "0", "1"]
    # At most 10 % from what the simulation predicts of the measured times.
    mean, predicted = map(float, table["all"][1])
    assert mean == pytest.approx(predicted, rel=0.1)
    # The slower worker's arrivals are fewer and staler, measured and predicted.
    for fast, slow in zip(table["0"][1], table["1"][1], strict=True):
        assert float(slow) > 1.5 * float(fast)
    assert int(table["0"][0][0]) + int(table["1"][0][0]) == 300
    assert list((tmp_path / "run" / "metrics").glob("events.out.tfevents.*"))
    assert list((tmp_path / "run" / "checkpoints").glob("checkpoint-*"))

    assert cli.main(["replay", run]) == 0
    printed = capsys.readouterr().out
    assert "replayed: async_heavy_tailed(0.25" in printed
    difference = float(printed.split("difference of a parameter: ")[1].split(",")[0])
    assert difference < 1e-4
    row = row_of(tmp_path / "run", target=0.8, num_predictions=2)
    judged = holds(row)
    assert judged["target"]
    assert judged["replay"]
    assert [row["measured"][name]["arrivals"] for name in ("all", "0", "1")] == [
        int(cells[0][0]) for cells in table.values()
    ]
    assert sum(row["measured"]["all"]["counts"]) == 300
    assert cli.main(["replay", run, "--method", "sgd", "--protocol", "synchronous"]) == 0
    printed = capsys.readouterr().out
    assert "synchronous, simulated: sgd(0.25)" in printed
    assert "difference of a parameter" not in printed


SETTING = Setting(digits=DigitsProblem(hidden=(4,)))


def virtual_run(folder, num_commits):
    """A run of ``train`` on workers whose times are simulated; returns its parameters."""
    training = SETTING.problem(), Method().make(6), ao.gradient(), jax.random.key(0)
    path = folder / "trace.jsonl"
    path.unlink(missing_ok=True)
    ran = VirtualRun(ao.protocols.asynchronous(), LAW.job_times(6, 0), None, path, training)
    params = ran.run(num_commits)
    header, epoch, *lines = path.read_text().splitlines()
    assert json.loads(epoch)["event"] == "epoch"  # it points into the file that is changed here
    note = {"command": as_note(Method(), SETTING, 10)}
    event = {"event": "evaluation", "version": 0, "time": 0.0, "metrics": {"accuracy": 0.1}}
    lines = [json.dumps(json.loads(header) | {"note": note}), json.dumps(event), *lines]
    path.write_text("".join(f"{line}\n" for line in lines))
    return params


def test_a_run_that_went_on_is_not_compared_with_what_it_was(tmp_path, capsys):
    params = virtual_run(tmp_path, 8)
    save_params(tmp_path, params, Recording.load(tmp_path))
    assert cli.main(["replay", str(tmp_path)]) == 0
    assert "largest difference of a parameter: " in capsys.readouterr().out
    virtual_run(tmp_path, 12)
    assert cli.main(["replay", str(tmp_path)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "params.npz is of commit 8, before the run went on: not compared" in printed
    save_params(tmp_path, params, Recording.load(tmp_path))  # those are not of commit 12
    assert cli.main(["replay", str(tmp_path)]) == 2
    assert "the replay is not the run: parameters differ by" in capsys.readouterr().err


def test_what_replay_refuses_of_a_run(tmp_path, capsys):
    params = virtual_run(tmp_path, 8)
    recording = Recording.load(tmp_path)

    def refused(message, *arguments):
        assert cli.main(["replay", str(tmp_path), *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len([line for line in error.splitlines() if "async-optax: error" in line]) == 1

    refused("learning_rate must be a finite number > 0, got 0.0", "--learning-rate", "0")
    save_params(tmp_path, jax.tree.map(lambda x: np.zeros((2, 2)), params), recording)
    refused("params.npz is of another model")
    save_params(tmp_path, params, recording)
    whole = (tmp_path / "params.npz").read_bytes()
    assert read_params(tmp_path).version == 8
    (tmp_path / "params.npz").write_bytes(whole[: len(whole) // 2])
    refused("params.npz is damaged (BadZipFile")
    np.savez(tmp_path / "params.npz", zzz=np.zeros(3))
    refused("params.npz is damaged (KeyError")

    path = tmp_path / "trace.jsonl"
    header, *lines = path.read_text().splitlines()
    note = as_note(Method(), SETTING, 10)
    for changes in (
        {"method": None},
        {"method": note["method"] | {"arguments": {"threshold": 1}}},
        {"method": note["method"] | {"zzz": 1}},
        {"method": note["method"] | {"learning_rate": "1"}},
        {"setting": note["setting"] | {"zzz": 1}},
        {"setting": note["setting"] | {"compression": "zzz"}},
        {"setting": note["setting"] | {"noise": {"model": "__class__", "tail": 1, "scale": 1}}},
        {"setting": note["setting"] | {"digits": {"hidden": [1.5], "batch_size": 1}}},
        {"evaluate_every": "10"},
    ):
        changed = json.loads(header) | {"note": {"command": note | changes}}
        path.write_text("\n".join([json.dumps(changed), *lines, ""]))
        refused("the note of the run is damaged (")
    path.write_text("\n".join([json.dumps(json.loads(header) | {"note": {}}), *lines, ""]))
    refused("is not a run of `async-optax train`")


def test_a_worker_that_never_delivered_leaves_a_gap_in_the_table(tmp_path):
    def shown(num_commits):
        path = tmp_path / f"{num_commits}.jsonl"
        VirtualRun(ao.protocols.asynchronous(), LAW.job_times(6, 0), None, path).run(num_commits)
        recording, protocol = Recording.load(path), ao.protocols.asynchronous()
        file = io.StringIO()
        predicted = COMMAND.predicted_timeline(recording, protocol)
        Console(file=file).print(COMMAND.staleness_table(recording.timeline, predicted))
        return table_of(file.getvalue())

    few, many = shown(2), shown(60)
    assert all(cell[1].strip() == "-" for row in few.values() for cell in row)
    assert int(few["all"][0][0]) == 2
    assert list(many) == ["all", "0", "1", "2", "3", "4", "5"]
    assert all(float(cell[1]) >= 0 for row in many.values() for cell in row)


def test_a_run_that_fails_says_why_in_one_line(tmp_path, capsys, monkeypatch):
    given = {}

    def fail(*arguments, **options):
        given.update(options)
        logging.getLogger("async_optax.distributed").warning("1 s: server %d goes on", 2)
        raise RuntimeError("the run stalls:\nall workers are in quarantine")

    monkeypatch.setattr(COMMAND, "train", fail)
    assert cli.main(["train", "--output", str(tmp_path)]) == 2
    said = "async-optax: 1 s: server 2 goes on\n"
    said += "async-optax: error: the run stalls: all workers are in quarantine\n"
    assert capsys.readouterr().err == said
    assert given["checkpoint_every"] == 5.0  # what is cut off goes on from a moment before
    assert cli.main(["train", "--checkpoint-every", "0.5", "--output", str(tmp_path)]) == 2
    assert given["checkpoint_every"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("replay no/such/run", "there is no trace no/such/run/trace.jsonl"),
        ("train --protocol buffered:8:wait", "waits for more workers than the 2 there are"),
        ("train --method asgd", "unknown method"),
        ("train --amount 0.5", "amount=0.5 needs a --compression"),
        ("train --arguments max_norm 1", "async_heavy_tailed does not take max_norm"),
        ("train --num-slow 3", "num_slow must be at most 2, the number of workers, got 3"),
        ("train --checkpoint-every -1", "checkpoint_every must be a finite number >= 0"),
    ],
)
def test_bad_input_is_one_line(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(shlex.split(arguments)) == 2
    error = capsys.readouterr().err
    assert error.startswith("async-optax: error: ")
    assert error.count("\n") == 1
    assert message in error
