"""The advice as tables and pictures, and the command."""

import json

import pytest

from async_optax import cli
from async_optax.report.advice import equivalent_staleness
from async_optax.theory import stability_limit

FAST = [
    "advise",
    "--digits.hidden",
    "4",
    "--num-workers",
    "4",
    "--max-time",
    "40",
    "--warm-up-steps",
    "200",
    "--num-samples",
    "200",
    "--protocols",
    "asynchronous",
    "rennala:4",
]


def test_equivalent_staleness_inverts_the_limit():
    for staleness in (0, 1, 5, 40):
        limit = float(stability_limit(staleness))
        assert equivalent_staleness(limit) == pytest.approx(staleness, abs=1e-6)
    assert equivalent_staleness(7.0) == 0


def test_the_command_prints_advice_and_writes_whole_files(tmp_path, capsys):
    output = tmp_path / "new" / "folder"
    assert cli.main([*FAST, "--learning-rate", "100", "--output", str(output)]) == 0
    printed = capsys.readouterr()
    for text in ("curvature", "asynchronous", "rennala(4)", "your rate", "cannot tell", "wrote"):
        assert text in printed.out
    assert "too large" in printed.out
    assert "measuring" not in printed.out  # progress goes to stderr
    assert sorted(path.name for path in output.iterdir()) == ["advice.json", "advice.png"]
    data = json.loads((output / "advice.json").read_text())
    assert data["setting"]["problem"] == "digits"
    assert [row["protocol"] for row in data["protocols"]] == [
        "synchronous",
        "asynchronous",
        "rennala(4)",
    ]
    assert data["own_rate"] == 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-workers", "0"], "num_workers must be an integer >= 1, got 0"),
        (["--protocols", "async"], "unknown protocol 'async'; nearest: asynchronous"),
        (["--warm-up-steps", "5"], "warm_up_steps must be an integer >= 200, got 5"),
        (["--num-samples", "5"], "num_samples must be an integer >= 200, got 5"),
        (["--learning-rate", "-1"], "learning_rate must be a finite number > 0, got -1.0"),
        (["--max-time", "0.001"], "none of the protocols runs"),
        (["--noise.model", "alpha_stable", "--noise.tail", "3"], "--noise: alpha must be"),
        (["--runtimes.slow-factor", "0.5"], "--runtimes: slow_factor must be"),
        (["--digits.batch-size", "0"], "--digits: batch_size must be"),
        (["--pooled"], "--pooled needs a --trace"),
        (["--trace", "missing.csv"], "missing.csv"),
        (["--output", "/proc/results"], "cannot write to the results folder /proc/results"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(arguments, message, tmp_path, capsys):
    output = [] if "--output" in arguments else ["--output", str(tmp_path / "out")]
    assert cli.main([*FAST, *output, *arguments]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert errors[-1].startswith("async-optax: error: ")
    assert message in errors[-1]
    out = tmp_path / "out"
    assert not out.exists() or not list(out.iterdir())
