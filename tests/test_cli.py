"""The command line: what it prints, what it writes, how it refuses."""

import json
import os
import shlex
import subprocess
import sys

import pytest

from async_optax import cli, optimizers, protocols, report, runtimes
from async_optax.cli.protocols import FORMS, parse_protocol
from async_optax.cli.setting import Runtimes

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
    assert "buffered_wait" in printed
    for form in FORMS.values():
        assert form.usage in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-workers", "0"], "num_workers must be an integer >= 1, got 0"),
        (["--protocols", "buffered_wait", "--buffer-size", "5"], "size must be <= num_workers"),
        (["--methods", "clipd_sgd"], "unknown method 'clipd_sgd'; nearest: clipped_sgd"),
        (["--protocols", "async"], "unknown protocol 'async'; nearest: asynchronous"),
        (["--protocols", "rennala"], "protocol 'rennala': batch_size is missing; the form is"),
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


PARSED = {
    "synchronous": protocols.synchronous(),
    "synchronous:2": protocols.synchronous(backup=2),
    "asynchronous": protocols.asynchronous(),
    "asynchronous:uniform": protocols.asynchronous("uniform"),
    "asynchronous:shuffled:8": protocols.asynchronous("shuffled", 8),
    "buffered:8": protocols.buffered(8),
    "buffered:8:wait": protocols.buffered(8, wait=True),
    "buffered": protocols.buffered(3),
    "buffered_wait": protocols.buffered(3, wait=True),
    "softsync:2": protocols.softsync(2),
    "bounded_staleness:4": protocols.bounded_staleness(4),
    "rennala:8": protocols.rennala(8),
    "rennala:8:nostop": protocols.rennala(8, stop=False),
    "ringmaster:16": protocols.ringmaster(16),
    "ringmaster:16:stop": protocols.ringmaster(16, stop=True),
    "mindflayer:2.5": protocols.mindflayer(2.5),
    "token_control:16:2": protocols.token_control(16, 2),
    "token_control:16": protocols.token_control(16),
    "round_robin": protocols.round_robin(),
}


@pytest.mark.parametrize("text", PARSED)
def test_protocols_are_understood(text):
    assert parse_protocol(text, buffer_size=3) == PARSED[text]


def test_every_protocol_but_switching_has_a_string_form():
    factories = {name for name in protocols.__all__ if name.islower()}
    assert set(FORMS) == factories - {"switching"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("async", "unknown protocol 'async'; nearest: asynchronous"),
        ("renala:8", "unknown protocol 'renala'; nearest: rennala:BATCH"),
        ("switching", "switching has no form in text"),
        ("buffered", "size is missing; the form is buffered:SIZE[:wait]"),
        ("buffered_wait", "unknown protocol 'buffered_wait'; nearest: buffered"),
        ("buffered:8:weit", "'weit' is one too many"),
        ("buffered:many", "'many' is not an integer (or wait)"),
        ("buffered:0", "protocol 'buffered:0': size must be an integer >= 1, got 0"),
        ("mindflayer:x", "'x' is not a number"),
        ("round_robin:", "'' is one too many; the form is round_robin"),
        ("asynchronous:4", "concurrency=4 needs assignment="),
        ("", "unknown protocol ''; nearest: synchronous[:BACKUP], asynchronous[:"),
    ],
)
def test_protocols_that_are_not_understood(text, message):
    with pytest.raises(ValueError, match="protocol") as error:
        parse_protocol(text)
    assert message in str(error.value)


def test_every_runtime_model_is_offered():
    models = Runtimes.__annotations__["model"].__args__
    assert set(models) == {name for name in runtimes.__all__ if name.islower()} - {"empirical"}
    for model in models:
        assert Runtimes(model=model).make().name.startswith(model)
    staged = Runtimes(download=0.5, upload=0.2, server=0.1).make()
    assert staged.name.endswith(
        ".with_transfers(download=exponential(mean=0.5), upload=exponential(mean=0.2))"
        ".with_server(deterministic(0.1))"
    )


