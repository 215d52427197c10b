"""Clipping: against optax where optax is right, and where it is not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from async_optax.transforms import bi_clip, clip_by_global_norm
from async_optax.transforms.precision import scaled_norm


def apply(tx, gradient):
    return tx.update(gradient, tx.init(gradient))[0]


def tree(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return {
        "w": jnp.asarray(scale * rng.normal(size=(4, 3)), jnp.float32),
        "b": [jnp.asarray(scale * rng.normal(size=5), jnp.float32), None],
    }


@pytest.mark.parametrize("scale", [1e-6, 0.1, 1.0, 1e6])
def test_agrees_with_optax_in_its_range(scale):
    gradient = tree(0, scale)
    ours = apply(clip_by_global_norm(1.0), gradient)
    theirs = apply(optax.clip_by_global_norm(1.0), gradient)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, theirs)


def test_huge_gradients_are_clipped_not_lost():
    gradient = tree(0, 1e30)
    ours = apply(clip_by_global_norm(2.0), gradient)
    np.testing.assert_allclose(optax.tree.norm(ours), 2.0, rtol=1e-6)
    # What this guards against: optax squares first, and the update vanishes.
    assert optax.tree.norm(apply(optax.clip_by_global_norm(2.0), gradient)) == 0


def test_tiny_gradients_are_untouched_and_do_not_underflow():
    gradient = tree(0, 1e-30)
    ours = apply(clip_by_global_norm(1e-31), gradient)
    np.testing.assert_allclose(optax.tree.norm(jax.tree.map(lambda g: g * 1e31, ours)), 1, 1e-5)


@pytest.mark.parametrize("exponent", [-37, -22, -17, -16, -15, 0, 18, 19, 38])
def test_the_norm_is_as_precise_where_its_square_leaves_the_range(exponent):
    gradient = jnp.asarray(3.0 * 10.0**exponent * np.linspace(0.1, 1, 1000), jnp.float32)
    true_norm = np.linalg.norm(np.asarray(gradient, np.float64))
    scale, relative_norm = jax.jit(scaled_norm)([gradient])
    np.testing.assert_allclose(float(scale) * float(relative_norm), true_norm, rtol=1e-6)
    ours = np.asarray(apply(clip_by_global_norm(1e-12), gradient), np.float64)
    np.testing.assert_allclose(np.linalg.norm(ours), min(true_norm, 1e-12), rtol=1e-6)


def test_many_bfloat16_coordinates_do_not_bias_the_norm():
    gradient = jnp.full(65536, 0.01, jnp.bfloat16)
    ours = apply(clip_by_global_norm(1.0), gradient)
    assert ours.dtype == jnp.bfloat16
    true_norm = np.linalg.norm(np.asarray(gradient, np.float64))
    np.testing.assert_allclose(np.asarray(ours, np.float64)[0], 0.01 / true_norm, rtol=0.01)


def test_zero_gradient_stays_zero_and_nan_stays_nan():
    assert not apply(clip_by_global_norm(1.0), jnp.zeros(3)).any()
    assert jnp.isnan(apply(clip_by_global_norm(1.0), jnp.array([jnp.nan, 1.0]))).all()
    assert apply(clip_by_global_norm(1.0), {"empty": None}) == {"empty": None}


@pytest.mark.usefixtures("x64")
def test_double_precision_is_kept():
    gradient = jnp.asarray(np.random.default_rng(0).normal(size=50))
    expected = np.asarray(gradient) * (0.5 / np.linalg.norm(gradient))
    np.testing.assert_allclose(apply(clip_by_global_norm(0.5), gradient), expected, rtol=1e-14)


FLOATS = hnp.arrays(
    np.float32,
    st.integers(1, 20),
    elements=st.floats(-(2.0**126), 2.0**126, width=32, allow_subnormal=False),
)


@given(gradient=FLOATS, max_norm=st.floats(1e-3, 1e3))
def test_norm_never_exceeds_the_threshold(gradient, max_norm):
    clipped = np.asarray(apply(clip_by_global_norm(max_norm), jnp.asarray(gradient)), np.float64)
    norm = np.linalg.norm(gradient.astype(np.float64))
    assert np.linalg.norm(clipped) <= max_norm * (1 + 1e-5)
    if norm <= max_norm * (1 - 1e-5):
        np.testing.assert_array_equal(clipped, gradient)
    else:  # the direction is kept
        # float32 flushes coordinates below 1e-38 to zero.
        np.testing.assert_allclose(
            clipped, gradient / norm * max_norm, rtol=1e-5, atol=2e-38 * max(max_norm, 1)
        )


@given(
    gradient=FLOATS,
    bounds=st.tuples(st.floats(0, 10, width=32), st.floats(0.125, 10, width=32)).map(sorted),
)
def test_bi_clip_bounds_every_magnitude(gradient, bounds):
    lower, upper = bounds
    if upper == 0:
        return
    clipped = np.asarray(apply(bi_clip(lower, upper), jnp.asarray(gradient)))
    np.testing.assert_array_equal(np.sign(clipped), np.sign(gradient))
    moved = gradient != 0
    expected = np.clip(np.abs(gradient[moved]), lower, upper)
    np.testing.assert_array_equal(np.abs(clipped[moved]), expected)


def test_bi_clip_follows_schedules():
    tx = bi_clip(lambda step: 0.1 * step, optax.linear_schedule(1.0, 2.0, 2))
    state, gradient = tx.init(None), jnp.array([5.0, 0.01])
    seen = []
    for _ in range(3):
        updates, state = tx.update(gradient, state)
        seen.append(updates)
    np.testing.assert_allclose(seen, [[1.0, 0.01], [1.5, 0.1], [2.0, 0.2]], rtol=1e-6)
    assert state.step == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: clip_by_global_norm(0.0), "max_norm must be a finite number > 0, got 0.0"),
        (lambda: clip_by_global_norm(float("nan")), "max_norm must be"),
        (lambda: bi_clip(-1.0, 1.0), "lower must be a finite number >= 0, got -1.0"),
        (lambda: bi_clip(0.0, 0.0), "upper must be a finite number > 0, got 0.0"),
        (lambda: bi_clip(2.0, 1.0), "lower must be <= upper, got lower=2.0 and upper=1.0"),
    ],
)
def test_bad_numbers_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()


LARGEST = {"float16": 6e4, "bfloat16": 1e38, "float32": 1e38}


@pytest.mark.parametrize("dtype", LARGEST)
def test_squares_that_overflow_are_clipped_to_the_threshold(dtype):
    """Trees of one low precision throughout, whose squared norm is beyond its range."""
    g = {"a": jnp.array([LARGEST[dtype], 0.0], dtype), "b": jnp.array([[-LARGEST[dtype]]], dtype)}
    for tx, size in (
        (clip_by_global_norm(1.0), 0.5**0.5),
        (bi_clip(0.0, 1.0), 1.0),
    ):
        updates, _ = jax.jit(tx.update)(g, tx.init(g))
        assert updates["a"].dtype == updates["b"].dtype == jnp.dtype(dtype)
        np.testing.assert_allclose(np.asarray(updates["a"], float), [size, 0.0], rtol=0.01)
        np.testing.assert_allclose(np.asarray(updates["b"], float), [[-size]], rtol=0.01)


def test_what_is_not_finite():
    """The norm clip leaves it not finite; by coordinate, infinity is clipped and NaN stays."""
    g = jnp.array([jnp.inf, 1.0, jnp.nan, -jnp.inf])
    norm, coordinate = clip_by_global_norm(1.0), bi_clip(0.0, 0.5)
    for part in (g, g[:2], g[1:3]):
        assert not jnp.isfinite(norm.update(part, norm.init(part))[0]).all()
    updates, _ = coordinate.update(g, coordinate.init(g))
    np.testing.assert_array_equal(updates, [0.5, 0.5, jnp.nan, -0.5])
