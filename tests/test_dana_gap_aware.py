"""The experiment on momentum over numbers of workers: its methods, its verdict and a smoke run."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.dana_gap_aware import config, run, tables
from experiments.datasets import Images


def test_the_learning_rate_warms_up_and_falls_twice():
    steps = jnp.array([0.0, 25.0, 50.0, 799.0, 800.0, 1199.0, 1200.0, 1599.0])
    rates = jax.vmap(lambda step: config.warmed_up_steps(0.8, 1 / 8, 1600.0, step))(steps)
    expected = [0.1, 0.45, 0.8, 0.8, 0.08, 0.08, 0.008, 0.008]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_staleness_aware_is_nesterov_on_divided_gradients():
    tx = config.METHODS[config.STALENESS](0.1, 4)
    plain = optax.sgd(0.1, config.MOMENTUM, nesterov=True)
    params = jnp.array([1.0, -2.0])
    state, expected_state = tx.init(params), plain.init(params)
    for staleness in (0, 5, 2):
        gradient = params * (1 + staleness)
        updates, state = tx.update(gradient, state, params, staleness=staleness)
        expected, expected_state = plain.update(gradient / max(staleness, 1), expected_state)
        np.testing.assert_allclose(updates, expected, rtol=1e-6)


@pytest.mark.parametrize("method", config.METHODS)
def test_methods_keep_the_types_of_their_state(method):
    preset = config.PRESETS["gpu"]
    tx = config.make_optimizer(preset, method, 0.1, num_workers=4)
    params = {"kernel": jnp.ones((3, 2))}

    def step(state, worker):
        extra = {"staleness": 1, "stale_params": params, "worker": worker}
        return tx.update(params, state, params, **extra)[1]

    before = jax.eval_shape(tx.init, params)
    after = jax.eval_shape(step, before, jax.ShapeDtypeStruct((), jnp.int32))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), before) == jax.tree.map(
        lambda x: (x.shape, x.dtype), after
    )


def test_presets_fit_together():
    pixels = np.zeros((20, 32, 32, 3), np.uint8)
    images = Images(pixels, np.arange(20, dtype=np.int32) % 10, pixels[:10], np.arange(10) * 1)
    for preset in config.PRESETS.values():
        problem = config.make_problem(preset, images)
        params = jax.eval_shape(problem.init, jax.random.key(0))
        assert "accuracy" in jax.eval_shape(problem.evaluate, params)


def test_machines_are_as_unlike_as_in_the_papers():
    same, unlike = (config.make_timeline(kind, 4000, 64, seed=0) for kind in config.MACHINES)
    counts = [np.bincount(t.worker, minlength=64) for t in (same, unlike)]
    assert counts[0].std() / counts[0].mean() < 0.05
    assert counts[1].std() / counts[1].mean() > 0.5
    assert same.staleness[1000:].mean() == pytest.approx(63, abs=0.5)


def method(*by_rate):
    """What was measured: accuracy by rate and seed."""
    accuracy = [list(of_rate) for of_rate in by_rate]
    gap = [[0.001] * 8 for _ in by_rate]
    return {"accuracy": accuracy, "diverged": 0, "staleness": 3.0, "gap": gap}


def test_the_verdict_is_by_seed_at_both_choices_of_rates():
    methods = {
        config.NAG: method((0.5, 0.6), (0.7, 0.8)),
        config.MULTI: method((0.6, 0.65), (0.75, 0.8)),
        config.DANA: method((0.55, 0.64), (0.9, 0.9)),
    }
    summary = {
        "preset": {"num_workers": [4], "learning_rates": [0.1, 0.2], "methods": list(methods)},
        "alone": method((0.9, 0.9), (0.8, 0.8)),
        "settings": {config.SAME: {"4": methods}},
    }
    judged = {(c["rates"], c["first"]): c for c in tables.claims(summary)}
    assert len(judged) == 4
    multi = judged[tables.ALONE, config.MULTI]
    np.testing.assert_allclose(multi["gain"], [0.1, 0.05])
    assert multi["verdict"] == "better"
    assert judged[tables.ALONE, config.DANA]["verdict"] == "worse"
    assert judged[tables.OWN, config.MULTI]["verdict"] == "no"
    shown = tables.tables(summary)
    assert "| its own best rate | same machines | DANA | 90.0 ± 0.0 (0.2*) |" in shown


@pytest.mark.slow
def test_the_smoke_run_ends(tmp_path, capsys):
    arguments = ["--preset", "smoke", "--output", str(tmp_path)]
    run.main([*arguments, "--ledger", str(tmp_path / "runs.jsonl")])
    summary = json.loads((tmp_path / "smoke.json").read_text())
    (found,) = summary["settings"][config.UNLIKE].values()
    assert np.array(found[config.NAG]["accuracy"]).shape == (2, 2)
    assert np.array(found[config.DANA_GAP]["gap"]).shape == (2, 20)
    assert found[config.NAG]["staleness"] == pytest.approx(3, abs=0.5)
    assert "| its own best rate | unlike machines | DANA-gap-aware |" in capsys.readouterr().out
    for kind in ("workers", "gap", "rates"):
        assert (tmp_path / f"smoke-{kind}.png").stat().st_size > 10_000
        assert (tmp_path / f"smoke-{kind}.pdf").stat().st_size > 2_000
    with pytest.raises(SystemExit):
        run.main(["--preset", "smoke"])
    assert "needs an --output of its own" in capsys.readouterr().err
