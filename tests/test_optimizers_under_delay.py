"""The experiment on optimizers under delay: its delays, its verdicts and a smoke run."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import async_optax as ao
from experiments.datasets import grammar_text
from experiments.ledger import Ledger
from experiments.optimizers_under_delay import config, measure, run, tables
from experiments.optimizers_under_delay.config import Delay
from experiments.runner import described

SMALL = config.PRESETS["smoke"]


def test_timelines_of_all_uniform_delays_hold_as_many_versions():
    preset = config.PRESETS["cpu"]
    slots = set()
    for delay in preset.delays:
        timeline = config.make_timeline(preset, delay)
        if not delay.by_stage:
            counted = timeline.staleness[: preset.num_updates]
            assert counted[delay.most :].tolist() == [delay.most] * (700 - delay.most)
            slots.add(ao.engine.plan.compile_timeline(timeline, False).num_slots)
    assert len(slots) == 1


def keeps_types(preset, params, optimizer, remedy, delay):
    delays = config.stage_delays(delay, preset.num_layers)
    tx = config.under_delay(0.1, optimizer, remedy, 100.0, 1.0, 8.0, delays)

    def step(state, params):
        return tx.update(params, state, params, staleness=8, stale_params=params)

    state = jax.eval_shape(tx.init, params)
    updates, after = jax.eval_shape(step, state, params)
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, params)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)


def test_every_optimizer_takes_every_remedy():
    for preset in (SMALL, config.PRESETS["gpu"]):
        problem = config.make_problem(preset, grammar_text(4000))
        params = jax.eval_shape(problem.init, jax.random.key(0))
        assert len(params) == preset.num_layers
        for optimizer in config.OPTIMIZERS:
            whole = preset is SMALL and optimizer != config.MUON
            for remedy in config.REMEDIES if whole else (config.LOOK_AHEAD,):
                keeps_types(preset, params, optimizer, remedy, Delay(8))
        keeps_types(preset, params, config.ADAM, config.LOOK_AHEAD, Delay(8, by_stage=True))
    keeps_types(SMALL, params[:2], config.MUON, config.COMPENSATION, Delay(8, by_stage=True))


def test_stages_that_are_all_as_late_are_a_uniform_delay():
    preset = dataclasses.replace(SMALL, delays=(Delay(2),), num_updates=12)
    problem = config.make_problem(preset, grammar_text(2000))
    arguments = (0.5, config.SGD, config.NONE, 12.0, 0.0, 2.0)
    uniform, staged = (config.under_delay(*arguments, delays) for delays in (None, (2, 2)))
    key = jax.random.key(0)
    expected = ao.simulate(
        problem,
        uniform,
        ao.Timeline.from_staleness(np.minimum(np.arange(12), 2)),
        key=key,
        lanes=1,
    )
    result = ao.simulate(
        problem,
        staged,
        config.make_timeline(preset, Delay(2, by_stage=True)),
        key=key,
        lanes=1,
        worker=ao.pipeline.gradient(),
    )
    np.testing.assert_allclose(result.arrivals["loss"], expected.arrivals["loss"], rtol=1e-4)
    assert abs(result.arrivals["loss"][-1] - result.arrivals["loss"][0]) > 0.1


class Parabola(measure.Bench):
    """A bench whose best learning rate is known."""

    def __init__(self):
        self.preset, self.tried = SMALL, []

    def run(self, name, delay, remedy, extra, rate, seed):
        self.tried.append(rate)
        return {"loss": min(abs(np.log2(rate) - 3), 2.5)}  # further away all diverge


@pytest.mark.parametrize("start", [2.0, 8.0, 128.0])
def test_the_search_ends_with_the_best_rate_inside(start):
    bench = Parabola()
    found = bench.searched(config.SGD, Delay(0), config.NONE, 0.0, start)
    assert min(found, key=found.get) == 8.0
    assert min(found) < 8.0 < max(found)
    assert len(bench.tried) == len(set(bench.tried))


def test_a_search_that_leads_too_far_ends():
    assert len(Parabola().searched(config.SGD, Delay(0), config.NONE, 0.0, 2.0**20)) == 8


def row(optimizer, delay, losses, remedy=config.NONE, **others):
    found = {"optimizer": optimizer, "delay": delay, "remedy": remedy, "losses": losses}
    found |= {"learning_rate": 0.1, "at_edge": False, "extra": 0.0, "by_rate": [[0.1, 2.5]]}
    return found | {"by_extra": [[0.0, 2.5]]} | others


def test_costs_ratios_and_verdicts():
    compensated = {"remedy": config.COMPENSATION, "extra": 100.0}
    compensated["by_extra"] = [[1.0, 2.499], [100.0, 2.3]]
    rows = [
        row("Adam", "uniform 0", [1.0, 1.2]),
        row("Adam", "uniform 4", [1.5, 1.7]),
        row("Adam", "uniform 8", [2.0, 2.4]),
        row("Adam", "stages 8..0", [1.4, 1.6]),
        row("Muon", "uniform 0", [0.9, 0.9]),
        row("Muon", "uniform 4", [1.0, 1.1]),
        row("Muon", "uniform 8", [1.4, 1.3]),
        row("Muon", "stages 8..0", [1.1, 1.1]),
        row("Adam", "uniform 8", [1.8, 2.1], **compensated),
        row("Muon", "uniform 8", [1.5, 1.2], **compensated),
    ]
    preset = {"optimizers": ["Adam", "Muon"], "remedies": [config.COMPENSATION]}
    summary = {"preset": preset, "rows": rows}
    np.testing.assert_allclose(tables.cost(summary, "Adam", "uniform 8"), [1.0, 1.2])
    adam, muon = tables.pipeline_ratios(summary)
    assert adam["same_most"] == pytest.approx(1.1 / 0.4)
    assert muon["same_mean"] == pytest.approx(0.15 / 0.2)
    by_delay = {found["delay"]: found for found in tables.robustness(summary)}
    assert by_delay["uniform 8"]["ratio"] == pytest.approx(1.1 / 0.45)
    for_adam, for_muon = tables.remedies(summary)
    assert (for_adam["verdict"], for_muon["verdict"]) == ("better", "no")
    assert for_adam["healed"] == pytest.approx(0.25 / 1.1)
    assert tables.strengths(summary)[0]["gains"] == {"1": 0.001, "100": 0.2}
    shown = tables.tables(summary)
    assert "| uniform 8 | Adam | +0.250 ± 0.071 (100) + |" in shown


SUMMARY = tables.stored("cpu")


def test_the_page_shows_what_was_measured():
    page = (tables.RESULTS.parent / "README.md").read_text().splitlines()
    shown = [line for line in tables.tables(SUMMARY).splitlines() if line]
    assert [line for line in page if line.startswith("|")] == shown
    assert SUMMARY["preset"] == described(config.PRESETS["cpu"])
    assert not any(found["at_edge"] for found in SUMMARY["rows"])


def test_muon_is_more_robust_than_adam_at_a_delay_of_one_and_hardly_beyond():
    first, *others = tables.robustness(SUMMARY)
    assert first["delay"] == "uniform 1"
    assert min(first["by_seed"]) > 1.7
    assert all(1 < found["ratio"] < 1.3 for found in others)


def test_a_uniform_delay_overstates_a_pipelines_cost_but_not_three_times():
    ratios = [found["same_most"] for found in tables.pipeline_ratios(SUMMARY)]
    assert len(ratios) == 10
    assert all(1.1 < ratio < 2.5 for ratio in ratios)


def test_what_helps_and_what_does_not():
    judged = {(r["delay"], r["optimizer"], r["remedy"]): r for r in tables.remedies(SUMMARY)}
    normalising = (config.ADAM, config.ADAMW, config.LION, config.MUON)
    for optimizer in normalising:
        for delay in ("uniform 8", "stages 8..0"):
            assert judged[delay, optimizer, config.LOOK_AHEAD]["verdict"] == "better"
        compensated = judged["uniform 8", optimizer, config.COMPENSATION]
        assert compensated["verdict"] == "better"
        assert 1000 <= compensated["extra"] <= 10_000
    for found in tables.strengths(SUMMARY):
        if found["optimizer"] in normalising:
            assert abs(found["gains"]["1"]) < 0.0025
    assert judged["uniform 8", config.SGD, config.COMPENSATION]["verdict"] == "worse"
    assert max(found["healed"] for found in judged.values()) < 0.42


@pytest.mark.slow
def test_the_smoke_run_ends(tmp_path, capsys):
    arguments = ["--preset", "smoke", "--output", str(tmp_path)]
    ledger = tmp_path / "runs.jsonl"
    run.EXPERIMENT.main([*arguments, "--ledger", str(ledger)])
    summary = json.loads((tmp_path / "smoke.json").read_text())
    assert len(summary["rows"]) == 3
    assert summary["runs"] == len(Ledger(ledger))
    assert all(0 < loss < 4 for found in summary["rows"] for loss in found["losses"])
    assert "| stages 2..0 | Adam |" in capsys.readouterr().out
    for kind in ("delays", "rates", "remedies"):
        assert (tmp_path / f"smoke-{kind}.png").stat().st_size > 10_000
        assert (tmp_path / f"smoke-{kind}.pdf").stat().st_size > 2_000
