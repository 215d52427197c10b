"""Facts about whole runs that hold whatever the numbers are."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import async_optax as ao
from tests.engine.problems import quadratic_problem, softmax_problem
from tests.oracles.replay import SoftmaxRegression, replay
from tests.oracles.rules import ClippedSgd, l2_clip

METHODS = {
    "sgd": {},
    "clipped_sgd": {"max_norm": 0.5},
    "staleness_aware_sgd": {},
    "delay_adaptive_sgd": {"num_workers": 1},
    "dc_asgd": {"strength": 0.5},
    "async_heavy_tailed": {"threshold": 0.5, "weight_fn": ao.weights.exponential(0.1)},
}


def test_every_method_is_covered():
    assert set(METHODS) == set(ao.optimizers.names())


@pytest.mark.parametrize("name", METHODS)
def test_one_worker_is_plain_training(name):
    problem, key = quadratic_problem(), jax.random.key(2)
    timeline = ao.simulate_timeline(
        ao.protocols.asynchronous(), ao.runtimes.exponential(), 1, num_commits=25
    )
    optimizer = ao.optimizers.make(name, learning_rate=0.1, **METHODS[name])
    result = ao.simulate(problem, optimizer, timeline, key=key, lanes=1)

    init_key, job_key = jax.random.split(key)
    params = problem.init(init_key)
    state = optimizer.init(params)
    for job in range(25):
        gradient, _ = ao.engine.gradient()(problem, params, 0, jax.random.fold_in(job_key, job))
        updates, state = optimizer.update(
            gradient, state, params, staleness=0, stale_params=params, worker=0
        )
        params = params + updates
    np.testing.assert_allclose(result.params, params, rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_synchronous_is_minibatch_sgd_with_all_batches():
    model, key, num_workers, lr = SoftmaxRegression(), jax.random.key(1), 6, 0.4
    timeline = ao.simulate_timeline(
        ao.protocols.synchronous(), ao.runtimes.gamma(cv=0.5), num_workers, num_commits=10
    )
    result = ao.simulate(softmax_problem(model), ao.optimizers.sgd(lr), timeline, key=key, lanes=3)
    _, job_key = jax.random.split(key)
    x = np.linspace(-1.0, 1.0, model.size)
    for step in range(10):
        rows = [
            model.rows(jax.random.split(jax.random.fold_in(job_key, job), 3)[0])
            for job in range(step * num_workers, (step + 1) * num_workers)
        ]
        x = x - lr * model.loss_and_gradient(x, np.concatenate(rows))[1]
    np.testing.assert_allclose(result.params, x, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", METHODS)
def test_buffers_of_one_are_asynchronous_bit_for_bit(name):
    def run(protocol):
        timeline = ao.simulate_timeline(protocol, ao.runtimes.exponential(), 4, num_commits=30)
        optimizer = ao.optimizers.make(name, learning_rate=0.1, **METHODS[name])
        return ao.simulate(quadratic_problem(), optimizer, timeline, key=jax.random.key(0), lanes=1)

    np.testing.assert_array_equal(
        run(ao.protocols.buffered(1)).params, run(ao.protocols.asynchronous()).params
    )


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@settings(max_examples=15)
@given(
    num_workers=st.integers(1, 6),
    seed=st.integers(0, 100),
    law=st.sampled_from(["two_speed", "exponential", "pareto"]),
    lr=st.floats(0.01, 5.0),
    threshold=st.floats(0.01, 2.0),
)
def test_clipping_bounds_the_distance_to_the_virtual_iterate(num_workers, seed, law, lr, threshold):
    """``norm(virtual - x) <= lr * threshold * concurrency``: in-flight steps are all there is."""
    runtimes = {
        "two_speed": ao.runtimes.two_speed(8.0),
        "exponential": ao.runtimes.exponential(),
        "pareto": ao.runtimes.pareto(1.1),
    }[law]
    timeline = ao.simulate_timeline(
        ao.protocols.asynchronous(), runtimes, num_workers, num_commits=30, seed=seed
    )
    with jax.enable_x64(True):
        model, key = SoftmaxRegression(), jax.random.key(seed)
        noise = ao.noise.student_t(1.1, 1.0)
        draw = lambda k: np.asarray(noise(k, jnp.zeros(model.size)))  # noqa: E731
        rule = ClippedSgd(lr, max_norm=threshold)
        versions, _ = replay(model, rule, timeline, key, np.zeros(model.size), draw)
        result = ao.simulate(
            dataclasses.replace(
                softmax_problem(model, noise), init=lambda key: jnp.zeros(model.size)
            ),
            ao.optimizers.clipped_sgd(lr, max_norm=threshold),
            timeline,
            key=key,
            lanes=1,
        )
        np.testing.assert_allclose(result.params, versions[-1], rtol=0, atol=1e-9)

        _, job_key = jax.random.split(key)
        steps = []
        for row in range(timeline.num_arrivals):
            batch_key, _, noise_key = jax.random.split(jax.random.fold_in(job_key, row), 3)
            stale = versions[timeline.read_version[row]]
            gradient = model.loss_and_gradient(stale, model.rows(batch_key))[1] + draw(noise_key)
            steps.append(lr * l2_clip(gradient, threshold))
    for row in range(timeline.num_arrivals):
        # In flight just before this arrival: read no later than now, not yet arrived.
        in_flight = [
            steps[other]
            for other in range(row, timeline.num_arrivals)
            if timeline.read_version[other] <= timeline.version[row]
        ]
        assert len(in_flight) <= num_workers
        distance = np.linalg.norm(np.sum(in_flight, axis=0))
        assert distance <= lr * threshold * num_workers * (1 + 1e-12)
