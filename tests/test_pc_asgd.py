"""The experiment on predicting clipping: its network, its verdict, and a smoke run."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from jax import lax

from async_optax import topologies
from experiments.pc_asgd import config, images, measure, network, run, tables


def test_patches_are_a_convolution():
    x = jax.random.normal(jax.random.key(0), (2, 6, 4, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 5))
    expected = lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(network._convolved(x, kernel), expected, atol=1e-5)


def test_the_network_learns_and_workers_have_their_own_images():
    data = images.digits()
    assert data.train.shape == (1437, 8, 8, 1)
    assert data.test.shape == (360, 8, 8, 1)
    partition = config.split("skewed", data.train_labels, 8)
    assert partition.sizes.sum() == 1437
    problem = network.convolutional(data, partition, (4,), 16)
    problem.check()
    batch = problem.batch(jax.random.key(0), 3)
    own = {data.train[row].tobytes() for row in partition.of(3)}
    assert {np.asarray(image).tobytes() for image in batch["image"]} <= own
    params = problem.init(jax.random.key(0))
    step = jax.jit(jax.value_and_grad(problem.loss))
    losses = []
    for _ in range(20):
        loss, slope = step(params, batch, jax.random.key(0))
        losses.append(float(loss))
        params = jax.tree.map(lambda x, g: x - 0.1 * g, params, slope)
    assert losses[-1] < 0.5 * losses[0]


def test_every_method_is_measured_and_drawn():
    ring = topologies.ring(4)
    names = [*config.undelayed_methods(ring), *config.delayed_methods(ring, 2), config.PAIRWISE]
    assert sorted(names) == sorted(config.METHODS)
    preset = config.PRESETS["cpu"]
    chosen = config.settings(preset)
    assert len({setting.name for setting in chosen}) == len(chosen) == 8
    per_cell = len(preset.learning_rates) * len(preset.seeds)
    assert measure.num_runs(preset, chosen) == (3 * 4 + 7 * 8) * per_cell


def curves(*finals):
    """Two rates, two seeds and five evaluations of which the last is what counts."""
    rising = np.linspace(0.0, 1.0, 5)
    best = np.multiply.outer(np.array(finals), rising)
    accuracy = np.stack([0.5 * best, best]).tolist()
    return {name: accuracy for name in measure.METRICS} | {"diverged": [[False] * 2] * 2}


def test_the_verdict_is_by_seed_and_over_the_better_end():
    found = {name: curves(0.5, 0.5) for name in config.METHODS}
    found[config.PREDICT], found[config.CLIP] = curves(0.80, 0.90), curves(0.70, 0.90)
    found["PC-ASGD 0.75"] = curves(0.82, 0.90)
    found[config.PRACTICAL] = curves(0.80, 0.88)
    preset = {"learning_rates": [0.1, 0.2], "num_rounds": 10}
    summary = {"settings": {"here": found}, "preset": preset}
    (verdict,) = tables.claims(summary)
    assert (verdict["end"], verdict["theta"]) == (config.PREDICT, 0.75)
    np.testing.assert_allclose(verdict["gains"]["fixed"], [0.02, 0.0], atol=1e-12)
    np.testing.assert_allclose(verdict["gains"]["practical"], [0.0, -0.02], atol=1e-12)
    assert verdict["holds"] == {"fixed": True, "practical": False, "opposed": False}
    assert "| here | P-ASGD | 0.850 | 0.860 | 0.75 | +1.0" in tables.tables(summary)


SUMMARY = json.loads((tables.RESULTS / "summary.json").read_text())


def test_the_page_shows_what_was_measured():
    lines = (tables.RESULTS.parent / "README.md").read_text().splitlines()
    shown = {*tables.claim_lines(SUMMARY), *tables.result_lines(SUMMARY)}
    assert len(shown) > len(SUMMARY["settings"]) * len(config.METHODS)
    assert shown <= {*lines}
    as_data = json.loads(json.dumps(dataclasses.asdict(config.PRESETS["cpu"])))
    assert SUMMARY["preset"] == as_data


def test_with_a_fixed_theta_it_is_hardly_worse_than_the_better_end():
    claims = tables.claims(SUMMARY)
    assert sum(claim["holds"]["fixed"] for claim in claims) == 6
    assert all(np.mean(claim["gains"]["fixed"]) > -0.0075 for claim in claims)
    far = [
        claim
        for claim in claims
        if claim["setting"] in ("ring, random, delay 16", "ring, skewed, delay 16")
    ]
    assert all(min(claim["gains"]["fixed"]) > 0.02 for claim in far)


@pytest.mark.slow
def test_the_smoke_run_ends(tmp_path, capsys):
    run.main(["--preset", "smoke", "--output", str(tmp_path)])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert set(summary["settings"]["ring, random, delay 2"]) == set(config.METHODS)
    assert (tmp_path / "rounds.png").stat().st_size > 10_000
    assert (tmp_path / "rates.png").stat().st_size > 10_000
    shown = np.array(summary["settings"]["ring, random, delay 2"]["AD-PSGD"]["accuracy"])
    assert shown.shape == (2, 2, 4)
    assert "| ring, random, delay 2 | AD-PSGD |" in capsys.readouterr().out
