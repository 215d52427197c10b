"""Facts about the gap penalty."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from async_optax import transforms

pytestmark = pytest.mark.usefixtures("strict_dtypes")

X = {"a": jnp.array([1.0, 2.0, -1.0]), "b": jnp.array([0.5])}
G = {"a": jnp.array([0.3, -0.4, 1.0]), "b": jnp.array([2.0])}
granularities = pytest.mark.parametrize("granularity", ["coordinate", "layer", "global"])


def divisors(gap, granularity, rates=(0.5,)):
    """``g / update`` of the last of a few gradients, without momentum in what comes out."""
    schedule = lambda step: jnp.asarray(rates)[jnp.minimum(step, len(rates) - 1)]  # noqa: E731
    tx = transforms.scale_by_gap_momentum(0.0, schedule, granularity=granularity)
    state = tx.init(X)
    for _ in rates:
        stale = jax.tree.map(lambda x: x - gap, X)
        updates, state = jax.jit(tx.update)(G, state, X, stale_params=stale)
    return np.concatenate(jax.tree.leaves(jax.tree.map(lambda g, u: g / u, G, updates)))


@granularities
def test_doubling_the_gap_doubles_the_excess(granularity):
    one, two = divisors(0.1, granularity), divisors(0.2, granularity)
    np.testing.assert_allclose(two - 1, 2 * (one - 1), rtol=1e-4)
    assert (one > 1).all()


@granularities
def test_a_decaying_rate_leaves_the_penalty(granularity):
    constant, decayed = (divisors(0.1, granularity, r) for r in ([0.5, 0.5], [0.5, 0.01]))
    np.testing.assert_allclose(constant, decayed, rtol=1e-6)
    smaller = divisors(0.1, granularity, [0.01, 0.01])
    np.testing.assert_allclose(smaller - 1, 50 * (constant - 1), rtol=1e-3)


def test_a_rate_of_zero_penalises_nothing():
    np.testing.assert_array_equal(divisors(0.1, "coordinate", [0.0]), np.ones(4))


@granularities
def test_layers_and_globals_share_one_divisor(granularity):
    shares = {"coordinate": 4, "layer": 2, "global": 1}[granularity]
    assert len(np.unique(divisors(0.1, granularity).round(4))) == shares


def test_a_layer_is_a_tree_of_its_own():
    tx = transforms.scale_by_gap_momentum(0.9, 0.5, granularity="layer")
    alone = transforms.scale_by_gap_momentum(0.9, 0.5, granularity="global")
    stale = jax.tree.map(lambda x: x - 0.1, X)
    state, state_a = tx.init(X), alone.init(X["a"])
    for _ in range(3):
        updates, state = tx.update(G, state, X, stale_params=stale)
        updates_a, state_a = alone.update(G["a"], state_a, X["a"], stale_params=stale["a"])
    np.testing.assert_allclose(updates["a"], updates_a, rtol=1e-6)


@pytest.mark.parametrize("bad", [1e25, np.inf, np.nan])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_one_gradient_beyond_the_range_does_not_end_the_penalty(bad, momentum):
    tx = transforms.scale_by_gap_momentum(momentum, 0.5)
    x = jnp.ones(1)
    state = tx.init(x)
    for g in (1.0, 1.0, bad):
        out, state = tx.update(jnp.full(1, g), state, x, stale_params=x - 0.5)
    assert jnp.isfinite(state.mean_square).all()
    if momentum == 0 and bad == 1e25:  # optax.trace keeps what is not finite
        out, state = tx.update(jnp.ones(1), state, x, stale_params=x - 0.5)
        assert 0 < out[0] < 0.9


def test_bad_arguments():
    with pytest.raises(ValueError, match="granularity must be one of .*; got 'row'"):
        transforms.scale_by_gap_momentum(0.9, 0.1, granularity="row")
    with pytest.raises(ValueError, match="momentum must be a finite number >= 0 and < 1, got 1.0"):
        transforms.scale_by_gap_momentum(1.0, 0.1)
    with pytest.raises(ValueError, match="max_learning_rate must be a finite number > 0, got 0.0"):
        transforms.scale_by_gap_momentum(0.9, 0.0)
    tx = transforms.scale_by_gap_momentum(0.9, 0.1, num_workers=2)
    with pytest.raises(TypeError, match="needs worker"):
        tx.update(G, tx.init(X), X, stale_params=X)
    with pytest.raises(ValueError, match="needs params and stale_params"):
        tx.update(G, tx.init(X), None, stale_params=X, worker=0)
