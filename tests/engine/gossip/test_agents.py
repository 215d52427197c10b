"""The problem of many agents: its starts, data, noise, losses and metrics; what it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import async_optax as ao
from async_optax import topologies
from tests.engine.problems import quadratic_problem, softmax_problem
from tests.oracles.replay import SoftmaxRegression

N, KEY = 5, jax.random.key(7)
D_PSGD = ao.optimizers.d_psgd(0.3, topologies.ring(N))
TIMELINE = ao.gossip.timeline(topologies.ring(N), ao.runtimes.gamma(), 30)


@pytest.mark.usefixtures("x64")
def test_the_derivative_of_the_loss_is_each_agents_own():
    model = SoftmaxRegression()
    problem = ao.gossip.problem(softmax_problem(model), N)
    start = np.broadcast_to(np.linspace(-1.0, 1.0, model.size), (N, model.size))
    x = jnp.asarray(start) + jnp.arange(N)[:, np.newaxis] / 10
    batch = problem.batch(KEY, 0)
    assert batch.shape == (N, model.batch_size)
    assert len(np.unique(np.asarray(batch), axis=0)) == N
    value, slope = jax.value_and_grad(problem.loss)(x, batch, KEY)
    each = [model.loss_and_gradient(np.asarray(x[i]), np.asarray(batch[i])) for i in range(N)]
    np.testing.assert_allclose(value, np.mean([loss for loss, _ in each]), rtol=1e-14)
    np.testing.assert_allclose(slope, [g for _, g in each], rtol=0, atol=1e-14)


def test_agents_have_data_of_their_own():
    owners = np.arange(40) % N
    partition = ao.data.Partition.from_owners(owners)
    values = jnp.asarray(owners, float)
    problem = ao.Problem(
        init=lambda key: jnp.zeros(()),
        loss=lambda x, batch, key: jnp.mean((x - batch) ** 2) / 2,
        batch=lambda key, worker: values[
            ao.data.partition_rows(partition, batch_size=3)(key, worker)
        ],
    )
    batch = ao.gossip.problem(problem, N).batch(KEY, 0)
    np.testing.assert_array_equal(batch, np.broadcast_to(np.arange(N)[:, np.newaxis], (N, 3)))


def test_starts_of_their_own_and_metrics_of_each():
    def init(key):
        return {"x": jax.random.normal(key, (3,))}

    single = ao.Problem(
        init=init,
        loss=lambda x, batch, key: jnp.sum(x["x"] * batch),
        batch=lambda key, worker: jnp.ones(3),
        evaluate=lambda x: {"first": x["x"][0]},
    )
    equal, own = (
        ao.gossip.problem(single, 4, starts=starts, each_agent=True) for starts in ("equal", "own")
    )
    np.testing.assert_array_equal(equal.init(KEY)["x"], np.tile(init(KEY)["x"], (4, 1)))
    x = own.init(KEY)["x"]
    np.testing.assert_array_equal(x[3], init(jax.random.fold_in(KEY, 3))["x"])
    metrics = own.evaluate({"x": x})
    assert set(metrics) == {
        "first",
        "lowest_first",
        "mean_first",
        "highest_first",
        "consensus_distance",
    }
    np.testing.assert_allclose(metrics["lowest_first"], x[:, 0].min())
    np.testing.assert_allclose(metrics["highest_first"], x[:, 0].max())
    np.testing.assert_allclose(metrics["mean_first"], x[:, 0].mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics["first"], x.mean(0)[0], rtol=1e-6)


def test_noise_is_drawn_for_each_agent():
    problem = ao.gossip.problem(quadratic_problem(), 3)
    assert problem.noise is None
    assert problem.agent.noise is None
    noisy = problem.with_noise(ao.noise.gaussian(1.0))
    draws = noisy.noise(KEY, jnp.zeros((3, 1000)))
    assert np.abs(np.corrcoef(np.asarray(draws))[0, 1:]).max() < 0.2
    assert noisy.agent.noise is not None
    assert noisy.with_noise(None).noise is None


QUADRATIC = quadratic_problem()
STREAMED = ao.Problem(
    QUADRATIC.init,
    lambda x, batch, key: jnp.sum(x) + jnp.sum(batch),
    ao.data.streamed([1.0, 2.0], ao.data.uniform_rows(2, batch_size=1)),
)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ao.gossip.problem(None, 2), TypeError, "agent must be an async_optax.Problem"),
        (lambda: ao.gossip.problem(QUADRATIC, 0), ValueError, "num_agents must be an integer >= 1"),
        (
            lambda: ao.gossip.problem(ao.gossip.problem(QUADRATIC, 2), 2),
            TypeError,
            "agent must be the problem of one agent",
        ),
        (
            lambda: ao.gossip.problem(QUADRATIC, 2, starts="random"),
            ValueError,
            "starts must be one of equal, own; got 'random'",
        ),
        (lambda: ao.gossip.problem(STREAMED, 2), ValueError, "streamed data has no agents"),
        (lambda: ao.gossip.gradients(0), ValueError, "lanes must be an integer >= 1, got 0"),
        (lambda: ao.gossip.every_agent(None), TypeError, "program must be a worker program"),
        (
            lambda: ao.gossip.problem(
                ao.Problem(QUADRATIC.init, QUADRATIC.loss, QUADRATIC.batch), 2, each_agent=True
            ),
            ValueError,
            "each_agent needs agent.evaluate, which is None",
        ),
        (
            lambda: ao.simulate(
                QUADRATIC, ao.optimizers.sgd(0.1), TIMELINE, key=KEY, worker=ao.gossip.gradients()
            ),
            ValueError,
            "the worker program fails: problem must be of many agents",
        ),
        (
            lambda: ao.simulate(
                ao.gossip.problem(QUADRATIC, 3),
                D_PSGD,
                TIMELINE,
                key=KEY,
                worker=ao.gossip.gradients(),
            ),
            ValueError,
            "params must be stacked, with a leading axis of 5 agents, got shape",
        ),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_too_few_owners_are_named():
    partition = ao.data.Partition.from_owners(np.arange(20) % 3)
    rows = ao.data.partition_rows(partition, batch_size=2)
    single = ao.Problem(QUADRATIC.init, lambda x, rows, key: jnp.sum(x) * jnp.sum(rows), rows)
    ao.gossip.problem(single, 3)
    with pytest.raises(ValueError, match="agent.batch, of 4 agents: "):
        ao.gossip.problem(single, 4)


def test_functions_of_many_agents_are_not_replaced_but_for_evaluate():
    problem = ao.gossip.problem(quadratic_problem(), 3)
    assert dataclasses.replace(problem, evaluate=None).agent.evaluate is None
    broken = dataclasses.replace(problem, loss=lambda params, batch, key: 0.0)
    with pytest.raises(TypeError, match="problem.loss must be the one that gossip.problem made"):
        ao.gossip.gradients()(broken, broken.init(KEY), 0, KEY)


def test_the_distance_from_the_mean_needs_no_second_stack():
    params = {"w": jnp.arange(800.0 * 500).reshape(800, 500), "b": jnp.ones((800, 2), "bfloat16")}
    mean = np.asarray(params["w"], np.float64).mean(0)
    expected = np.sqrt(((np.asarray(params["w"], np.float64) - mean) ** 2).sum(1).mean())
    distance = jax.jit(ao.gossip.distance_from_mean)
    np.testing.assert_allclose(distance(params), expected, rtol=1e-5)
    memory = distance.lower(params).compile().memory_analysis()
    assert memory.temp_size_in_bytes < params["w"].nbytes / 20
    huge = jax.tree.map(lambda x: 1e30 * x.astype(jnp.float32), params)
    np.testing.assert_allclose(distance(huge), 1e30 * expected, rtol=1e-5)
