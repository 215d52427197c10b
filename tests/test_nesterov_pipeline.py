"""The experiment on pipelines: its page against its results, its model, and its smoke test."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest

from experiments.nesterov_pipeline import config, model, run, tables, text

PAGE = (pathlib.Path(run.__file__).parent / "README.md").read_text()
SUMMARY = json.loads((tables.RESULTS / "cpu.json").read_text())


def test_the_page_shows_every_row():
    lines = PAGE.splitlines()
    rates = SUMMARY["preset"]["learning_rates"]
    rows = [tables.line(row, rates) for row in SUMMARY["rows"]]
    assert len(rows) >= 2 * 7
    assert {*rows, *tables.momentum_lines(SUMMARY)} <= {*lines}
    assert "(results/cpu.png)" in PAGE


def test_the_results_are_of_the_preset():
    as_data = json.loads(json.dumps(dataclasses.asdict(config.PRESETS["cpu"])))
    assert SUMMARY["preset"] == as_data
    assert len(as_data["seeds"]) == 3


def by_method(num_stages):
    rows = {r["method"]: r for r in SUMMARY["rows"] if r["num_stages"] == num_stages}
    return {name: row["perplexity"] for name, row in rows.items()}


@pytest.mark.parametrize("num_stages", [4, 8])
def test_nesterov_beats_other_asynchronous_pipelines_at_equal_updates(num_stages):
    perplexity = by_method(num_stages)
    assert perplexity["nesterov"] < perplexity["pipedream"]
    assert perplexity["nesterov"] < perplexity["pipemare"]


def test_the_transformer_does_not_look_ahead():
    layers = model.layers(2, width=8, num_heads=2, context=6, alphabet=5)
    made = text.Text(np.arange(50, dtype=np.uint8) % 5, np.arange(50, dtype=np.uint8) % 5, "abcde")
    sizes = {"context": 6, "batch_size": 3, "num_validated": 4}
    whole, halves = (model.problem(made, layers, n, **sizes) for n in (1, 2))
    params, together = (jax.jit(made.init)(jax.random.key(0)) for made in (halves, whole))
    jax.tree.map(np.testing.assert_array_equal, together[0], sum(params, ()))
    batch = jax.jit(halves.batch)(jax.random.key(1), 0)
    changed = batch | {"inputs": batch["inputs"].at[:, 4:].add(1) % 5}

    @jax.jit
    def output(x):
        for stage, weights in zip(halves.loss.stages, params, strict=True):
            x = stage.apply(weights, x, jax.random.key(0))
        return x

    outputs = [output(x) for x in (batch, changed)]
    np.testing.assert_allclose(outputs[0][:, :4], outputs[1][:, :4], atol=1e-6)
    assert np.abs(outputs[0][:, 4:] - outputs[1][:, 4:]).max() > 1e-3


def test_learning_rates_rise_and_fall():
    rates = [float(config.warmed_up_cosine(2.0, 100.0, t)) for t in range(101)]
    assert np.argmax(rates) in (5, 6)
    assert rates[5] == pytest.approx(2.0)
    assert rates[-1] == pytest.approx(0.2)
    assert 0 < rates[0] < 0.5


def test_gpipe_makes_fewer_updates_in_the_same_time():
    preset = config.PRESETS["cpu"]
    for num_stages, slower in ((4, 1.75), (8, 2.75)):
        assert preset.gpipe_updates(num_stages) == pytest.approx(preset.num_updates / slower, abs=1)


@pytest.mark.slow
def test_the_smoke_test_writes_everything(tmp_path, capsys, monkeypatch):
    # Each method is a program to compile; all of them run in the tests of pipelines.
    made = config.methods(30)
    assert {row["method"] for row in SUMMARY["rows"]} == {*made, config.GPIPE, config.GPIPE_IN_TIME}
    few = {name: make for name, make in made.items() if name in ("pipedream", "nesterov")}
    monkeypatch.setattr(config, "methods", lambda num_updates: few)
    run.main(["--preset", "smoke", "--output", str(tmp_path)])
    assert {path.name for path in tmp_path.iterdir()} == {"smoke.json", "smoke.png"}
    assert "| 2 | nesterov |" in capsys.readouterr().out


def test_bad_arguments_exit_with_code_two():
    with pytest.raises(SystemExit) as exit_info:
        run.main(["--preset", "smoke"])
    assert exit_info.value.code == 2
