"""The commands ``train`` and ``replay``: digits to the demo's target, for real and again."""

import shlex

import pytest

from async_optax import cli

TRAIN = "train --num-workers 2 --num-commits 300 --digits.hidden 32 --output"


def test_real_workers_reach_the_target_and_replay_tells_what_if(ray, tmp_path, capsys):
    run = str(tmp_path / "run")
    train = shlex.split(TRAIN.replace("--digits", "--setting.digits"))
    assert cli.main([*train, run]) == 0
    printed = capsys.readouterr().out
    assert "accuracy 0.8 reached at commit" in printed
    assert "300 commits in" in printed
    # At most 10 % from what the simulation predicts of the measured times.
    line = next(line for line in printed.splitlines() if line.startswith("staleness"))
    mean, predicted = (float(text.split()[-1]) for text in line.split(")")[0].split("(")[0:2])
    assert mean == pytest.approx(predicted, rel=0.1)
    assert list((tmp_path / "run" / "metrics").glob("events.out.tfevents.*"))

    assert cli.main(["replay", run]) == 0
    printed = capsys.readouterr().out
    assert "replayed: async_heavy_tailed(0.25)" in printed
    difference = float(printed.split("difference of a parameter: ")[1].split(",")[0])
    assert difference < 1e-4
    assert cli.main(["replay", run, "--method", "sgd", "--protocol", "synchronous"]) == 0
    printed = capsys.readouterr().out
    assert "synchronous, simulated: sgd(0.25)" in printed
    assert "difference of a parameter" not in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("replay no/such/run", "there is no trace no/such/run/trace.jsonl"),
        ("train --protocol buffered:8:wait", "waits for more workers than the 2 there are"),
        ("train --method.method asgd", "unknown method"),
        ("train --setting.amount 0.5", "amount=0.5 needs a --setting.compression"),
        ("train --method.arguments max_norm 1", "async_heavy_tailed does not take max_norm"),
    ],
)
def test_bad_input_is_one_line(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(shlex.split(arguments)) == 2
    error = capsys.readouterr().err
    assert error.startswith("async-optax: error: ")
    assert error.count("\n") == 1
    assert message in error
