"""The experiment on the theory of delays: its parts, and its page against its results."""

import json

import jax
import numpy as np
import pytest

import async_optax as ao
from async_optax import theory
from experiments.delay_theory import boundary, config, quadratics, run, tables, workers


def nothing():
    pass


@pytest.mark.parametrize("staleness", [1, 7, 15])
def test_the_engine_stops_converging_within_two_percent_of_the_limit(staleness):
    # One run with many modes: each has a step of its own.
    factors = np.linspace(0.95, 1.05, 41)
    timeline = boundary.constant(staleness, 300 * (staleness + 1))
    result = ao.simulate(
        quadratics.modes(factors),
        ao.optimizers.sgd(theory.stability_limit(staleness)),
        timeline,
        key=jax.random.key(0),
        lanes=1,
        evaluate_every=max(1, (staleness + 1) // 2),
    )
    versions = result.evaluations["version"]
    rates = [quadratics.growth(result.evaluations[f"mode_{i}"], versions) for i in range(41)]
    assert quadratics.crossing(factors, np.array(rates)) == pytest.approx(1, abs=0.02)
    # And it grows there as fast as the theory says.
    radius = theory.spectral_radius(factors[-1] * theory.stability_limit(staleness), staleness)
    assert rates[-1] == pytest.approx(np.log(radius), rel=0.05)


def test_the_engine_grows_as_a_replayed_mode():
    timeline = ao.simulate_timeline(
        ao.protocols.asynchronous(), ao.runtimes.exponential(), 6, num_commits=480, seed=4
    )
    steps = np.array([0.05, 0.2, 1.2])
    rates = boundary.engine_growth(timeline, steps, momentum=0.0, every=1)
    np.testing.assert_allclose(rates, theory.replayed_growth(timeline, steps), rtol=0.05)


def test_growth_is_the_slope_of_peaks():
    times = np.arange(480.0)
    sizes = np.abs(np.exp(-0.02 * times) * np.cos(0.3 * times))
    assert quadratics.growth(sizes, times) == pytest.approx(-0.02, abs=1e-3)
    assert quadratics.growth(sizes[:100], times) == np.inf  # it has diverged
    assert quadratics.growth(np.zeros(480), times) == -np.inf
    steps, rates = np.array([1.0, 2.0, 3.0, 4.0]), np.array([-3.0, -1.0, 3.0, np.inf])
    assert quadratics.crossing(steps, rates) == 2.25
    assert np.isnan(quadratics.crossing(steps[:2], rates[:2]))
    assert np.isnan(quadratics.crossing(steps[2:], rates[2:]))


def test_the_measured_rate_of_workers_is_the_predicted_one():
    rate = workers.engine_rate(0.2, 4, "equal", duration=80.0, seed=0)
    assert rate == pytest.approx(theory.worker_rates(0.2, workers.CURVATURES, [4])[0], rel=0.03)


def test_waves_are_smooth_and_not_convex():
    problem = quadratics.waves(3, 2.0)
    problem.check()
    x = problem.init(jax.random.key(0))
    assert float(problem.loss(x, None, None)) == pytest.approx(3 * (1 - np.cos(2)))
    norm = float(problem.evaluate(x)["gradient"])
    assert norm == pytest.approx(np.sqrt(3) * np.sin(2), rel=1e-6)


@pytest.mark.slow
def test_the_smoke_test_writes_everything(tmp_path, capsys):
    run.main(["--preset", "smoke", "--output", str(tmp_path)])
    names = {path.name for path in tmp_path.iterdir()}
    pictures = ("boundary", "floor", "rates", "stragglers", "timelines", "workers")
    assert names == {"summary.json", *(f"{name}.png" for name in pictures)}
    assert "| staleness | predicted | measured | error |" in capsys.readouterr().out


def test_results_of_other_presets_lie_elsewhere():
    assert run.default_output("cpu") == tables.RESULTS
    assert tables.RESULTS not in (run.default_output("gpu"), *run.default_output("gpu").parents)


SUMMARY = json.loads((tables.RESULTS / "summary.json").read_text())


def test_the_page_shows_every_row():
    page = (tables.RESULTS.parent / "README.md").read_text().splitlines()
    shown = [line for line in page if line.startswith("|")]
    assert shown == [line for line in tables.tables(SUMMARY).splitlines() if line]


def test_the_results_are_of_the_setting_in_the_code():
    described = run.described(config.PRESETS["cpu"])
    assert SUMMARY["setting"] == json.loads(json.dumps(described))
    assert SUMMARY["preset"] == "cpu"


def test_the_engine_agrees_with_the_theory():
    errors = [abs(row["error"]) for row in SUMMARY["boundary"]]
    assert max(errors) < 0.02
