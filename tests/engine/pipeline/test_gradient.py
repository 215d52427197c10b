"""The worker program: two versions, the stages' keys, streamed data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import async_optax as ao
from async_optax import transforms
from async_optax.optimizers import pipelines
from tests.engine.pipeline.oracle import NUM_STAGES, network_problem

KEY = jax.random.key(7)


def dropped(w, x, key):
    """A layer with dropout, on a dictionary of features and positions, which are integers."""
    keep = jax.random.bernoulli(key, 0.5, x["h"].shape)
    mixed = jnp.tanh(x["h"] @ w) * keep
    return {"h": mixed, "at": x["at"]}


def dropout_problem(num_stages=3):
    stages = [ao.pipeline.Stage(lambda key: jax.random.normal(key, (4, 4)), dropped)] * num_stages
    return ao.pipeline.problem(
        stages,
        lambda y, batch: jnp.mean(jnp.take(y["h"], y["at"], axis=1) ** 2),
        lambda key, worker: {"h": jax.random.normal(key, (5, 4)), "at": jnp.arange(2)},
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("without_delay", [(), (2,), (0, 2), (0, 1, 2)])
def test_at_one_version_it_is_the_gradient_of_the_loss(without_delay):
    problem, program = dropout_problem(), ao.pipeline.gradient()
    params = problem.init(KEY)
    forward = tuple(None if i in without_delay else stage for i, stage in enumerate(params))
    both = jax.jit(lambda served: program(problem, served, 0, KEY))
    update, loss = both(transforms.StageVersions(forward, params))
    expected, expected_loss = both(params)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-14)
    for ours, theirs in zip(update, expected, strict=True):
        assert np.abs(theirs).max() > 1e-4
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-15)


def test_stages_draw_by_keys_of_their_own():
    problem = dropout_problem(2)
    losses = {float(problem.loss(problem.init(KEY), problem.batch(KEY, 0), k)) for k in jobs()}
    assert len(losses) == 5
    stage = problem.loss.stages[0]
    x = {"h": jnp.ones((5, 4)), "at": jnp.arange(2)}
    masks = [stage.apply(jnp.ones((4, 4)), x, jax.random.fold_in(KEY, i))["h"] for i in (0, 1)]
    assert not np.array_equal(*masks)


def jobs():
    return [jax.random.fold_in(KEY, i) for i in range(5)]


def test_noise_is_that_of_an_ordinary_gradient():
    noise = ao.noise.gaussian(0.1)
    problem, program = network_problem(noise), ao.pipeline.gradient()
    params = problem.init(KEY)
    served = transforms.StageVersions((*params[:-1], None), params)
    update, _ = program(problem, served, 0, KEY)
    for ours, theirs in zip(update, ao.gradient()(problem, params, 0, KEY)[0], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    plain, _ = program(network_problem(), served, 0, KEY)
    assert np.abs(update[0] - plain[0]).max() > 0.05


@pytest.mark.parametrize(
    "optimizer", [pipelines.pipedream(0.05), pipelines.pipemare(0.05, annealing_steps=10)]
)
def test_streamed_data_is_that_in_memory(optimizer):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 4)).astype(np.float32)
    rows = ao.data.uniform_rows(40, batch_size=3)

    def run(batch):
        stage = ao.pipeline.Stage(
            lambda key: jax.random.normal(key, (4, 4)), lambda w, x, key: jnp.tanh(x @ w)
        )
        return ao.simulate(
            ao.pipeline.problem([stage] * 3, lambda y, batch: jnp.mean((y - batch) ** 2), batch),
            optimizer,
            ao.pipeline.timeline(3, 40),
            key=KEY,
            worker=ao.pipeline.gradient(),
        ).arrivals["loss"]

    streamed = run(ao.data.streamed(list(features), rows))
    np.testing.assert_allclose(streamed, run(ao.data.in_memory(features, rows)), rtol=1e-5)
    assert streamed[-10:].mean() < streamed[:10].mean()


def test_the_worker_program_of_the_server_serves_the_stashed_form():
    results = [
        ao.simulate(
            network_problem(),
            pipelines.pipedream(0.05),
            ao.pipeline.timeline(NUM_STAGES, 10),
            key=KEY,
            worker=worker,
            lanes=1,
        )
        for worker in (ao.gradient(), ao.pipeline.gradient())
    ]
    np.testing.assert_array_equal(*(result.arrivals["loss"] for result in results))
