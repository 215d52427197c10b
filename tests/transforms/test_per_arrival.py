"""Staleness scaling, delay compensation and accumulation, step by step against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_optax import weights
from async_optax.transforms import accumulate_until_commit, compensate_delay, scale_by_staleness


@pytest.mark.usefixtures("x64")
def test_compensation_formula():
    rng = np.random.default_rng(0)
    g, x, s = rng.normal(size=(3, 7))
    tx = compensate_delay(0.3)
    updates, _ = tx.update(jnp.asarray(g), tx.init(x), jnp.asarray(x), stale_params=jnp.asarray(s))
    np.testing.assert_allclose(updates, g + 0.3 * g * g * (x - s), rtol=1e-15)


def test_compensation_does_not_overflow_when_squaring():
    g, x = jnp.array([1e25]), jnp.array([1.0])
    tx = compensate_delay(1.0)
    updates, _ = tx.update(g, tx.init(x), x, stale_params=x - 1e-20 * 0)
    np.testing.assert_array_equal(updates, g)


def test_compensation_needs_params():
    tx = compensate_delay(1.0)
    with pytest.raises(TypeError, match="stale_params"):
        tx.update(jnp.ones(1), tx.init(None), jnp.ones(1))
    with pytest.raises(ValueError, match="needs params and stale_params"):
        tx.update(jnp.ones(1), tx.init(None), None, stale_params=jnp.ones(1))
    with pytest.raises(ValueError, match="strength must be a finite number >= 0, got -1"):
        compensate_delay(-1.0)


def test_scaling_needs_staleness_and_a_function():
    tx = scale_by_staleness(weights.inverse())
    with pytest.raises(TypeError, match="staleness"):
        tx.update(jnp.ones(1), tx.init(None))
    with pytest.raises(TypeError, match="staleness"):
        tx.update(jnp.ones(1), tx.init(None), stalenes=3)
    with pytest.raises(TypeError, match="weight_fn must map the staleness to one number"):
        scale_by_staleness(0.5)
    with pytest.raises(TypeError, match="weight_fn must map the staleness to one number"):
        scale_by_staleness(weights.polynomial)  # not called
    with pytest.raises(TypeError, match="weight_fn must map the staleness to one number"):
        scale_by_staleness(weights.inverse)
    with pytest.raises(ValueError, match=r"staleness must be a scalar, got shape \(2,\)"):
        tx.update(jnp.ones(2), tx.init(None), staleness=jnp.array([1, 2]))


@pytest.mark.usefixtures("x64")
@given(
    arrivals=st.lists(
        st.tuples(st.floats(-5, 5), st.floats(0, 1), st.booleans()), min_size=1, max_size=12
    )
)
def test_accumulation_equals_sums_between_commits(arrivals):
    with jax.enable_x64(True):
        tx = accumulate_until_commit(optax.sgd(0.5, momentum=0.9))
        params = jnp.zeros(1)
        state, total, trace = tx.init(params), 0.0, 0.0
        for value, weight, commit in arrivals:
            gradient = jnp.array([value])
            updates, state = tx.update(gradient, state, params, commit=commit, weight=weight)
            total += weight * value
            expected = 0.0
            if commit:
                trace = total + 0.9 * trace
                expected, total = -0.5 * trace, 0.0
            np.testing.assert_allclose(updates, [expected], rtol=1e-13, atol=1e-13)


def test_accumulation_freezes_the_schedule_between_commits():
    tx = accumulate_until_commit(optax.sgd(lambda step: 1.0 + step))
    state, g = tx.init(jnp.zeros(1)), jnp.ones(1)
    seen = []
    for commit in (False, True, False, True):
        updates, state = tx.update(g, state, commit=commit, weight=0.5)
        seen.append(float(updates[0]))
    assert seen == [0.0, -1.0, 0.0, -2.0]


def test_accumulation_of_low_precision_is_done_in_float32():
    tx = accumulate_until_commit(optax.sgd(1.0))
    g = jnp.ones(1, jnp.bfloat16)
    state, update = tx.init(g), jax.jit(tx.update)
    for i in range(512):
        updates, state = update(g, state, commit=i == 511, weight=1.0)
    assert updates.dtype == jnp.bfloat16
    assert updates[0] == -512  # bfloat16 sums would stop at 256


def test_every_arrival_commits_without_the_arguments():
    tx, plain = accumulate_until_commit(optax.adam(0.1)), optax.adam(0.1)
    g = jnp.array([1.0, -2.0])
    state, plain_state = tx.init(g), plain.init(g)
    for _ in range(3):
        updates, state = tx.update(g, state)
        expected, plain_state = plain.update(g, plain_state)
        np.testing.assert_array_equal(updates, expected)


def test_a_weight_of_zero_drops_what_is_not_finite():
    g = jnp.array([jnp.inf, jnp.nan, 1.0])
    tx = scale_by_staleness(weights.cutoff(2))
    assert not tx.update(g, tx.init(g), staleness=5)[0].any()
    tx = accumulate_until_commit(optax.sgd(1.0))
    _, state = tx.update(g, tx.init(g), commit=False, weight=0.0)
    updates, _ = tx.update(jnp.ones(3), state, commit=True, weight=1.0)
    np.testing.assert_array_equal(updates, -1)


def test_masked_compensation_needs_its_mask_for_the_stale_params_too():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    tx = optax.masked(
        compensate_delay(1.0), {"a": True, "b": False}, mask_compatible_extra_args=True
    )
    stale = {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    updates, _ = tx.update(params, tx.init(params), params, stale_params=stale)
    np.testing.assert_array_equal(updates["a"], 2)
    np.testing.assert_array_equal(updates["b"], 1)


def test_accumulation_rejects_half_of_the_arguments():
    tx = accumulate_until_commit(optax.sgd(1.0))
    with pytest.raises(TypeError, match="weight is missing"):
        tx.update(jnp.ones(1), tx.init(jnp.ones(1)), commit=True)
    with pytest.raises(TypeError, match="commit is missing"):
        tx.update(jnp.ones(1), tx.init(jnp.ones(1)), weight=1.0)
    with pytest.raises(TypeError, match="inner must be a gradient transformation"):
        accumulate_until_commit(lambda g: g)
