"""What noise leaves behind, hitting times and events, against plain NumPy loops."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from async_optax import theory


def noisy_runs(step, staleness, momentum, num_commits, num_runs=400):
    """The variance over many runs of the recursion, averaged over its second half."""
    draws = np.random.Generator(np.random.PCG64(7))
    x = np.zeros((num_commits + staleness + 2, num_runs))
    for k in range(staleness + 1, num_commits + staleness + 1):
        noise = draws.standard_normal(num_runs)
        x[k + 1] = x[k] + momentum * (x[k] - x[k - 1]) - step * x[k - staleness] + noise
    return x[num_commits // 2 :].var()


@pytest.mark.parametrize(
    ("step", "staleness", "momentum"),
    [(0.3, 0, 0.0), (0.2, 3, 0.0), (0.38, 3, 0.0), (0.05, 15, 0.0), (0.05, 3, 0.6)],
)
def test_the_variance_is_that_of_many_runs(step, staleness, momentum):
    measured = noisy_runs(step, staleness, momentum, num_commits=3000)
    exact = theory.stationary_variance(step, staleness, momentum)
    assert measured == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize("staleness", [0, 1, 2, 7, 30])
def test_the_closed_form_solves_the_lyapunov_equation(staleness):
    for step in theory.stability_limit(staleness) * np.array([0.01, 0.3, 0.8, 0.99]):
        matrix = theory.companion_matrix(step, staleness)
        noise = np.zeros_like(matrix)
        noise[0, 0] = 1
        variance = scipy.linalg.solve_discrete_lyapunov(matrix, noise)[0, 0]
        assert theory.stationary_variance(step, staleness) == pytest.approx(variance, rel=1e-8)


def test_variances_without_limit_and_in_the_continuum():
    limit = theory.stability_limit(3)
    assert theory.stationary_variance([limit * 1.001, 3.0], 3).tolist() == [np.inf, np.inf]
    assert theory.stationary_variance(0.1, [0, 3], [[0.0], [0.5]]).shape == (2, 2)
    # The discrete inflation comes close to the continuum's as the steps shrink.
    errors = [
        theory.variance_inflation(1.0 / n, n) / theory.continuum_inflation(1.0 / n, n) - 1
        for n in (10, 20, 40)
    ]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)  # order 1
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.1)
    np.testing.assert_array_equal(theory.continuum_inflation(1.0, [0.0, 1.6]), [1, np.inf])


@given(st.integers(0, 60), st.floats(0.01, 0.98), st.floats(0.01, 0.98))
def test_staleness_and_steps_raise_the_inflation(staleness, factor, other):
    limit = theory.stability_limit(staleness + 1)
    low, high = sorted([factor * limit, other * limit])
    here = theory.variance_inflation(low, staleness)
    assert here >= 1 - 1e-9
    assert theory.variance_inflation(low, staleness + 1) >= here
    assert theory.variance_inflation(high, staleness) >= here * (1 - 1e-9)


def test_hitting_times_without_noise_are_those_of_the_recursion():
    for step, staleness, momentum in ((0.25, 1, 0.0), (0.3, 3, 0.0), (0.02, 7, 0.5)):
        x = [1.0] * (staleness + 2)
        while abs(x[-1]) > 0.01:
            x.append(x[-1] + momentum * (x[-1] - x[-2]) - step * x[-1 - staleness])
        found = theory.hitting_times(
            step, theory.constant_kernel(staleness), target=0.01, momentum=momentum, num_runs=3
        )
        assert found.commits.tolist() == [len(x) - staleness - 2] * 3
        assert found.reached.all()


def test_hitting_times_with_noise_and_random_staleness():
    kernel, draws = np.array([0.5, 0.0, 0.5]), np.random.Generator(np.random.PCG64(11))
    expected = []
    for _ in range(2000):
        x = [1.0, 1.0, 1.0]
        while abs(x[-1]) > 0.1:
            stale = x[-1 - 2 * (draws.random() < 0.5)]
            x.append(x[-1] - 0.1 * stale + 0.05 * draws.standard_normal())
        expected.append(len(x) - 3)
    found = theory.hitting_times(0.1, kernel, target=0.1, noise=0.05, num_runs=4000, seed=1)
    assert found.commits.mean() == pytest.approx(np.mean(expected), rel=0.03)
    assert np.quantile(found.commits, 0.9) == pytest.approx(np.quantile(expected, 0.9), abs=1.5)
    never = theory.hitting_times(0.3, [0, 0, 0, 0, 1], target=1e-9, num_runs=2, max_commits=50)
    assert never.commits.tolist() == [50, 50]
    assert not never.reached.any()
    at_once = theory.hitting_times(0.5, [1], target=2.0, num_runs=1)
    assert (at_once.commits[0], at_once.reached[0]) == (0, True)


@pytest.mark.parametrize(("step", "staleness"), [(0.5, 0), (0.1, 4), (0.3, 4), (0.095, 15)])
def test_events_keep_the_mode_within_its_radius(step, staleness):
    threshold = 0.02
    run = theory.event_triggered(step, staleness, threshold, num_commits=4000)
    radius = theory.residual_radius(step, staleness, threshold)
    assert np.abs(run.params[2000:]).max() <= radius
    assert radius >= threshold * (1 - 1e-9)
    assert 0 < run.sent.mean() < 0.7
    every = theory.event_triggered(step, staleness, 0.0, num_commits=200)
    x = [1.0] * (staleness + 1)
    for _ in range(200):
        x.append(x[-1] - step * x[-1 - staleness])
    np.testing.assert_allclose(every.params, x[staleness:], rtol=1e-12)


def test_no_disturbance_leaves_the_radius_and_one_reaches_it():
    step, staleness, length = 0.3, 4, 2000
    response = [0.0] * staleness + [1.0]
    for _ in range(length):
        response.append(response[-1] - step * response[-1 - staleness])
    # Pushes whose signs are those of the response, backwards, all add up at the end.
    signs = np.sign(response[staleness : staleness + length])[::-1]
    x = [0.0] * (staleness + 1)
    for sign in signs:
        x.append(x[-1] - step * (x[-1 - staleness] - 0.02 * sign))
    assert x[-1] == pytest.approx(theory.residual_radius(step, staleness, 0.02), rel=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("stationary_variance(0.0, 3)", "step must be a finite number > 0, got 0.0"),
        ("stationary_variance(0.1, -3)", "staleness must be an integer >= 0, got -3"),
        ("variance_inflation(0.1, 1, momentum=1.0)", "momentum must be a finite number >= 0"),
        ("continuum_inflation(-1.0, 1.0)", "gain must be a finite number > 0, got -1.0"),
        ("hitting_times(0.1, [0.5], target=0.1)", "kernel must add up to 1, got a sum of 0.5"),
        ("hitting_times(0.1, [1.0], target=0.0)", "target must be a finite number > 0, got 0.0"),
        ("hitting_times(0.1, [1.0], target=0.1, num_runs=0)", "num_runs must be an integer >= 1"),
        ("hitting_times(0.1, [1.0], target=0.1, seed=-1)", "seed must be an integer >= 0, got -1"),
        ("event_triggered(0.1, 2, -0.1, 5)", "threshold must be a finite number >= 0, got -0.1"),
        ("event_triggered(0.1, 2, 0.1, 0)", "num_commits must be an integer >= 1, got 0"),
        ("residual_radius(1.0, 1, 0.1)", "step must be well below the limit 1, got 1.0"),
    ],
)
def test_bad_values_raise(call, message):
    with pytest.raises(ValueError, match=message):
        eval("theory." + call)
