"""The literature's ordering of momentum methods, on a noisy quadratic with 8 workers."""

import jax
import numpy as np
import pytest

import async_optax as ao
from tests.engine.problems import run_quadratic

NUM_WORKERS, RATE, MOMENTUM = 8, 0.02, 0.9


@pytest.fixture(scope="module")
def results():
    make = ao.optimizers
    methods = {
        "nag": make.momentum_sgd(RATE, MOMENTUM, nesterov=True),
        "lwp": make.linear_weight_prediction(RATE, NUM_WORKERS - 1, MOMENTUM),
        "multi": make.multi_momentum(RATE, NUM_WORKERS, MOMENTUM),
        "dana": make.dana(RATE, NUM_WORKERS, MOMENTUM),
    }
    # The literature's homogeneous workers: gamma times of shape 100.
    timeline = ao.simulate_timeline(
        ao.protocols.asynchronous(), ao.runtimes.gamma(cv=0.1), NUM_WORKERS, num_commits=3000
    )
    with jax.enable_x64(True):
        return {
            name: run_quadratic(
                optimizer=method, timeline=timeline, record=("gap",), evaluate_every=10
            )
            for name, method in methods.items()
        }


def stationary(result, table, name):
    column = getattr(result, table)[name]
    return np.mean(column[len(column) // 2 :])


def test_one_shared_buffer_diverges(results):
    nag = results["nag"]
    assert nag.diverged or nag.evaluations["distance"][-1] > 1e3
    for name in ("lwp", "multi", "dana"):
        assert not results[name].diverged
        assert stationary(results[name], "evaluations", "distance") < 4


def test_gaps_are_in_order(results):
    gaps = [stationary(results[name], "arrivals", "gap") for name in ("lwp", "multi", "dana")]
    assert gaps[0] > 1.5 * gaps[1]
    assert gaps[1] > 1.2 * gaps[2]
    distances = [
        stationary(results[name], "evaluations", "distance") for name in ("lwp", "multi", "dana")
    ]
    assert distances[2] < 0.8 * min(distances[:2])