@pytest.fixture
def trace(tmp_path):
    rows = [
        f"{name},{k * time},{(k + 1) * time}"
        for name, time in (("a", 1), ("b", 4))
        for k in range(9)
    ]
    path = tmp_path / "times.csv"
    path.write_text("\n".join(["worker,start,finish", *rows]) + "\n")
    return path


FILES = ["comparison.png", "staleness.png", "summary.json", "timelines.png", "utilisation.png"]


def test_cluster_compares_protocols_on_a_trace(trace, tmp_path, capsys):
    output = tmp_path / "out"
    arguments = ["--trace", str(trace), "--max-time", "40", "--output", str(output)]
    assert cli.main(["cluster", *arguments]) == 0
    printed = capsys.readouterr()
    assert "slowest b (4, 4 times as long)" in printed.out
    assert "asynchronous computes 2.5 times as many gradients" in printed.out
    assert "protocols" in printed.err
    assert sorted(path.name for path in output.iterdir()) == FILES
    summary = json.loads((output / "summary.json").read_text())
    assert summary["setting"]["num_workers"] == 2
    assert summary["trace"]["computing"] == (9 + 36) / 72
    rows = {row["protocol"]: row for row in summary["rows"]}
    assert rows["synchronous"]["gradients_lost_to_waiting"] == 30
    assert rows["asynchronous"]["throughput"] == 1.25


def test_cluster_compares_protocols_on_a_model(tmp_path, capsys):
    arguments = "--runtimes.model exponential --runtimes.upload 0.2 --num-workers 3 --protocols"
    arguments += f" synchronous:1 rennala:3:nostop buffered:9:wait --output {tmp_path}"
    assert cli.main(["cluster", *arguments.split()]) == 0
    printed = capsys.readouterr().out
    assert "about 200 jobs of the median worker" in printed
    assert "buffered(9, wait=True) does not run: buffered(size=9" in printed
    rows = json.loads((tmp_path / "summary.json").read_text())["rows"]
    assert [row["protocol"] for row in rows][:2] == [
        "synchronous(backup=1)",
        "rennala(3, stop=False)",
    ]


def test_a_pooled_trace_serves_any_number_of_workers(trace, tmp_path):
    arguments = ["--pooled", "--num-workers", "5", "--protocols", "asynchronous"]
    assert cli.main(["cluster", "--trace", str(trace), *arguments, "--output", str(tmp_path)]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["setting"]["num_workers"] == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--trace {}/none.csv", "none.csv"),
        ("--trace {}/times.csv --num-workers 3", "num_workers must be 2, as in the trace, got 3"),
        ("--trace {}/times.csv --runtimes.model gamma", "give either --trace or --runtimes"),
        ("--trace {}/faulty.csv", "faulty rows, 1 in all"),
        ("--pooled", "--pooled needs a --trace"),
        ("--num-workers 0", "num_workers must be an integer >= 1, got 0"),
        ("--num-workers 2 --protocols softsync:5", "none of the protocols runs"),
        ("--protocols asynchron", "nearest: asynchronous"),
        ("--max-time 1e9", "at most 1e+06 are allowed"),
        ("--max-time -1", "max_time must be a finite number > 0, got -1.0"),
        ("--seed -1", "seed must be an integer >= 0, got -1"),
        ("--runtimes.server -1", "--runtimes: server must be a finite number >= 0"),
    ],
)
def test_bad_clusters_are_one_line_and_exit_code_two(arguments, message, trace, tmp_path, capsys):
    (tmp_path / "faulty.csv").write_text("worker,start,finish\na,2,1\n")
    output = tmp_path / "out"
    given = arguments.format(tmp_path).split()
    assert cli.main(["cluster", *given, "--output", str(output)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("async-optax: error: ")
    assert message in error
    assert not output.exists() or not list(output.iterdir())


def test_the_module_runs():
    command = [sys.executable, "-m", "async_optax.cli", "protocols"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "round_robin" in run.stdout
