"""Dynamic compensation against a NumPy loop, and what it promises of scales and outliers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from async_optax.transforms import compensate_delay_dynamic

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def arrivals(num_steps, seed=0):
    """Gradients of a quadratic with noise, at stale points of a random walk."""
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.normal(0, 0.3, (num_steps + 4, 5)), axis=0)
    for step in range(num_steps):
        staleness = int(rng.integers(0, 4))
        x, s = walk[step + 3], walk[step + 3 - staleness]
        yield np.arange(1, 6) * s + rng.normal(0, 0.1, 5), x, s, staleness


def by_loop(decay, max_ratio):
    mean_square, weight, a, b = np.zeros(5), 0.0, 0.0, 0.0
    old_g, old_s = np.zeros(5), np.zeros(5)
    for g, x, s, staleness in arrivals(40):
        z = (mean_square / weight if weight else mean_square) * (s - old_s)
        if old_g.any():
            mean_square = decay * mean_square + (1 - decay) * old_g**2
            weight = decay * weight + 1 - decay
        h = mean_square / weight if weight else mean_square
        if staleness:
            a = decay * a + (1 - decay) * (g - old_g) @ z
            b = decay * b + (1 - decay) * z @ z
        q = h * (x - s)
        strength = max(a / b, 0) if b else 0.0
        if q.any():
            strength = min(strength, max_ratio * np.linalg.norm(g) / np.linalg.norm(q))
        yield g + strength * q
        old_g, old_s = g, s


def tree(x):
    x = jnp.asarray(x)
    return {"a": x[:2], "b": x[2:]}


def run(tx, rows, scale=1.0):
    state, step = tx.init(tree(np.zeros(5))), jax.jit(tx.update)
    for g, x, s, staleness in rows:
        updates, state = step(
            tree(scale * g), state, tree(x), stale_params=tree(s), staleness=staleness
        )
        yield np.concatenate([updates["a"], updates["b"]])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("decay", "max_ratio"), [(0.9, 1.0), (0.5, 0.1), (0.0, 1e6), (0.9, 0.0)])
def test_it_equals_a_numpy_loop(decay, max_ratio):
    ours = run(compensate_delay_dynamic(decay, max_ratio), arrivals(40))
    for updates, expected in zip(ours, by_loop(decay, max_ratio), strict=True):
        np.testing.assert_allclose(updates, expected, rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_a_scaled_loss_gives_a_scaled_gradient():
    tx = compensate_delay_dynamic()
    for one, scaled in zip(run(tx, arrivals(20)), run(tx, arrivals(20), 1e3), strict=True):
        np.testing.assert_allclose(scaled, 1e3 * one, rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_it_predicts_better_than_the_stale_gradient():
    tx = compensate_delay_dynamic()
    errors = []
    for updates, (g, x, _, staleness) in zip(run(tx, arrivals(400)), arrivals(400), strict=True):
        if staleness:
            fresh = np.arange(1, 6) * x
            errors.append((np.linalg.norm(updates - fresh), np.linalg.norm(g - fresh)))
    ours, stale = np.median(np.array(errors)[100:], axis=0)
    assert ours < 0.9 * stale


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sigma", [0.3, 1.0, 3.0])
def test_without_curvature_the_fit_finds_none(sigma):
    """A linear loss: gradients differ by their noise alone, which must not look like curvature."""
    rng, delay, size = np.random.default_rng(0), 4, 20
    tx = compensate_delay_dynamic(decay=0.9)
    x = jnp.zeros(size)
    history, state = [x] * (delay + 1), tx.init(x)
    step = jax.jit(lambda g, state, x, s: tx.update(g, state, x, stale_params=s, staleness=delay))
    explained = predicted = 0.0
    for _ in range(4000):
        g = 1 + sigma * rng.normal(size=size)
        _, state = step(g, state, history[-1], history[-1 - delay])
        history = [*history[1:], history[-1] - 0.01 * g]
        explained, predicted = explained + state.explained, predicted + state.predicted
    assert abs(explained / predicted) < 0.15  # with the gradient's own square it is above 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38])
def test_what_is_not_finite_is_forgotten(bad):
    tx = compensate_delay_dynamic()
    rows = list(arrivals(12))
    rows[5] = (np.full(5, bad), *rows[5][1:])
    results = list(run(tx, rows))
    assert all(np.isfinite(updates).all() for updates in results[6:])


def test_fresh_gradients_pass_bit_for_bit():
    tx = compensate_delay_dynamic()
    rows = [(g, s, s, 0) for g, _, s, _ in arrivals(10)]
    for updates, (g, *_) in zip(run(tx, rows), rows, strict=True):
        np.testing.assert_array_equal(updates, np.asarray(g, np.float32))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_dtypes_are_kept(dtype):
    tx = compensate_delay_dynamic()
    x = [jnp.ones(3, dtype), jnp.ones(2, dtype), None]
    state = tx.init(x)
    updates, after = jax.jit(tx.update)(x, state, x, stale_params=x, staleness=1)
    assert [u.dtype for u in jax.tree.leaves(updates)] == [jnp.dtype(dtype)] * 2
    types = [jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in (state, after)]
    assert types[0] == types[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decay": 1.0}, "decay must be .* >= 0 and < 1, got 1.0"),
        ({"max_ratio": -1.0}, "max_ratio must be .* >= 0, got -1.0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        compensate_delay_dynamic(**arguments)
    tx, x = compensate_delay_dynamic(), jnp.ones(1)
    with pytest.raises(ValueError, match="needs params and stale_params"):
        tx.update(x, tx.init(x), None, stale_params=x, staleness=1)
    with pytest.raises(TypeError, match="stale"):
        tx.update(x, tx.init(x), x)
