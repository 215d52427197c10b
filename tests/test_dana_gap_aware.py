"""The experiment on momentum over numbers of workers: its methods, its verdict and a smoke run."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.dana_gap_aware import config, figures, run, tables
from experiments.datasets import Images
from experiments.runner import described


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
        "preset": {
            "num_workers": [4],
            "learning_rates": [0.1, 0.2],
            "more_rates": {},
            "methods": list(methods),
        },
        "alone": method((0.9, 0.9), (0.8, 0.8)),
        "settings": {config.SAME: {"4": methods}},
    }
    judged = {(c["rates"], c["first"], c["second"]): c for c in tables.claims(summary)}
    assert len(judged) == 6
    multi = judged[tables.ALONE, config.MULTI, config.NAG]
    np.testing.assert_allclose(multi["gain"], [0.1, 0.05])
    assert multi["verdict"] == "better"
    assert judged[tables.ALONE, config.DANA, config.MULTI]["verdict"] == "worse"
    assert judged[tables.OWN, config.MULTI, config.NAG]["verdict"] == "no"
    shown = tables.tables(summary)
    assert "| its own best rate | same machines | DANA | 90.0 ± 0.0 (0.2*) |" in shown


STORED = {name: tables.stored(name) for name in tables.STORED}
SUMMARY = STORED["cpu"]
NUMBERS = SUMMARY["preset"]["num_workers"]
VERDICTS = {
    (c["rates"], c["machines"], c["first"], c["second"], c["num_workers"]): c["verdict"]
    for c in tables.claims(SUMMARY)
}


def verdicts(rates, machines, first, second):
    """Over the numbers of workers."""
    return [VERDICTS[rates, machines, first, second, number] for number in NUMBERS]


def test_the_page_shows_what_was_measured():
    page = (tables.RESULTS.parent / "README.md").read_text().splitlines()
    shown = [line for s in STORED.values() for line in tables.tables(s).splitlines() if line]
    assert [line for line in page if line.startswith("|")] == shown
    for name, summary in STORED.items():
        assert summary["preset"] == described(config.PRESETS[name])
    assert not any("*)" in line for line in shown)  # no best rate at an edge


def test_gap_aware_steps_need_no_tuning_for_many_workers():
    alone = np.mean(SUMMARY["alone"]["accuracy"], axis=1).max()
    assert alone == pytest.approx(0.983, abs=0.001)
    for group in tables.groups(SUMMARY):
        if group.rates == tables.ALONE:
            means = {name: values.mean() for name, values in group.accuracy.items()}
            assert 0.12 < means[config.GAP] - means[config.NAG] < 0.91
            assert 0.12 < means[config.DANA_GAP] - means[config.NAG] < 0.91
            assert group.num_workers < 16 or means[config.NAG] < 0.1
            if group.num_workers <= 16:
                assert alone - means[config.DANA_GAP] < 0.022
        else:
            assert 2**-7 <= group.chosen[config.DANA_GAP] <= 2**-5


def test_what_is_confirmed_at_own_rates():
    for machines in config.MACHINES:
        found = verdicts(tables.OWN, machines, config.GAP, config.STALENESS)
        assert found == ["no", "no", "better", "better", "better"]
        found = verdicts(tables.OWN, machines, config.DANA_GAP, config.DANA)
        assert found == ["no", "no", "better", "better", "better"]
    same, unlike = config.MACHINES
    found = verdicts(tables.OWN, same, config.DANA, config.MULTI)
    assert found == ["no", "better", "better", "better", "better"]
    found = verdicts(tables.OWN, unlike, config.DANA, config.MULTI)
    assert found == ["no", "no", "better", "better", "better"]
    found = verdicts(tables.OWN, same, config.DANA_GAP, config.GAP)
    assert found == ["no", "better", "better", "better", "no"]
    found = verdicts(tables.OWN, unlike, config.DANA_GAP, config.GAP)
    assert found == ["no", "no", "better", "better", "no"]


def test_what_is_not_confirmed():
    same, unlike = config.MACHINES
    found = verdicts(tables.OWN, same, config.MULTI, config.NAG)
    assert found == ["no", "no", "no", "worse", "worse"]
    found = verdicts(tables.OWN, unlike, config.MULTI, config.NAG)
    assert found == ["no", "no", "no", "no", "worse"]
    assert verdicts(tables.OWN, same, config.DANA_DC, config.DANA) == ["no"] * 5
    assert verdicts(tables.OWN, unlike, config.DANA_DC, config.DANA) == ["better", *["no"] * 4]
    found = verdicts(tables.OWN, same, config.DANA, config.NAG)
    assert found == ["no", "better", "no", "better", "no"]
    found = verdicts(tables.OWN, unlike, config.DANA, config.NAG)
    assert found == ["no", "better", "better", "no", "no"]
    lost = {
        name: sum(
            methods[name]["diverged"]
            for by_number in SUMMARY["settings"].values()
            for methods in by_number.values()
        )
        for name in (config.DANA, config.DANA_DC)
    }
    assert lost == {config.DANA: 2, config.DANA_DC: 27}


def test_four_times_as_many_gradients_make_good_what_64_workers_lose():
    long = STORED["cpu-long"]
    alone = np.mean(long["alone"]["accuracy"], axis=1).max()
    assert alone == pytest.approx(0.982, abs=0.001)
    for group in tables.groups(long):
        assert alone - group.accuracy[config.DANA_GAP].mean() < 0.0165
        if group.rates == tables.ALONE:
            assert group.accuracy[config.NAG].mean() < 0.25
    verdicts = {
        (c["machines"], c["first"], c["second"]): c["verdict"]
        for c in tables.claims(long)
        if c["rates"] == tables.OWN
    }
    same, unlike = config.MACHINES
    for machines in (same, unlike):
        assert verdicts[machines, config.DANA, config.NAG] == "no"
        assert verdicts[machines, config.DANA_DC, config.DANA] == "no"
        assert verdicts[machines, config.MULTI, config.NAG] != "better"
        assert verdicts[machines, config.DANA_GAP, config.DANA] == "better"
    assert verdicts[same, config.GAP, config.STALENESS] == "better"
    assert verdicts[unlike, config.GAP, config.STALENESS] == "no"


def test_unlike_machines_are_easier():
    same, unlike = (SUMMARY["settings"][kind] for kind in config.MACHINES)
    for number in map(str, NUMBERS[1:]):
        for name in config.METHODS:
            best = [np.mean(of[number][name]["accuracy"], axis=1).max() for of in (same, unlike)]
            assert best[0] < best[1]


def test_gaps_are_ordered_and_fall_with_the_rate():
    for by_number in SUMMARY["settings"].values():
        for methods in by_number.values():
            gaps = {name: np.array(gap) for name, gap in tables.gaps(SUMMARY, methods).items()}
            early = {name: tables.early_gap(gap) for name, gap in gaps.items()}
            assert max(early, key=early.get) == config.NAG
            assert early[config.DANA_GAP] < min(early[config.DANA], early[config.GAP])
            for name, gap in gaps.items():
                rates = (gap[6:10], gap[12:15], gap[17:])  # before, between, after the decays
                falls = [
                    before.mean() / after.mean() for before, after in itertools.pairwise(rates)
                ]
                low, high = (2.9, 14) if name in (config.GAP, config.DANA_GAP) else (6, 42)
                assert low < min(falls) < max(falls) < high


@pytest.mark.slow
def test_the_smoke_run_ends(tmp_path, capsys):
    arguments = ["--preset", "smoke", "--output", str(tmp_path)]
    run.EXPERIMENT.main([*arguments, "--ledger", str(tmp_path / "runs.jsonl")])
    summary = json.loads((tmp_path / "smoke.json").read_text())
    (found,) = summary["settings"][config.UNLIKE].values()
    assert np.array(found[config.NAG]["accuracy"]).shape == (2, 2)
    assert np.array(found[config.DANA_GAP]["gap"]).shape == (2, 20)
    assert found[config.NAG]["staleness"] == pytest.approx(3, abs=0.5)
    assert "| its own best rate | unlike machines | DANA-gap-aware |" in capsys.readouterr().out
    figures.draw(tmp_path, SUMMARY)
    for name in ("cpu-workers", "smoke-gap", "smoke-rates"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
        assert (tmp_path / f"{name}.pdf").stat().st_size > 2_000
    with pytest.raises(SystemExit):
        run.EXPERIMENT.main(["--preset", "smoke"])
    assert "needs an --output of its own" in capsys.readouterr().err
