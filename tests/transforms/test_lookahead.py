"""What workers are served: predictions of any optimizer's steps, and DANA-Zero's point."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import async_optax as ao
from async_optax import transforms
from tests.engine.problems import make_timeline, run_quadratic

X = {"w": jnp.array([1.0, -2.0]), "none": None}


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("num_steps", [0, 1, 4])
def test_horizon_is_the_geometric_sum(num_steps, decay):
    tx = transforms.look_ahead(optax.sgd(0.5), num_steps, decay)
    updates, state = tx.update(X, tx.init(X), X)
    np.testing.assert_array_equal(updates["w"], -0.5 * X["w"])
    steps = sum(decay**k for k in range(1, num_steps + 1))
    expected = X["w"] + steps * updates["w"]
    np.testing.assert_allclose(
        transforms.served_params(X, state)["w"], expected, rtol=1e-5, atol=1e-6
    )


def test_momentum_alone_would_lead_there():
    """With decay = momentum the look-ahead is where n steps without gradients lead."""
    momentum, n = 0.8, 5
    tx = transforms.look_ahead(optax.sgd(0.1, momentum), n, momentum)
    x, state = jnp.array([1.0]), None
    state = tx.init(x)
    for _ in range(3):
        updates, state = tx.update(x, state, x)
        x = x + updates
    served = transforms.served_params(x, state)
    for _ in range(n):
        updates, state = tx.update(jnp.zeros(1), state, x)
        x = x + updates
    np.testing.assert_allclose(served, x, rtol=1e-5)


def test_nothing_looks_ahead_by_default():
    tx = ao.optimizers.dana(0.1, num_workers=2)
    assert transforms.served_params(X, tx.init(X)) is X


def test_masked_and_nested_states_are_found():
    mask = {"w": True, "b": False}
    params = {"w": jnp.ones(2), "b": jnp.ones(2)}
    tx = optax.chain(optax.clip(10.0), optax.masked(transforms.look_ahead(optax.sgd(0.5), 2), mask))
    _, state = tx.update(params, tx.init(params), params)
    served = transforms.served_params(params, state)
    np.testing.assert_array_equal(served["w"], [0.0, 0.0])
    np.testing.assert_array_equal(served["b"], [1.0, 1.0])
    twice = transforms.look_ahead(transforms.look_ahead(optax.sgd(0.5), 1), 2)
    updates, state = twice.update(X, twice.init(X), X)
    np.testing.assert_array_equal(
        transforms.served_params(X, state)["w"], X["w"] + 3 * updates["w"]
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_dtypes_are_kept(dtype):
    with jax.enable_x64(dtype == "float64"):
        params = jnp.ones(3, dtype)
        for tx in (
            transforms.look_ahead(optax.sgd(0.5), 3),
            transforms.trace_with_look_ahead(2, 0.5),
            transforms.trace_smega2(2, 0.5),
        ):
            _, state = jax.jit(tx.update)(params, tx.init(params), params, worker=jnp.int32(1))
            assert transforms.served_params(params, state).dtype == params.dtype
            start = jax.tree.map(lambda x: (x.shape, x.dtype), tx.init(params))
            assert start == jax.tree.map(lambda x: (x.shape, x.dtype), state)


def test_track_staleness_serves_the_look_ahead():
    tx = transforms.track_staleness(transforms.look_ahead(optax.sgd(0.5), 3), num_workers=2)
    x = jnp.array([1.0])
    updates, state = tx.update(x, tx.init(x), x, worker=1)
    assert transforms.worker_params(state, 1) == x + 4 * updates
    assert transforms.worker_params(state, 0) == x


def test_the_sum_of_momenta_does_not_drift():
    tx = transforms.trace_with_look_ahead(4, 0.1, decay=0.9)
    rng, step = np.random.default_rng(0), jax.jit(tx.update)
    state = tx.init(jnp.ones(50, jnp.bfloat16))
    for i in range(2000):
        g = jnp.asarray(rng.normal(size=50), jnp.bfloat16)
        _, state = step(g, state, worker=jnp.int32(i % 4))
    exact = state.trace.astype(jnp.float32).sum(0)
    np.testing.assert_allclose(state.total, exact, atol=0.02 * float(jnp.abs(exact).max()))


@pytest.mark.usefixtures("x64")
def test_dana_zero_serves_the_points_of_dana_slim():
    timeline = make_timeline(num_workers=6, num_commits=80)
    zero = optax.chain(
        transforms.trace_with_look_ahead(6, 0.02, 0.9),
        transforms.accumulate_until_commit(optax.sgd(0.02)),
    )
    slim = ao.optimizers.dana(0.02, num_workers=6, momentum=0.9)
    results = [run_quadratic(optimizer=tx, timeline=timeline) for tx in (zero, slim)]
    served = transforms.served_params(results[0].params, results[0].opt_state)
    np.testing.assert_allclose(served, results[1].params, rtol=0, atol=1e-14)
    losses = [r.arrivals["loss"] for r in results]
    np.testing.assert_allclose(*losses, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: transforms.look_ahead(optax.sgd(0.1), -1), "num_steps must be .* >= 0, got -1"),
        (lambda: transforms.look_ahead(optax.sgd(0.1), 1, 1.5), "decay must be .* <= 1, got 1.5"),
        (lambda: transforms.trace_with_look_ahead(0, 0.1), "num_workers must be .*got 0"),
        (lambda: transforms.trace_with_look_ahead(2, 0.1, 1.0), "decay must be .* < 1, got 1.0"),
        (lambda: transforms.trace_smega2(2, -0.1), "learning_rate must be .* > 0, got -0.1"),
        (lambda: transforms.trace_smega2(2, 0.1, -0.5), "decay must be .* >= 0"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_inner_must_be_a_transformation():
    with pytest.raises(TypeError, match="inner must be a gradient transformation"):
        transforms.look_ahead(0.1, 2)
