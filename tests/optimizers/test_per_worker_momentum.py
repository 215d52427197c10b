"""DANA-Slim's server is where DANA-Zero looks ahead to."""

import numpy as np
import pytest

from async_optax import protocols, runtimes
from async_optax.timelines import simulate_timeline
from tests.oracles.momentum_rules import Dana


def dana_zero(timeline, gradient, x0, lr, momentum):
    """Master theta, momenta v_j, served point ``theta - lr * momentum * sum_j v_j``."""
    theta, velocity = x0, np.zeros((timeline.num_workers, len(x0)))
    served = [theta - lr * momentum * velocity.sum(axis=0)]
    for row, worker in enumerate(timeline.worker):
        g = gradient(served[timeline.read_version[row]], row)
        velocity[worker] = momentum * velocity[worker] + g
        theta = theta - lr * velocity[worker]
        served.append(theta - lr * momentum * velocity.sum(axis=0))
    return np.array(served)


def dana_slim(timeline, gradient, x0, lr, momentum):
    rule, versions = Dana(lr, momentum=momentum), [x0]
    for row, worker in enumerate(timeline.worker.tolist()):
        g = gradient(versions[timeline.read_version[row]], row)
        stale = versions[timeline.read_version[row]]
        versions.append(rule.step(versions[-1], g, stale, 0, worker, 1.0, True))
    return np.array(versions)


@pytest.mark.parametrize("num_workers", [1, 8])
def test_slim_equals_the_look_ahead_of_zero(num_workers):
    timeline = simulate_timeline(
        protocols.asynchronous(), runtimes.gamma(cv=0.5), num_workers, num_commits=2000
    )
    curvature = np.array([0.1, 0.5, 1.0])
    noise = np.random.default_rng(0).normal(size=(2000, 3))

    def gradient(x, row):
        return curvature * x + 0.1 * noise[row]

    arguments = timeline, gradient, np.ones(3), 0.05, 0.9
    zero, slim = dana_zero(*arguments), dana_slim(*arguments)
    assert np.abs(zero).max() < 10  # it converges, so agreement means something
    np.testing.assert_allclose(zero, slim, rtol=0, atol=1e-13)
