"""Weights against the formulas, spelled out in plain Python."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_optax import weights

FORMULAS = {
    "constant": (weights.constant(), lambda tau: 1.0),
    "inverse": (weights.inverse(), lambda tau: 1 / max(tau, 1)),
    "polynomial": (weights.polynomial(0.7), lambda tau: (1 + tau) ** -0.7),
    "hinge": (weights.hinge(2.0, 3), lambda tau: 1 if tau <= 3 else 1 / (2.0 * (tau - 3) + 1)),
    "concurrency": (weights.concurrency(6), lambda tau: 6 / max(6, tau + 1)),
    "cutoff": (weights.cutoff(5), lambda tau: float(tau <= 5)),
    "exponential": (weights.exponential(0.3), lambda tau: math.exp(-0.3 * tau)),
    "delay_cap": (
        weights.delay_cap(6, smoothness=2.0, learning_rate=0.05),
        lambda tau: 1.0 if tau <= 6 else min(1, 1 / (4 * 2.0 * 0.05 * tau)),
    ),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name):
    weight_fn, formula = FORMULAS[name]
    taus = np.arange(100, dtype=np.int32)
    expected = [formula(int(tau)) for tau in taus]
    np.testing.assert_allclose(jax.vmap(weight_fn)(taus), expected, rtol=1e-15, atol=0)
    np.testing.assert_allclose([weight_fn(int(tau)) for tau in taus[:5]], expected[:5], rtol=1e-15)


@pytest.mark.parametrize("name", FORMULAS)
def test_fresh_gradients_pass_in_full(name):
    assert FORMULAS[name][0](0) == 1


@pytest.mark.parametrize("name", FORMULAS)
@given(tau=st.integers(0, 2**30))
def test_weights_lie_between_zero_and_one_and_do_not_grow(name, tau):
    weight_fn, _ = FORMULAS[name]
    now, later = weight_fn(jnp.int32(tau)), weight_fn(jnp.int32(tau + 1))
    assert 0 <= later <= now <= 1


@pytest.mark.parametrize("name", FORMULAS)
def test_bad_staleness_raises(name):
    weight_fn, _ = FORMULAS[name]
    with pytest.raises(ValueError, match="staleness must be an integer >= 0, got -1"):
        weight_fn(-1)
    with pytest.raises(TypeError, match="staleness must be an integer"):
        weight_fn(1.5)
    with pytest.raises(TypeError, match="staleness must be an integer"):
        jax.jit(weight_fn)(jnp.float32(1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: weights.polynomial(-0.5), "power must be a finite number >= 0, got -0.5"),
        (lambda: weights.hinge(slope=0), "slope must be a finite number > 0, got 0"),
        (lambda: weights.hinge(threshold=-1), "threshold must be"),
        (lambda: weights.concurrency(0), "num_workers must be a finite number >= 1, got 0"),
        (lambda: weights.cutoff(float("nan")), "max_staleness must be .* got nan"),
        (lambda: weights.exponential(float("inf")), "rate must be .* got inf"),
        (lambda: weights.delay_cap(0, 1.0, 0.1), "concurrency must be"),
        (lambda: weights.delay_cap(1, 0.0, 0.1), "smoothness must be"),
        (lambda: weights.delay_cap(1, 1.0, -0.1), "learning_rate must be"),
    ],
)
def test_bad_numbers_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_non_numbers_raise():
    with pytest.raises(
        TypeError, match="power must be a finite number >= 0, got '0.5' of type str"
    ):
        weights.polynomial("0.5")
    with pytest.raises(TypeError, match="of type bool"):
        weights.exponential(True)


def test_numbers_are_leaves():
    assert jax.tree.leaves(weights.hinge(2.0, 3)) == [2.0, 3]
    assert jax.tree.structure(weights.polynomial(0.1)) == jax.tree.structure(
        weights.polynomial(0.2)
    )
