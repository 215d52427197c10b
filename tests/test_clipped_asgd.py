"""The experiment on clipping and slow workers: its parts, its verdict, its page and a smoke run."""

import doctest
import importlib
import json

import jax
import numpy as np
import pytest

from experiments.clipped_asgd import config, measure, run, tables
from experiments.datasets import Images, grammar_text
from experiments.ledger import Ledger
from experiments.runner import described


def test_a_ledger_goes_on_after_a_kill(tmp_path):
    path = tmp_path / "runs.jsonl"
    ledger = Ledger(path)
    for seed in range(2):
        ledger.run({"seed": seed, "rate": 0.1}, lambda seed=seed: {"time": 2.0 * seed})
    with path.open("a") as file:
        file.write('{"run": {"rate": 0.1, "se')  # killed while it wrote
    again = Ledger(path)
    assert again.run({"rate": 0.1, "seed": 1}, dict) == {"time": 2.0}
    assert again.num_new == 0
    again.run({"rate": 0.1, "seed": 2}, lambda: {"time": None})
    assert len(Ledger(path)) == 3
    path.write_text("{}\n" + path.read_text())
    with pytest.raises(ValueError, match=r"runs.jsonl, line 1, is no entry of a ledger"):
        Ledger(path)


@pytest.mark.parametrize("name", ["ledger", "markdown", "runner"])
def test_examples_of_what_experiments_share(name):
    outcome = doctest.testmod(importlib.import_module(f"experiments.{name}"))
    assert outcome.attempted > 0
    assert outcome.failed == 0


@pytest.mark.parametrize("slowdown", [4, 8])
def test_ringmaster_rejects_what_slow_workers_deliver_and_nothing_else(slowdown):
    timeline = config.make_timeline("images", 60.0, config.RINGMASTER, slowdown, seed=0)
    slow = timeline.worker[~timeline.accepted]
    assert len(slow) == 8 * (60 // slowdown)
    assert len(set(slow.tolist())) == 8
    assert not set(slow.tolist()) & set(timeline.worker[timeline.accepted].tolist())
    # Any bound in between does the same.
    assert timeline.staleness[timeline.accepted].max() < config.BOUND
    assert timeline.staleness[~timeline.accepted].min() >= 24


@pytest.mark.parametrize("name", ["cpu", "cpu-real", "gpu"])
def test_presets_fit_together(name):
    pixels = np.zeros((200, 32, 32, 3), np.uint8)
    images = Images(pixels, np.arange(200, dtype=np.int32) % 10, pixels[:10], np.arange(10) * 1)
    preset = config.PRESETS[name]
    for task_name, task in preset.tasks.items():
        assert set(task.horizons) == set(preset.slowdowns)
        data = grammar_text(4000) if task.model == "lstm" else images
        if task_name == config.FEDERATED:  # enough images for all workers
            data = Images(*(np.repeat(x, 100, axis=0) for x in images))
        problem = config.make_problem(task_name, task, data)
        params = jax.eval_shape(problem.init, jax.random.key(0))
        assert task.metric in jax.eval_shape(problem.evaluate, params)


def found(**times):
    """Methods with times on three fresh seeds; ``None`` is never."""
    return {
        name: {
            "points": [{"extra": 1, "learning_rate": 0.1, "times": list(of), "diverged": 0}],
            "best": {"extra": 1, "learning_rate": 0.1, "times": [10.0, 20.0, 30.0], "diverged": 0},
            "fresh_times": list(of),
            "curves": [],
        }
        for name, of in times.items()
    }


def test_speed_ups_are_of_fresh_seeds_and_by_seed():
    methods = found(vanilla=(20.0, 40.0, 60.0), ring=(20.0, None, 50.0), clipped=(10.0, 20.0, 60.0))
    methods["Ringmaster"] = methods.pop("ring")
    methods["delay-adaptive"] = methods["clipped"] | {"best": None}
    setting = {"task": "images", "slowdown": 4, "horizon": 80.0, "methods": methods}
    vanilla, ringmaster = tables.claims({"settings": {"images, D = 4": setting}})
    assert vanilla["by_seed"] == [2.0, 2.0, 1.0]
    assert (vanilla["chosen"], vanilla["published"]) == (1.0, 1.8)
    assert vanilla["fresh"] == pytest.approx(120 / 90)
    assert not vanilla["holds"]
    assert ringmaster["bounded"]
    assert ringmaster["by_seed"] == [2.0, 4.0, 50 / 60]


def test_the_best_point_reaches_the_target_on_all_seeds():
    times = ([5.0, None], [9.0, 11.0], [8.0], [10.0, 9.0])
    points = [{"learning_rate": i, "times": of} for i, of in enumerate(times)]
    assert measure.best_point(points, 2)["learning_rate"] == 3
    assert measure.best_point(points[:1], 2) is None


SUMMARY = tables.stored("cpu")


def test_the_page_shows_what_was_measured():
    lines = (tables.RESULTS.parent / "README.md").read_text().splitlines()
    shown = {*tables.claim_lines(SUMMARY), *tables.result_lines(SUMMARY)}
    assert len(shown) == 4 + 18 + 24
    assert shown <= {*lines}
    assert SUMMARY["preset"] == described(config.PRESETS["cpu"])


def test_clipping_is_sooner_on_text_and_than_vanilla_on_images():
    claims = {(claim["setting"], claim["over"]): claim for claim in tables.claims(SUMMARY)}
    for slowdown in (4, 8):
        for method in config.METHODS[:-1]:
            claim = claims[f"text, D = {slowdown}", method]
            assert claim["holds"]
            assert claim["fresh"] > 1.25
        assert claims[f"images, D = {slowdown}", config.VANILLA]["holds"]
    # And what the page says does not hold.
    assert not claims["images, D = 4", config.ADAPTIVE]["holds"]
    assert not claims["federated, D = 4", config.VANILLA]["holds"]


@pytest.mark.slow
def test_the_smoke_run_ends(tmp_path, capsys):
    arguments = ["--preset", "smoke", "--output", str(tmp_path)]
    run.main([*arguments, "--ledger", str(tmp_path / "runs.jsonl")])
    summary = json.loads((tmp_path / "smoke.json").read_text())
    shown = capsys.readouterr().out
    assert set(summary["settings"]) == {"images, D = 4"}
    assert "| images, D = 4 | vanilla | 1.8 |" in shown
    assert "| images, D = 4 | delay-adaptive | 0." in shown
    for kind in ("curves", "rates", "speedups"):
        assert (tmp_path / f"smoke-{kind}.png").stat().st_size > 10_000
        assert (tmp_path / f"smoke-{kind}.pdf").stat().st_size > 2_000


def test_bad_calls_end_in_one_line(capsys):
    for arguments, message in (
        (["--preset", "smoke"], "needs an --output of its own"),
        (["--preset", "cpu-real", "--tasks", "federated"], "--tasks must be some of images, text"),
    ):
        with pytest.raises(SystemExit):
            run.main(arguments)
        assert message in capsys.readouterr().err
