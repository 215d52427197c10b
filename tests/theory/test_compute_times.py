"""The limits of random compute times."""

import math

import numpy as np
import pytest
import scipy.optimize

from async_optax import protocols, runtimes, theory, timelines

LAWS = {
    "fixed": (theory.fixed_times(), math.pi / 2),
    "gamma 4": (theory.gamma_times(4), 2.274),
    "gamma 100": (theory.gamma_times(100), 1.590),
    "gamma 1.5": (theory.gamma_times(1.5), 7.348),
    "exponential": (theory.gamma_times(1), math.inf),
    "gamma 0.5": (theory.gamma_times(0.5), math.inf),
    "poisson 2": (theory.poisson_times(2), 3.871),
    "poisson 16": (theory.poisson_times(16), 1.700),
    "poisson 1.5": (theory.poisson_times(1.5), math.inf),
    "poisson 1e6": (theory.poisson_times(1e6), math.pi / 2),
}


@pytest.mark.parametrize("name", LAWS)
def test_limits_have_the_known_values(name):
    law, expected = LAWS[name]
    assert theory.load_limit(law) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", [name for name, (_, limit) in LAWS.items() if limit < 100])
def test_at_the_limit_there_is_an_imaginary_root(name):
    law = LAWS[name][0]
    limit = theory.load_limit(law)
    # The same, found by searching frequencies.
    assert theory.load_limit(law._replace(limit=None)) == pytest.approx(limit, rel=1e-9)

    def equation(w):
        value = 1j * w[0] + limit * law.transform(np.array([1j * w[0]]))[0]
        return [value.real, value.imag]

    start = 0.5 if limit < 5 else 2.0
    solution = scipy.optimize.least_squares(equation, [limit / 2 + start], xtol=1e-15)
    assert np.abs(solution.fun).max() < 1e-6


def test_measured_times_give_the_limit_of_their_law():
    times = np.random.Generator(np.random.PCG64(0)).gamma(4.0, 3.0, 4000)
    assert theory.load_limit(theory.empirical_times(times)) == pytest.approx(2.274, rel=0.05)
    assert theory.load_limit(theory.empirical_times([7.0])) == pytest.approx(math.pi / 2)


@pytest.mark.parametrize("cv", [0.1, 0.5])
def test_many_workers_come_close_to_the_limit(cv):
    timeline = timelines.simulate_timeline(
        protocols.asynchronous(), runtimes.gamma(cv=cv), 64, num_commits=8000, seed=1
    )
    limit = theory.load_limit(theory.gamma_times(1 / cv**2))
    assert 64 * theory.replayed_limit(timeline) == pytest.approx(limit, rel=0.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("gamma_times(0.0)", "shape must be a finite number > 0, got 0.0"),
        ("poisson_times(-1.0)", "mean must be a finite number > 0, got -1.0"),
        ("empirical_times([1.0, 0.0])", "samples must be a finite number > 0"),
        ("empirical_times([])", r"samples must be one row of numbers, got shape \(0,\)"),
    ],
)
def test_bad_values_raise(call, message):
    with pytest.raises(ValueError, match=message):
        eval("theory." + call)


def test_a_law_is_asked_for():
    with pytest.raises(TypeError, match="law must be a TimeLaw"):
        theory.load_limit(4.0)
