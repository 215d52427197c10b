"""Parameters of Ringmaster, Rennala and of clipping: formulas, exponents and what they promise."""

import math

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st

from async_optax import protocols, runtimes, simulate_timeline, theory


def test_ringmaster_by_hand():
    # R = ceil(2 / 0.3) = 7; gamma = min(1 / (2 * 7 * 3), 0.3 / (4 * 3 * 2)).
    found = theory.ringmaster_parameters(3.0, 2.0, 0.3, 5.0)
    assert found.max_staleness == 6
    assert found.learning_rate == pytest.approx(0.0125)
    assert found.num_commits == math.ceil(8 * 7 * 3 * 5 / 0.3 + 16 * 2 * 3 * 5 / 0.09)
    quiet = theory.ringmaster_parameters(3.0, 0.0, 0.3, 5.0)
    assert quiet == (0, pytest.approx(1 / 6), 400)
    # 0.3 / 0.1 is a little less than 3: rounding must not make it 4 or 2.
    assert theory.ringmaster_parameters(1.0, 0.3, 0.1, 1.0).max_staleness == 2


def test_rennala_by_hand():
    found = theory.rennala_parameters(3.0, 2.0, 0.3, 5.0)
    assert found.batch_size == 7
    assert found.learning_rate == pytest.approx(0.3 * 7 / (2 * 3 * 2))
    assert found.num_commits == math.ceil(4 * 5 / (0.3 * found.learning_rate))
    assert theory.rennala_parameters(3.0, 0.0, 0.3, 5.0) == (1, pytest.approx(1 / 3), 200)


def test_rennala_reaches_its_target():
    # A quadratic of smoothness L and dimension d with noise of norm variance 2.
    smoothness, variance, target, dimension = 2.0, 2.0, 0.5, 4
    start = np.full(dimension, 1.5)
    gap = smoothness * start @ start / 2
    found = theory.rennala_parameters(smoothness, variance, target, gap)
    draws, squares = np.random.Generator(np.random.PCG64(0)), []
    x = np.repeat(start[None], 200, axis=0)
    for _ in range(found.num_commits):
        gradient = smoothness * x
        squares.append((gradient**2).sum(axis=1).mean())
        scale = math.sqrt(variance / dimension / found.batch_size)
        x = x - found.learning_rate * (gradient + scale * draws.standard_normal(x.shape))
    assert np.mean(squares) <= target


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=12), st.integers(1, 30))
def test_bounds_are_the_least_over_the_fastest_workers(times, number):
    fastest = sorted(times)
    gathering = min(
        (number + m) / sum(1 / t for t in fastest[:m]) for m in range(1, len(times) + 1)
    )
    assert theory.gathering_time(times, number).time == pytest.approx(gathering)
    optimal = min(
        (10 + 100 * 3 / m) / (sum(1 / t for t in fastest[:m]) / m) for m in range(1, len(times) + 1)
    )
    found = theory.optimal_time(times, 2.0, 3.0, 0.1, 0.5)
    # L D / eps = 10, sigma^2 L D / eps^2 = 300
    assert found.time == pytest.approx(optimal)
    assert 1 <= found.num_workers <= len(times)


@pytest.mark.parametrize("size", [5, 40])
@pytest.mark.parametrize("spread", [0.0, 1.0, 2.0])
def test_rennala_gathers_within_its_bound(spread, size):
    model = runtimes.power_law(spread)
    timeline = simulate_timeline(protocols.rennala(size), model, 20, num_commits=30)
    longest = np.diff(timeline.commit_times, prepend=0).max()
    bound = theory.gathering_time(model.scales(20, seed=0), size).time
    assert longest <= bound * (1 + 1e-9)


@pytest.mark.parametrize("moment", [1.1, 1.5, 1.9])
def test_clipping_minimises_its_bound_and_scales_as_the_theory(moment):
    scale, smoothness, gap, commits = 1.3, 2.0, 3.0, 10**6

    def bound(logs):
        eta, c = np.exp(logs)
        noise = smoothness * eta * scale**moment * c ** (2 - moment)
        return 2 * gap / (eta * commits) + noise + (scale**moment * c ** (1 - moment)) ** 2

    found = theory.clipping_for_moments(moment, scale, smoothness, gap, commits)
    best = scipy.optimize.minimize(bound, [-5.0, 3.0], method="Nelder-Mead", tol=1e-12)
    assert found.learning_rate == pytest.approx(math.exp(best.x[0]), rel=1e-3)
    assert found.max_norm == pytest.approx(math.exp(best.x[1]), rel=1e-3)
    assert found.gradient_norm == pytest.approx(math.sqrt(best.fun), rel=1e-6)
    later = theory.clipping_for_moments(moment, scale, smoothness, gap, 16 * commits)
    powers = [math.log(new / old) / math.log(16) for new, old in zip(later, found, strict=True)]
    base = 3 * moment - 2
    assert powers == pytest.approx([-moment / base, 1 / base, -theory.clipped_rate(moment)])


