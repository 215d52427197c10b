"""Facts about whole runs that hold whatever the numbers are."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import async_optax as ao
from tests.conformance.cases import METHODS as CASES
from tests.conformance.cases import make
from tests.engine.problems import quadratic_problem, softmax_problem
from tests.oracles.replay import SoftmaxRegression
from tests.oracles.rules import l2_clip

METHODS = ao.optimizers.names()


# Their one worker computes ahead of the server, so the synchronous form is another method.
LOOKS_AHEAD = {"linear_weight_prediction", "smega2", "dana_dc", "dana_gap_aware"}


@pytest.mark.parametrize("name", sorted(set(METHODS) - LOOKS_AHEAD))
def test_one_worker_is_the_synchronous_method(name):
    problem, key = quadratic_problem(), jax.random.key(2)
    timeline = ao.simulate_timeline(
        ao.protocols.asynchronous(), ao.runtimes.exponential(), 1, num_commits=25
    )
    result = ao.simulate(problem, make(name), timeline, key=key, lanes=1)

    synchronous = CASES[name][1](0.1)
    init_key, job_key = jax.random.split(key)
    params = problem.init(init_key)
    state = synchronous.init(params)
    for job in range(25):
        batch_key, loss_key, _ = jax.random.split(jax.random.fold_in(job_key, job), 3)
        batch = problem.batch(batch_key, jnp.int32(0))
        gradient = jax.grad(problem.loss)(params, batch, loss_key)
        updates, state = synchronous.update(gradient, state, params)
        params = params + updates
    # AMSGrad's division by a root of early squares magnifies rounding.
    rtol = 1e-4 if name == "fadas" else 1e-6
    np.testing.assert_allclose(result.params, params, rtol=rtol)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["dana_dc", "linear_weight_prediction", "smega2"])
def test_one_worker_that_looks_ahead_computes_at_the_points_of_nesterov(name):
    arguments = {
        "dana_dc": {"num_workers": 1, "strength": 0.0},
        "linear_weight_prediction": {"num_steps": 1},
        "smega2": {"num_workers": 1},
    }[name]
    timeline = ao.simulate_timeline(
        ao.protocols.asynchronous(), ao.runtimes.exponential(), 1, num_commits=25
    )

    def losses(optimizer):
        problem, key = quadratic_problem(), jax.random.key(2)
        return ao.simulate(problem, optimizer, timeline, key=key, lanes=1).arrivals["loss"]

    ahead = losses(ao.optimizers.make(name, learning_rate=0.1, momentum=0.5, **arguments))
    nesterov = losses(ao.optimizers.momentum_sgd(0.1, 0.5, nesterov=True))
    if name == "linear_weight_prediction":  # looks ahead a whole step, Nesterov half of it
        half = ao.transforms.look_ahead(ao.optimizers.momentum_sgd(0.1, 0.5), 1, 0.5)
        assert not np.allclose(ahead, nesterov)
        ahead = losses(half)
    np.testing.assert_allclose(ahead, nesterov, rtol=1e-12)


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


def test_buffers_of_one_are_asynchronous_bit_for_bit():
    """For every method at once: its run is a function of the timeline."""
    one, asynchronous = (
        ao.simulate_timeline(protocol, ao.runtimes.exponential(), 3, num_commits=30)
        for protocol in (ao.protocols.buffered(1), ao.protocols.asynchronous())
    )
    columns = dataclasses.asdict(one), dataclasses.asdict(asynchronous)
    jax.tree.map(np.testing.assert_array_equal, *columns)


# Defined once: new functions would be new structures, and compile.
MODEL = SoftmaxRegression()
GRADIENT = {f"g{i}": lambda info, i=i: info.gradient[i] for i in range(MODEL.size)}


@pytest.mark.slow
@settings(max_examples=25)
@given(
    num_workers=st.integers(1, 6),
    size=st.integers(1, 4),
    wait=st.booleans(),
    seed=st.integers(0, 100),
    law=st.sampled_from(["two_speed", "exponential", "pareto"]),
    lr=st.floats(0.01, 5.0),
    threshold=st.floats(0.01, 2.0),
)
def test_clipping_bounds_the_distance_to_the_virtual_iterate(
    num_workers, size, wait, seed, law, lr, threshold
):
    """``norm(virtual - x) <= lr * threshold * concurrency``, on every timeline.

    The virtual iterate has applied every gradient that was begun; the server lacks those in
    flight and those in the buffer. All are clipped, whatever their delays and their noise.
    """
    runtimes = {
        "two_speed": ao.runtimes.two_speed(8.0),
        "exponential": ao.runtimes.exponential(),
        "pareto": ao.runtimes.pareto(1.1),
    }[law]
    protocol = ao.protocols.buffered(min(size, num_workers) if wait else size, wait)
    timeline = ao.simulate_timeline(protocol, runtimes, num_workers, num_commits=30, seed=seed)
    with jax.enable_x64(True):
        problem = softmax_problem(MODEL, ao.noise.student_t(1.1, 1.0))
        optimizer = ao.optimizers.clipped_sgd(lr, max_norm=threshold)
        result = ao.simulate(
            problem, optimizer, timeline, key=jax.random.key(seed), lanes=1, record=GRADIENT
        )
    gradients = np.stack([result.arrivals[name] for name in GRADIENT], axis=1)
    steps = np.array([lr * l2_clip(g, threshold) for g in gradients])
    steps *= timeline.weight[:, None]
    # The server is what has been committed of these steps.
    start = np.linspace(-1.0, 1.0, MODEL.size)
    np.testing.assert_allclose(result.params, start - steps.sum(axis=0), rtol=0, atol=1e-9)

    commit_of = np.cumsum(timeline.commit) - timeline.commit  # which commit a row belongs to
    for version in np.unique(timeline.version):
        begun = timeline.read_version <= version
        uncommitted = commit_of >= version
        distance = np.linalg.norm(steps[begun & uncommitted].sum(axis=0))
        assert distance <= lr * threshold * num_workers * (1 + 1e-12)
