"""The advisor on a quadratic whose numbers are known."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import async_optax as ao
from async_optax.advice import advise, measure_problem
from tests.advice.settings import CURVATURES, NOISE, quadratic

RUNTIMES = ao.runtimes.two_speed(4.0)
SMALL = {"warm_up_steps": 200, "num_samples": 1000, "max_time": 60.0}


@pytest.fixture(scope="module")
def advice():
    seen = []
    found = advise(
        quadratic(),
        RUNTIMES,
        4,
        learning_rate=0.2,
        progress=lambda done, total: seen.append((done, total)),
        **SMALL,
    )
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    return found


def test_what_is_measured_is_what_is_there(advice):
    measured = advice.measured
    assert measured.num_parameters == 3
    assert measured.curvature_start == pytest.approx(max(CURVATURES), rel=1e-3)
    assert measured.curvature == pytest.approx(max(CURVATURES), rel=1e-3)
    np.testing.assert_allclose(measured.eigenvalues, CURVATURES, rtol=1e-3)
    assert measured.variance == pytest.approx(3 * NOISE**2, rel=0.1)
    # Equally much noise along each of them.
    mean = measured.noise_curvatures @ measured.noise_shares
    assert min(CURVATURES) < mean < max(CURVATURES)
    assert measured.loss_start == pytest.approx(0.5 + sum(CURVATURES) / 2, rel=0.05)
    assert measured.loss_end == pytest.approx(0.5, rel=0.3)
    assert measured.clip.kind == "none"
    assert measured.rungs[0].learning_rate == pytest.approx(0.25 / max(CURVATURES), rel=1e-3)
    kept = [rung.learning_rate for rung in measured.rungs if rung.kept]
    assert len(kept) < 2 or kept[1] == 2 * kept[0]


def test_every_protocol_has_its_limit(advice):
    rows = {row.protocol: row for row in advice.protocols}
    assert list(rows)[0] == "synchronous"
    unit = advice.measured.curvature
    assert rows["synchronous"].rate.largest == pytest.approx(2 / unit, rel=0.02)
    assert rows["synchronous"].speedup == pytest.approx(1, abs=0.02)
    asynchronous = rows["asynchronous"]
    assert asynchronous.staleness_mean == pytest.approx(3, abs=0.3)
    assert asynchronous.rate.largest < rows["synchronous"].rate.largest / 1.5
    for row in advice.protocols:
        assert not row.problem
        assert 0 < row.rate.learning_rate < row.rate.largest
    assert advice.best.rate.loss == min(row.rate.loss for row in advice.protocols)


def test_the_limit_is_where_the_engine_diverges(advice):
    """Without noise: just below it a run converges, just above it grows."""
    row = next(row for row in advice.protocols if row.protocol == "asynchronous")
    timeline = ao.simulate_timeline(ao.protocols.asynchronous(), RUNTIMES, 4, num_commits=1500)
    curvatures = jnp.array(CURVATURES)
    calm = ao.Problem(
        init=lambda key: jnp.ones(3),
        loss=lambda x, batch, key: jnp.sum(curvatures * x**2) / 2,
        batch=lambda key, worker: jnp.zeros(()),
    )
    ends = [
        ao.simulate(
            calm,
            ao.optimizers.sgd(factor * row.rate.largest),
            timeline,
            key=jax.random.key(0),
            lanes=1,
        ).arrivals["loss"][-100:]
        for factor in (0.9, 1.1)
    ]
    assert ends[0].max() < 1e-3
    assert len(ends[1]) == 0 or not ends[1].max() < 100


def test_reasons_name_their_numbers(advice):
    reasons = {line.topic: line for line in advice.reasons}
    assert {"protocol", "method", "clip range", "weights", "learning rate"} <= set(reasons)
    assert f"curvature {advice.measured.curvature:.3g}" in reasons["learning rate"].reason
    assert reasons["learning rate"].advice == f"{advice.best.rate.learning_rate:.2g}"
    assert reasons["method"].advice == "sgd"
    assert reasons["your rate"].advice.startswith("0.2: ")


def test_advice_is_plain_data(advice):
    data = json.loads(json.dumps(advice.as_dict(), allow_nan=False))
    assert data["best"] == advice.best.protocol
    assert data["measured"]["curvature"] == advice.measured.curvature
    assert len(data["protocols"]) == len(advice.protocols)
    assert data["measured"]["norms"]["verdict"] == "finite variance"


def test_what_was_measured_serves_again(advice):
    again = advise(
        quadratic(), RUNTIMES, 4, learning_rate=0.2, measured=advice.measured, max_time=60.0
    )
    assert again.as_dict() == advice.as_dict()


def test_heavy_noise_is_clipped_and_trained_with_the_clip():
    problem = quadratic(ao.noise.alpha_stable(1.2, scale=0.5))
    found = advise(problem, RUNTIMES, 4, protocols=[ao.protocols.asynchronous()], seed=1, **SMALL)
    measured = found.measured
    assert measured.norms.verdict == "infinite variance"
    assert measured.clip.kind == "coordinate"
    # At the start half of the coordinates pass; later, as gradients are smaller, more.
    assert 0.5 < measured.clip.response < 0.95
    assert measured.variance <= 3 * measured.clip.threshold**2
    assert measured.loss_end < measured.loss_start / 3
    assert found.best.method == "async_heavy_tailed"
    assert found.best.arguments["threshold"] == measured.clip.threshold


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"num_workers": 0}, ValueError, "num_workers must be an integer >= 1, got 0"),
        ({"warm_up_steps": 199}, ValueError, "warm_up_steps must be an integer >= 200"),
        ({"num_samples": 10}, ValueError, "num_samples must be an integer >= 200, got 10"),
        ({"max_time": -1.0}, ValueError, "max_time must be a finite number > 0"),
        ({"seed": -1}, ValueError, "seed must be an integer >= 0, got -1"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate must be a finite number > 0"),
        ({"protocols": []}, ValueError, "protocols must name at least one, got none"),
        ({"problem": 3}, TypeError, "problem must have functions init, loss and batch"),
        ({"measured": 3}, TypeError, "measured must come from measure_problem, got 3"),
        ({"max_time": 0.5}, ValueError, "none of the protocols runs"),
    ],
)
def test_wrong_arguments_are_refused(changes, error, message):
    given = {"problem": quadratic(), "runtimes": RUNTIMES, "num_workers": 4} | changes
    with pytest.raises(error, match=message):
        advise(**given)


def test_a_protocol_that_cannot_run_says_why(advice):
    found = advise(
        quadratic(),
        RUNTIMES,
        4,
        protocols=[ao.protocols.buffered(5, wait=True)],
        measured=advice.measured,
        max_time=60.0,
    )
    refused = found.protocols[1]
    assert "size must be <= num_workers" in refused.problem
    assert refused.rate is None
    assert found.best.protocol == "synchronous"


def flat(x, batch, key):
    return jnp.sum(x) * 0.0


def hill(x, batch, key):
    return -jnp.sum(x**2)


@pytest.mark.parametrize("loss", [flat, hill])
def test_without_curvature_there_is_no_advice(loss):
    problem = ao.Problem(lambda key: jnp.ones(3), loss, lambda key, worker: jnp.zeros(()))
    with pytest.raises(ValueError, match="the largest curvature at the start is"):
        measure_problem(problem, key=jax.random.key(0), num_samples=200, warm_up_steps=200)
