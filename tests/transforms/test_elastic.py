"""Elastic averaging: the exchange, what is served, and the steps on it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import async_optax as ao
from async_optax.transforms import ElasticCopy, elastic_average, served_params
from tests.engine.problems import quadratic_problem

CENTRE = {"w": jnp.array([1.0, -2.0]), "none": None}
ARRIVED = {"w": jnp.array([3.0, 0.5]), "none": None}


def arrive(tx, params=ARRIVED, centre=CENTRE, **extra_args):
    state = tx.init(centre)
    copy = served_params(centre, state)._replace(params=params)
    return tx.update(copy, state, centre, worker=1, staleness=3, **extra_args)


def test_all_start_at_the_centre():
    copy = served_params(CENTRE, elastic_average(0.1, 0.2, momentum=0.9).init(CENTRE))
    np.testing.assert_array_equal(copy.params["w"], CENTRE["w"])
    np.testing.assert_array_equal(copy.velocity["w"], [0.0, 0.0])
    assert copy.pull is None
    assert copy.learning_rate == jnp.float32(0.1)
    assert copy.momentum == jnp.float32(0.9)
    plain = served_params(CENTRE, elastic_average(0.1, 0.2).init(CENTRE))
    assert plain.velocity is None
    assert plain.momentum is None


def test_what_the_centre_gains_the_worker_loses():
    force = 0.25 * (ARRIVED["w"] - CENTRE["w"])
    updates, state = arrive(elastic_average(0.1, 0.25))
    np.testing.assert_allclose(updates["w"], force)
    np.testing.assert_allclose(state.outgoing.params["w"], ARRIVED["w"] - force)
    late, state = arrive(elastic_average(0.1, 0.25, order="step_first"))
    np.testing.assert_allclose(late["w"], force)
    np.testing.assert_array_equal(state.outgoing.params["w"], ARRIVED["w"])
    np.testing.assert_allclose(state.outgoing.pull["w"], force)


def test_learning_rates_follow_the_exchanges():
    tx = elastic_average(lambda step: 1.0 / (1 + step), 0.5)
    state = tx.init(CENTRE)
    rates = [state.outgoing.learning_rate]
    for _ in range(3):
        _, state = tx.update(state.outgoing, state, CENTRE)
        rates.append(state.outgoing.learning_rate)
    np.testing.assert_allclose(rates, [1, 1 / 2, 1 / 3, 1 / 4], rtol=1e-6)


def test_streamed_steps_draw_as_local_steps_do():
    key, local = jax.random.key(3), ao.local_steps(3, ao.optimizers.sgd(0.1), 0.1)
    program = ao.gossip.elastic_steps(3)
    keys = [jax.random.key_data(p.batch_keys(key)) for p in (program, local)]
    np.testing.assert_array_equal(*keys)
    problem, start = quadratic_problem(), jnp.full(3, 4.0)
    copy = ElasticCopy(start, None, None, jnp.float32(0.1), None)
    sent, loss = program(problem, copy, jnp.int32(0), key)
    difference, local_loss = local(problem, start, jnp.int32(0), key)
    np.testing.assert_allclose(start - sent.params, 0.1 * difference, rtol=1e-5)
    np.testing.assert_allclose(loss, local_loss, rtol=1e-6)


def test_local_gradients_are_clipped_and_their_state_is_fresh_in_each_job():
    problem = ao.Problem(
        init=lambda key: jnp.zeros(2),
        loss=lambda x, batch, key: jnp.sum((x - batch) ** 2) / 2,
        batch=lambda key, worker: jnp.array([30.0, 40.0]),
    )
    clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.trace(0.5))
    program = ao.gossip.elastic_steps(3, clipped)
    copy = ElasticCopy(jnp.zeros(2), None, None, jnp.float32(0.1), None)
    for job in range(2):
        before = np.asarray(copy.params)
        copy, _ = program(problem, copy, jnp.int32(0), jax.random.key(job))
        # Three gradients of length 1, towards (3, 4): 1, 1 + 1/2 and 1 + 1/2 + 1/4 in the trace.
        length = 0.1 * (1 + 1.5 + 1.75)
        np.testing.assert_allclose(copy.params - before, length * np.array([0.6, 0.8]), rtol=1e-5)
    with pytest.raises(TypeError, match="gradient_transformation must be one such as optax.clip"):
        ao.gossip.elastic_steps(3, 1.0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("order", ["exchange_first", "step_first"])
def test_dtypes_are_kept(dtype, order):
    with jax.enable_x64(dtype == "float64"):
        centre = jnp.ones(3, dtype)
        tx = elastic_average(0.1, 0.2, momentum=0.9, order=order)
        state = tx.init(centre)
        updates, after = jax.jit(tx.update)(state.outgoing, state, centre, worker=jnp.int32(1))
        assert updates.dtype == centre.dtype
        types = [jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in (state, after)]
        assert types[0] == types[1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ao.optimizers.easgd(0.1, 1.0), "moving_rate must be .* < 1, got 1.0"),
        (lambda: ao.optimizers.easgd(0.1, -0.1), "moving_rate must be .* >= 0"),
        (lambda: ao.optimizers.easgd(0.0, 0.1), "learning_rate must be .* > 0"),
        (lambda: ao.optimizers.easgd(0.1, 0.1, "last"), "order must be one of exchange_first"),
        (lambda: ao.optimizers.eamsgd(0.1, 0.1, momentum=1.0), "momentum must be .* < 1"),
        (lambda: ao.optimizers.eamsgd(0.1, float("nan")), "moving_rate must be .*got nan"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_bad_updates():
    tx = elastic_average(0.1, 0.2)
    state = tx.init(CENTRE)
    with pytest.raises(ValueError, match="elastic_average needs params"):
        tx.update(state.outgoing, state)
    with pytest.raises(ValueError, match="not a gradient: use worker=gossip.elastic_steps"):
        tx.update(CENTRE, state, CENTRE)
    with pytest.raises(ValueError, match="a protocol in which every arrival commits"):
        tx.update(state.outgoing, state, CENTRE, commit=True, weight=1.0)
    with pytest.raises(TypeError, match="momentum must be a finite number"):
        ao.optimizers.eamsgd(0.1, 0.2, momentum=None)
