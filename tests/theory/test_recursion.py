"""The delayed mode against its own recursion and its companion matrix."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_optax import theory

STALENESS = (1, 3, 7, 15, 31)


def run(step, staleness, momentum, num_commits):
    """The recursion as it stands, from x_0 = 1 and nothing before it."""
    x = [1.0] * (staleness + 2)
    for _ in range(num_commits):
        x.append(x[-1] + momentum * (x[-1] - x[-2]) - step * x[-1 - staleness])
    return np.abs(x)


def largest_modulus(step, staleness, momentum):
    return np.abs(np.linalg.eigvals(theory.companion_matrix(step, staleness, momentum))).max()


def test_limits_and_best_steps_have_the_known_values():
    limits = theory.stability_limit(STALENESS)
    np.testing.assert_allclose(limits, [1.0, 0.445042, 0.209057, 0.101298, 0.049861], rtol=1e-5)
    best = theory.best_step(STALENESS)
    np.testing.assert_allclose(best, [0.25, 0.105469, 0.049087, 0.023738, 0.011679], rtol=1e-4)
    assert theory.stability_limit(0) == 2
    assert theory.stability_limit(0, momentum=0.9) == pytest.approx(3.8)
    assert theory.best_step(0) == 1


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("staleness", [0, *STALENESS])
def test_the_recursion_grows_above_the_limit_and_shrinks_below(staleness, momentum):
    limit = theory.stability_limit(staleness, momentum)
    length = 400 * (staleness + 1)
    for factor, grows in ((0.98, False), (1.02, True)):
        x = run(factor * limit, staleness, momentum, length)
        middle, end = x[length // 2 - 40 * staleness - 40 : length // 2], x[-40 * staleness - 40 :]
        assert (end.max() > middle.max()) == grows


@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("staleness", [0, 1, 2, 3, 7, 31])
def test_radii_are_those_of_the_companion_matrix(staleness, momentum):
    limit = theory.stability_limit(staleness, momentum)
    best = theory.best_step(staleness, momentum)
    steps = [0.01 * best, 0.9 * best, 1.1 * best, 0.5 * limit, limit, 1.5 * limit]
    expected = [largest_modulus(step, staleness, momentum) for step in steps]
    radii = theory.spectral_radius(steps, staleness, momentum)
    np.testing.assert_allclose(radii, expected, atol=1e-10)
    assert radii[4] == pytest.approx(1, abs=1e-10)
    # Where roots are double a matrix has half the digits.
    radius = theory.spectral_radius(best, staleness, momentum)
    assert radius == pytest.approx(largest_modulus(best, staleness, momentum), abs=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("staleness", [0, 1, 3, 15])
def test_no_step_is_better_than_the_best(staleness, momentum):
    steps = np.linspace(0, theory.stability_limit(staleness, momentum), 2001)
    radii = theory.spectral_radius(steps, staleness, momentum)
    best = theory.spectral_radius(theory.best_step(staleness, momentum), staleness, momentum)
    assert radii.min() >= best - 1e-7
    if not momentum:
        assert best == pytest.approx(staleness / (staleness + 1), abs=1e-7)


def test_the_matrix_steps_the_recursion():
    state, matrix = np.ones(4), theory.companion_matrix(0.2, 3, 0.5)
    x = [1.0] * 5
    for _ in range(30):
        x.append(x[-1] + 0.5 * (x[-1] - x[-2]) - 0.2 * x[-4])
        state = matrix @ state
    assert state[0] == pytest.approx(x[-1], rel=1e-12)


def test_a_dominant_root_solves_its_equation():
    steps, staleness, momentum = np.linspace(0.01, 1.5, 60), 5, 0.7
    z = theory.dominant_root(steps, staleness, momentum)
    residuals = z ** (staleness - 1) * (z - 1) * (z - momentum) + steps
    assert np.abs(residuals).max() < 1e-10
    assert (z.imag >= 0).all()


def test_a_map_is_quick_and_agrees_with_the_limits():
    steps, staleness = np.linspace(0, 2, 200), np.arange(200)
    started = time.perf_counter()
    radii = theory.stability_map(steps, staleness)
    seconds = time.perf_counter() - started
    assert seconds < 3  # 0.15 on an idle core
    assert radii.shape == (200, 200)
    limits = theory.stability_limit(staleness)[:, None]
    np.testing.assert_array_equal(radii[:, 1:-1] < 1, steps[1:-1] < limits)
    three = theory.stability_map([0.1, 0.2], [1, 2, 3], momentum=[0.0, 0.5])
    assert three.shape == (2, 3, 2)
    assert three[1, 2, 0] == theory.spectral_radius(0.1, 3, 0.5)


@given(st.integers(0, 300), st.floats(0, 0.99), st.floats(0, 0.99))
def test_staleness_lowers_the_limit(staleness, momentum, other):
    assert theory.stability_limit(staleness + 1, momentum) < theory.stability_limit(
        staleness, momentum
    )
    if staleness >= 1:  # with fresh gradients momentum raises it
        low, high = sorted([momentum, other])
        assert theory.stability_limit(staleness, high) <= theory.stability_limit(staleness, low)


@given(st.integers(0, 100), st.floats(0.01, 0.99), st.floats(0, 0.95))
def test_a_mode_shrinks_exactly_below_the_limit(staleness, factor, momentum):
    limit = theory.stability_limit(staleness, momentum)
    assert theory.spectral_radius(factor * limit, staleness, momentum) < 1
    assert theory.spectral_radius(limit / factor, staleness, momentum) > 1


BAD = {
    "stability_limit(-1)": "staleness must be an integer >= 0, got -1",
    "stability_limit([3, -2])": "staleness must be an integer >= 0, got -2",
    "stability_limit(3, momentum=1.0)": r"momentum must be a finite number >= 0 and < 1, got 1.0",
    "best_step(2, momentum=-0.1)": "momentum must be a finite number >= 0 and < 1, got -0.1",
    "spectral_radius(-0.1, 3)": "step must be a finite number >= 0, got -0.1",
    "spectral_radius(float('nan'), 3)": "step must be a finite number >= 0, got nan",
    "dominant_root([0.1, float('inf')], 3)": "step must be a finite number >= 0",
    "companion_matrix(0.1, -1)": "staleness must be an integer >= 0, got -1",
    "stability_map([[0.1]], [1])": r"steps must be one row of numbers, got shape \(1, 1\)",
    "stability_map([], [1])": r"steps must be one row of numbers, got shape \(0,\)",
}


@pytest.mark.parametrize("call", BAD)
def test_bad_values_raise(call):
    with pytest.raises(ValueError, match=BAD[call]) as raised:
        eval("theory." + call)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("call", ["stability_limit(1.5)", "best_step('3')", "best_step(True)"])
def test_staleness_must_be_an_integer(call):
    with pytest.raises(TypeError, match="staleness must be an integer >= 0"):
        eval("theory." + call)