def test_clipping_knows_its_limits():
    plain = theory.clipping_for_moments(2.0, 1.0, 1.0, 1.0, 10_000)
    assert plain.max_norm == math.inf
    assert plain.learning_rate == pytest.approx(math.sqrt(2 / 10_000))
    crowded = theory.clipping_for_moments(1.5, 1.0, 1.0, 1.0, 100, concurrency=50)
    assert crowded.learning_rate == 1 / 200
    wide = theory.clipping_for_moments(1.5, 1.0, 1.0, 1.0, 100, gradient_norm=500.0)
    assert wide.max_norm == 1000
    assert [theory.clipped_rate(moment) for moment in (1.5, 2.0)] == pytest.approx([0.2, 0.25])


def test_clipping_for_sub_weibull_noise_by_hand():
    theta, scale, smoothness, eps, workers, spread = 1.0, 0.5, 2.0, 0.1, 8, 0.2
    found = theory.clipping_for_sub_weibull(
        theta, scale, smoothness, eps, concurrency=workers, heterogeneity=spread, constant=3.0
    )
    variance = 2 * 2 * 0.25 + 2 * 0.04  # K_theta = 2 Gamma(3)
    q = math.log(2 + 3 * variance / 0.01)
    c = 0.1 + 0.4 + 4 * 0.5 * q + math.sqrt(8 * variance)
    assert found.max_norm == pytest.approx(c)
    assert found.learning_rate == pytest.approx(
        min(1 / 48, 0.01 / (6 * (0.01 + 0.29 * q**2)), 0.1 / (3 * c * 16))
    )
    assert found.gradient_norm == 0.1


@pytest.mark.parametrize("theta", [0.5, 1.0, 2.0])
def test_the_second_moment_of_sub_weibull_noise_is_bounded(theta):
    # With W exponential, (a W)^theta has E exp((x / s)^(1/theta)) = 1 / (1 - a / s^(1/theta)) = 2.
    draws = np.random.Generator(np.random.PCG64(0)).exponential(size=200_000) ** theta
    scale = 2**theta
    assert np.mean(draws**2) <= 2 * math.gamma(2 * theta + 1) * scale**2


@given(st.floats(0.1, 3.0), st.floats(0.01, 1.0), st.integers(1, 500))
def test_more_workers_and_heavier_tails_ask_for_smaller_steps(theta, target, workers):
    found = theory.clipping_for_sub_weibull(theta, 1.0, 1.0, target, concurrency=workers)
    crowded = theory.clipping_for_sub_weibull(theta, 1.0, 1.0, target, concurrency=workers + 1)
    assert crowded.learning_rate <= found.learning_rate
    assert crowded.max_norm == found.max_norm
    if theta >= 0.5:
        heavier = theory.clipping_for_sub_weibull(theta + 0.1, 1.0, 1.0, target)
        lighter = theory.clipping_for_sub_weibull(theta, 1.0, 1.0, target)
        assert heavier.max_norm > lighter.max_norm


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("ringmaster_parameters(0.0, 1, 1, 1)", "smoothness must be a finite number > 0, got 0.0"),
        ("ringmaster_parameters(1, -1.0, 1, 1)", "noise_variance must be a finite number >= 0"),
        ("rennala_parameters(1, 1, 0.0, 1)", "target must be a finite number > 0, got 0.0"),
        ("rennala_parameters(1, 1, 1, -1.0)", "initial_gap must be a finite number > 0, got -1.0"),
        ("optimal_time([], 1, 1, 1, 1)", r"times must be one row of numbers, got shape \(0,\)"),
        ("gathering_time([1.0], 0)", "num_gradients must be an integer >= 1, got 0"),
        ("clipped_rate(1.0)", "moment must be a finite number > 1 and <= 2, got 1.0"),
        ("clipping_for_moments(2.1, 1, 1, 1, 10)", "moment must be a finite number > 1 and <= 2"),
        ("clipping_for_moments(1.5, 1, 1, 1, 0)", "num_commits must be an integer >= 1, got 0"),
        ("clipping_for_sub_weibull(0.0, 1, 1, 1)", "theta must be a finite number > 0, got 0.0"),
        (
            "clipping_for_sub_weibull(1, 1, 1, 1, concurrency=0)",
            "concurrency must be an integer >= 1, got 0",
        ),
    ],
)
def test_bad_values_raise(call, message):
    with pytest.raises(ValueError, match=message):
        eval("theory." + call)
