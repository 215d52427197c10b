"""The command line: what it prints, what it writes, how it refuses."""

import json
import os
import shlex
import subprocess
import sys

import pytest

from async_optax import cli, optimizers, report

FAST = shlex.split(
    "run --methods sgd async_heavy_tailed --protocols synchronous buffered_wait "
    "--arguments threshold 0.05 weight_fn polynomial:0.5 --digits.hidden 8 "
    "--num-workers 4 --buffer-size 2 --max-time 40 --learning-rates 0.5 0.25 --seeds 0 "
    "--target 0.3 --num-evaluations 10"
)


def test_run_prints_a_table_and_writes_whole_files(tmp_path, capsys):
    output = tmp_path / "new" / "folder"
    assert cli.main([*FAST, "--output", str(output)]) == 0
    printed = capsys.readouterr()
    assert "async_heavy_tailed" in printed.out
    assert "buffered(2, wait=True)" in printed.out
    assert "4/4" not in printed.out  # progress goes to stderr
    assert sorted(p.name for p in output.iterdir()) == [
        "accuracy.png",
        "robustness.png",
        "summary.json",
        "timelines.png",
    ]
    rows = json.loads((output / "summary.json").read_text())["rows"]
    assert len(rows) == 4
    keys = {"method", "protocol", "learning_rate", "final_accuracy", "time_to_target", "speedup"}
    assert keys <= set(rows[0])


def test_methods_and_protocols_are_listed(capsys):
    assert cli.main(["methods"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in optimizers.names())
    assert cli.main(["methods", "--markdown"]) == 0
    assert capsys.readouterr().out == report.methods_page()
    assert cli.main(["protocols"]) == 0
    printed = capsys.readouterr().out
    for name in ("synchronous", "asynchronous", "buffered", "buffered_wait"):
        assert name in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-workers", "0"], "num_workers must be an integer >= 1, got 0"),
        (["--protocols", "buffered_wait", "--buffer-size", "5"], "size must be <= num_workers"),
        (["--methods", "clipd_sgd"], "unknown method 'clipd_sgd'; nearest: clipped_sgd"),
        (["--protocols", "async"], "unknown protocol 'async'; nearest: asynchronous"),
        (["--learning-rates", "0"], "learning_rate must be a finite number > 0, got 0.0"),
        (["--learning-rates", "nan"], "learning_rate must be a finite number > 0, got nan"),
        (["--seeds", "-1"], "seed must be an integer >= 0, got -1"),
        (["--seeds", "99999999999999999999"], "seed must be an integer >= 0 and < 2**31"),
        (["--protocols", "synchronous", "synchronous"], "entrants must differ"),
        (["--arguments", "weight_fn", "hinge:a"], "weight 'hinge:a'"),
        (["--num-workers", "100000000000"], "num_workers must be a finite number <= 100000"),
        (["--num-evaluations", "100000000000"], "num_evaluations must be"),
        (["--methods", "sgd", "sgd", "async_heavy_tailed"], "entrants must differ"),
        (["--target", "1.01"], "target must be"),
        (["--max-time", "0.001"], "nothing arrives before max_time"),
        (["--arguments", "treshold", "1"], "no chosen method takes treshold"),
        (["--arguments", "weight_fn", "polynomal"], "unknown weight 'polynomal'; nearest: poly"),
        (["--arguments", "weight_fn", "inverse:3"], "weight 'inverse:3'"),
        (
            ["--methods", "gba", "--arguments", "server", "clip"],
            "server must name an optimizer of Optax such as adam, got 'clip'",
        ),
        (["--arguments", "clipping", "l3"], "clipping must be one of"),
        (["--noise.tail", "3"], "alpha must be"),
        (["--runtimes.slow-factor", "0.5"], "slow_factor must be"),
        (["--digits.batch-size", "0"], "batch_size must be"),
        (["--output", "/proc/results"], "cannot write to the results folder /proc/results"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(arguments, message, tmp_path, capsys):
    output = [] if "--output" in arguments else ["--output", str(tmp_path / "out")]
    assert cli.main([*FAST, *output, *arguments]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("async-optax: error: ")
    assert message in errors[0]
    out = tmp_path / "out"
    assert not out.exists() or not list(out.iterdir())


def test_booleans_and_optimizers_are_understood(tmp_path):
    """Both methods need more than numbers; ``False`` must not be a true string."""
    arguments = "--methods gba adadelay --arguments server adam per_coordinate False"
    output = ["--learning-rates", "0.05", "--target", "0.2", "--output", str(tmp_path)]
    assert cli.main([*FAST, *arguments.split(), *output]) == 0
    rows = json.loads((tmp_path / "summary.json").read_text())["rows"]
    given = [list(row["arguments"].values()) for row in rows if row["protocol"] == "synchronous"]
    assert given == [["adam"], [False]]


def test_a_target_never_reached_is_an_error_after_the_results_are_saved(tmp_path, capsys):
    assert cli.main([*FAST, "--target", "1", "--output", str(tmp_path)]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "no run reached the target accuracy 1 (best mean: 0." in message
    rows = json.loads((tmp_path / "summary.json").read_text())["rows"]
    assert all(row["time_to_target"] is None and row["speedup"] is None for row in rows)


def test_unparsable_arguments_exit_with_code_two(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["run", "--num-workers", "many"])
    assert exit_.value.code == 2
    assert "num-workers" in capsys.readouterr().err


def test_without_the_extra_the_error_says_what_to_install():
    code = "import sys; sys.modules['tyro'] = None; import async_optax.cli"
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert "pip install 'async_optax[experiments]'" in run.stderr
