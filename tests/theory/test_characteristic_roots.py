"""The continuum: Lambert's roots, and how the discrete recursion comes close to them."""

import math

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

from async_optax import theory

BRANCH_POINT = -1 / math.e


@pytest.mark.parametrize("branch", [0, -1])
@pytest.mark.parametrize("distance", [0.0, 1e-16, 1e-12, 1e-8, 0.9e-4, 1.1e-4, 1e-2])
def test_lambert_w_solves_its_equation_around_the_branch_point(branch, distance):
    for x in (BRANCH_POINT * (1 - distance), BRANCH_POINT * (1 + distance)):
        w = theory.lambert_w(x, branch)
        assert abs(w * np.exp(w) - x) < 1e-14
        assert (w.imag == 0) == (x >= BRANCH_POINT)
        assert w.imag or (w.real >= -1 if branch == 0 else w.real <= -1)


def test_lambert_w_is_scipys_elsewhere():
    x, branches = np.array([-5.0, -0.2, 0.5, 3.0]), np.arange(-2, 3)[:, None]
    np.testing.assert_array_equal(
        theory.lambert_w(x, branches), scipy.special.lambertw(x, branches)
    )


@pytest.mark.parametrize("load", [0.05, 1 / math.e, 0.5, 1.0, math.pi / 2, 4.0])
def test_all_roots_solve_the_characteristic_equation(load):
    gain, delay = 0.1, 10 * load
    roots = theory.characteristic_roots(gain, delay, num_pairs=6)
    assert np.abs(roots + gain * np.exp(-roots * delay)).max() < 1e-12
    assert len({complex(np.round(root, 9)) for root in roots}) == 12 - (load == 1 / math.e)
    assert (np.diff(roots.real) <= 1e-12).all()
    np.testing.assert_array_equal(theory.damping(gain, delay), -roots[0].real)
    np.testing.assert_array_equal(theory.frequency(gain, delay), roots[0].imag)
    assert theory.oscillates(gain, delay) == (load > 1 / math.e)
    assert (theory.damping(gain, delay) > 1e-12) == (load < 1.57)


def test_damping_has_the_known_values():
    # In units of the gain; at 1/e it is e times faster than without a delay.
    damping = theory.damping(1.0, [0.0, 0.1, 1 / math.e, 0.5, 1.0, math.pi / 2])
    np.testing.assert_allclose(damping, [1, 1.118, math.e, 1.588, 0.318, 0], atol=1e-3)
    assert theory.continuum_limit(2.0) == pytest.approx(math.pi / 4)
    at_once = theory.characteristic_roots(0.5, 0.0, num_pairs=2)
    np.testing.assert_array_equal(at_once, [-0.5, -np.inf, -np.inf, -np.inf])


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("load", [0.2, 0.7, 1.3])
def test_discrete_roots_come_close_with_order_one_or_two(load, half):
    # A unit delay in n commits: the discrete root is exp(z / n) up to the order measured.
    sizes = np.array([8, 16, 32, 64, 128])
    errors = []
    for n in sizes:
        matrix = theory.companion_matrix(load / n, int(n))
        roots = n * np.log(np.linalg.eigvals(matrix).astype(complex))
        discrete = roots[np.argmax(roots.real)]
        exact = theory.characteristic_roots(load, 1 + half / (2 * n), 1)[0]
        errors.append(abs(complex(discrete.real, abs(discrete.imag)) - exact))
    order = -np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert order == pytest.approx(2 if half else 1, abs=0.12)


@given(st.floats(1e-3, 1.5), st.floats(1e-3, 1.5), st.floats(0.01, 100.0))
def test_damping_falls_beyond_critical_damping(load, other, gain):
    low, high = sorted([load, other])
    if low > 1 / math.e:
        assert theory.damping(gain, high / gain) <= theory.damping(gain, low / gain) * (1 + 1e-9)
    if high < 1 / math.e:
        assert theory.damping(gain, high / gain) >= theory.damping(gain, low / gain) * (1 - 1e-9)
    assert theory.damping(gain, low / gain) > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("characteristic_roots(0.0, 1.0)", "gain must be a finite number > 0, got 0.0"),
        ("damping(1.0, -2.0)", "delay must be a finite number >= 0, got -2.0"),
        ("frequency(1.0, [1.0, -2.0])", "delay must be a finite number >= 0, got"),
        ("characteristic_roots(1.0, 1.0, 0)", "num_pairs must be an integer >= 1, got 0"),
        ("continuum_limit(0.0)", "delay must be a finite number > 0, got 0.0"),
        ("lambert_w(float('nan'))", "x must be a finite number, got nan"),
    ],
)
def test_bad_values_raise(call, message):
    with pytest.raises(ValueError, match=message):
        eval("theory." + call)


def test_branches_are_integers():
    with pytest.raises(TypeError, match="branch must be an integer"):
        theory.lambert_w(1.0, 0.5)
