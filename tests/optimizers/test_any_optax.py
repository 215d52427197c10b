"""Any Optax optimizer under delay, by composition: scaling, compensation, look-ahead."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import async_optax as ao
from async_optax import transforms, weights

OPTIMIZERS = {
    "adamw": lambda: optax.adamw(0.02),
    "lion": lambda: optax.lion(0.005),
    "muon": lambda: optax.contrib.muon(0.02),
    "adagrad": lambda: optax.adagrad(0.1),
}
NUM_WORKERS = 6


def two_layer_problem():
    """A small regression with matrices and biases, as muon tells them apart."""
    key = jax.random.key(0)
    features = jax.random.normal(key, (64, 5))
    targets = jnp.sin(features @ jnp.arange(1.0, 6.0))[:, None]

    def init(key):
        first, second = jax.random.split(key)
        return {
            "hidden": jax.random.normal(first, (5, 16)) / 2,
            "bias": jnp.zeros((1, 16)),
            "out": jax.random.normal(second, (16, 1)) / 4,
        }

    def predict(params, x):
        return jnp.tanh(x @ params["hidden"] + params["bias"]) @ params["out"]

    return ao.Problem(
        init=init,
        loss=lambda p, rows, key: jnp.mean((predict(p, features[rows]) - targets[rows]) ** 2),
        batch=lambda key, worker: jax.random.randint(key, (16,), 0, 64),
        evaluate=lambda p: {"loss": jnp.mean((predict(p, features) - targets) ** 2)},
    )


def composed(server, strength, num_steps):
    """The recipe: clip, compensate, commit; then the optimizer, its weight, its look-ahead."""
    return optax.chain(
        transforms.clip_by_global_norm(1.0),
        transforms.compensate_delay(strength),
        transforms.accumulate_until_commit(
            transforms.look_ahead(
                optax.chain(server, transforms.scale_by_staleness(weights.polynomial(0.25))),
                num_steps=num_steps,
            )
        ),
    )


@pytest.mark.parametrize("protocol", [ao.protocols.asynchronous(), ao.protocols.buffered(3)])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optax_optimizers_train_under_delay(name, protocol):
    timeline = ao.simulate_timeline(
        protocol, ao.runtimes.two_speed(3.0), NUM_WORKERS, num_commits=200, seed=1
    )
    num_steps = float(timeline.staleness.mean())
    tx = composed(OPTIMIZERS[name](), 0.1, num_steps)
    result = ao.simulate(two_layer_problem(), tx, timeline, key=jax.random.key(1), lanes=1)
    losses = result.evaluations["loss"]
    assert result.diverged is None
    assert losses[-1] < 0.75 * losses[0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fresh_gradients_leave_the_optimizer_as_it_is(name):
    params = {"hidden": jnp.ones((2, 3)), "bias": jnp.zeros(3), "out": jnp.ones((3, 1))}
    tx, reference = composed(OPTIMIZERS[name](), 0.1, 0), OPTIMIZERS[name]()
    clipped = optax.chain(transforms.clip_by_global_norm(1.0), reference)
    states = [tx.init(params), clipped.init(params)]
    for i in range(3):
        keys = jax.random.split(jax.random.key(i), 3)
        g = {k: jax.random.normal(key, v.shape) for key, (k, v) in zip(keys, params.items())}  # noqa: B905
        extra = {"staleness": jnp.int32(0), "stale_params": params}
        updates, states[0] = tx.update(g, states[0], params, **extra)
        expected, states[1] = clipped.update(g, states[1], params)
        jax.tree.map(np.testing.assert_array_equal, updates, expected)
        params = optax.apply_updates(params, updates)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_look_ahead_serves_the_optimizers_own_step(name):
    params = {"hidden": jnp.ones((2, 3)), "bias": jnp.zeros(3), "out": jnp.ones((3, 1))}
    tx = composed(OPTIMIZERS[name](), 0.1, 4)
    g = jax.tree.map(lambda x: x + 0.5, params)
    updates, state = tx.update(
        g, tx.init(params), params, staleness=jnp.int32(0), stale_params=params
    )
    params = optax.apply_updates(params, updates)
    served = transforms.served_params(params, state)
    expected = jax.tree.map(lambda x, u: x + 4 * u, params, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), served, expected)


def test_an_exact_correction_undoes_the_delay_of_a_quadratic():
    """With the Hessian the corrected stale gradient is the fresh one: same run as no delay."""
    curvature = jnp.array([1.0, 0.3])
    problem = ao.Problem(
        init=lambda key: jnp.array([2.0, -1.0]),
        loss=lambda x, batch, key: jnp.sum(curvature * (x - batch) ** 2) / 2,
        batch=lambda key, worker: jax.random.normal(key, (2,)),
    )
    timeline = ao.simulate_timeline(
        ao.protocols.asynchronous(), ao.runtimes.exponential(), 5, num_commits=60
    )
    chain = optax.chain(
        transforms.compensate_delay_exact(),
        transforms.accumulate_until_commit(optax.sgd(0.3)),
    )
    key = jax.random.key(0)
    for lanes in (1, 4):
        late = ao.simulate(problem, chain, timeline, key=key, lanes=lanes)
        x, (_, job_key) = jnp.array([2.0, -1.0]), jax.random.split(key)
        for i in range(timeline.num_arrivals):
            batch_key = jax.random.split(jax.random.fold_in(job_key, i), 3)[0]
            x = x - 0.3 * curvature * (x - problem.batch(batch_key, 0))
        np.testing.assert_allclose(late.params, x, rtol=1e-4, atol=1e-5)
