"""Adaptive clipping against NumPy loops, and what it promises of outliers."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from async_optax import transforms

pytestmark = pytest.mark.usefixtures("strict_dtypes")


@jax.jit
def step(tx, g, state):
    return tx.update(g, state)


def run(tx, gradients):
    state = tx.init(gradients[0])
    for g in gradients:
        updates, state = step(tx, g, state)
        yield jax.tree.map(np.asarray, updates)


def heavy(num_steps, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    draws = scale * rng.standard_cauchy((num_steps, 7))
    return [{"a": jnp.asarray(d[:4]), "b": jnp.asarray(d[4:])} for d in draws]


def flat(tree):
    return np.concatenate([np.asarray(tree["a"]), np.asarray(tree["b"])])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("quantile", "window"), [(0.5, 4), (0.9, 10), (1.0, 3), (0.3, 1)])
def test_norm_quantile_equals_a_numpy_loop(quantile, window):
    gradients, norms = heavy(40), []
    tx = transforms.clip_by_quantile(quantile, window)
    for g, updates in zip(gradients, run(tx, gradients), strict=True):
        norms.append(np.linalg.norm(flat(g)))
        latest = norms[-window:]
        c = np.quantile(latest, quantile, method="lower")
        expected = flat(g) * min(1.0, c / norms[-1])
        np.testing.assert_allclose(flat(updates), expected, rtol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("granularity", ["global", "layer", "coordinate"])
def test_coordinate_quantile_equals_a_numpy_loop(granularity):
    quantile, rate = 0.7, 0.3
    parts = {"global": [7], "layer": [4, 3], "coordinate": [1] * 7}[granularity]
    gradients = heavy(40)
    tx = transforms.clip_coordinates_by_quantile(quantile, rate, granularity=granularity)
    c = None
    for g, updates in zip(gradients, run(tx, gradients), strict=True):
        blocks = np.split(flat(g), np.cumsum(parts)[:-1])
        if c is None:
            c = [np.quantile(abs(b), quantile, method="inverted_cdf") for b in blocks]
        expected = [np.sign(b) * np.minimum(np.abs(b), k) for b, k in zip(blocks, c, strict=True)]
        np.testing.assert_allclose(flat(updates), np.concatenate(expected), rtol=1e-12)
        shares = [np.mean(np.abs(b) > k) for b, k in zip(blocks, c, strict=True)]
        c = [k * np.exp(rate * (f - (1 - quantile))) for k, f in zip(c, shares, strict=True)]


@pytest.mark.parametrize("quantile", [0.3, 0.5, 0.8])
def test_the_clipped_share_tends_to_the_quantile(quantile):
    tx = transforms.clip_coordinates_by_quantile(quantile, 0.05)
    rng = np.random.default_rng(0)
    gradients = [jnp.asarray(rng.standard_cauchy(500), jnp.float32) for _ in range(600)]
    clipped = [
        np.mean(u != np.asarray(g)) for g, u in zip(gradients, run(tx, gradients), strict=True)
    ]
    assert np.mean(clipped[400:]) == pytest.approx(1 - quantile, abs=0.02)


@hypothesis.given(
    scale=st.floats(1e-6, 1e6), granularity=st.sampled_from(["global", "layer", "coordinate"])
)
def test_thresholds_follow_the_scale(scale, granularity):
    tx = transforms.clip_coordinates_by_quantile(0.5, granularity=granularity)
    for one, scaled in zip(run(tx, heavy(4)), run(tx, heavy(4, scale=scale)), strict=True):
        np.testing.assert_allclose(flat(scaled), scale * flat(one), rtol=1e-4)


@pytest.mark.parametrize("outlier", [1e30, np.inf])
def test_one_outlier_hardly_moves_the_threshold(outlier):
    tx = transforms.clip_coordinates_by_quantile(0.5, rate=0.1)
    ordinary = jnp.array([1.0, -2.0, 3.0, 4.0])
    state = tx.init(ordinary)
    _, state = tx.update(ordinary, state)
    before = state.threshold
    updates, state = tx.update(ordinary.at[0].set(outlier), state)
    after = state.threshold
    assert updates[0] == pytest.approx(float(before), rel=1e-6)
    assert abs(np.log(after / before)) <= 0.1 * 0.5 + 1e-6


def test_tiny_coordinates_do_not_drag_the_start_down():
    tx = transforms.clip_coordinates_by_quantile(0.5)
    g = jnp.concatenate([jnp.full(40, 1e-12), jnp.full(60, 1.0)])
    updates, state = tx.update(g, tx.init(g))
    np.testing.assert_array_equal(updates, g)
    assert state.threshold == pytest.approx(1.0, rel=0.1)


def test_empty_trees_pass():
    for granularity in ("global", "layer", "coordinate"):
        tx = transforms.clip_coordinates_by_quantile(0.5, granularity=granularity)
        assert tx.update({}, tx.init({}))[0] == {}


def test_zeros_neither_count_nor_move():
    tx = transforms.clip_coordinates_by_quantile(0.5, granularity="coordinate")
    g = jnp.array([0.0, 2.0])
    state = tx.init(g)
    updates, state = tx.update(g, state)
    np.testing.assert_array_equal(updates, g)
    assert state.threshold[0] == 0
    norm = transforms.clip_by_quantile(0.5, window=2)
    _, norm_state = norm.update(jnp.zeros(2), norm.init(g))
    updates, norm_state = norm.update(g, norm_state)
    np.testing.assert_array_equal(updates, g)
    assert norm_state.seen == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_gradients_that_are_not_finite(bad):
    norm = transforms.clip_by_quantile(0.5, window=5)
    state = norm.init(jnp.zeros(2))
    for _ in range(4):
        _, state = norm.update(jnp.array([1.0, 0.0]), state)
    updates, state = norm.update(jnp.array([bad, 1.0]), state)
    np.testing.assert_array_equal(updates, jnp.array([bad, 1.0]))
    # The next gradients meet the old quantile.
    assert norm.update(jnp.array([10.0, 0.0]), state)[0][0] == pytest.approx(1.0)
    by_coordinate = transforms.clip_coordinates_by_quantile(0.5)
    updates, state = by_coordinate.update(jnp.array([bad, 1.0]), by_coordinate.init(jnp.zeros(2)))
    assert jnp.isnan(updates[0]) == np.isnan(bad)
    assert jnp.isfinite(state.threshold)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize(
    "tx",
    [
        transforms.clip_by_quantile(0.5, window=3),
        transforms.clip_coordinates_by_quantile(0.5),
        transforms.clip_coordinates_by_quantile(0.5, granularity="layer"),
        transforms.clip_coordinates_by_quantile(0.5, granularity="coordinate"),
    ],
    ids=["norm", "global", "layer", "coordinate"],
)
def test_dtypes_are_kept_and_large_values_survive(tx, dtype):
    g = [jnp.full(3, 2.0**15, dtype), jnp.ones(2, dtype), None]
    state = tx.init(g)
    updates, after = jax.jit(tx.update)(g, state)
    assert [u.dtype for u in jax.tree.leaves(updates)] == [jnp.dtype(dtype)] * 2
    assert all(jnp.isfinite(u).all() and (u > 0).all() for u in jax.tree.leaves(updates))
    types = [jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in (state, after)]
    assert types[0] == types[1]


@pytest.mark.parametrize(
    ("factory", "arguments", "message"),
    [
        (transforms.clip_by_quantile, {"quantile": 0.0}, "quantile must be .* > 0 and <= 1"),
        (transforms.clip_by_quantile, {"quantile": 1.5}, "quantile must be .*got 1.5"),
        (transforms.clip_by_quantile, {"window": 0}, "window must be an integer >= 1, got 0"),
        (transforms.clip_coordinates_by_quantile, {"quantile": 1.0}, "> 0 and < 1, got 1.0"),
        (transforms.clip_coordinates_by_quantile, {"rate": 0.0}, "rate must be .* > 0"),
        (
            transforms.clip_coordinates_by_quantile,
            {"granularity": "row"},
            "granularity must be one of coordinate, layer, global; got 'row'",
        ),
    ],
)
def test_bad_arguments(factory, arguments, message):
    with pytest.raises(ValueError, match=message):
        factory(**arguments)
