"""The staleness-annotated state, against the engine and against misuse."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import async_optax as ao
from async_optax.transforms import track_staleness, worker_params
from tests.engine.problems import quadratic_problem


@pytest.mark.usefixtures("x64")
def test_a_loop_by_hand_equals_the_simulator():
    problem, num_workers = quadratic_problem(), 4
    timeline = ao.simulate_timeline(
        ao.protocols.asynchronous(), ao.runtimes.gamma(cv=0.5), num_workers, num_commits=40
    )
    inner = ao.optimizers.async_heavy_tailed(
        0.2, threshold=1.0, weight_fn=ao.weights.inverse(), compensation=0.5
    )
    key = jax.random.key(0)
    result = ao.simulate(problem, inner, timeline, key=key, lanes=1)

    init_key, job_key = jax.random.split(key)
    tx, params = track_staleness(inner, num_workers), problem.init(init_key)
    state = tx.init(params)

    @jax.jit
    def arrive(params, state, job, worker):
        stale = worker_params(state, worker)
        gradient, _ = ao.engine.gradient()(problem, stale, worker, jax.random.fold_in(job_key, job))
        updates, state = tx.update(gradient, state, params, worker=worker)
        return optax.apply_updates(params, updates), state

    for job, worker in enumerate(timeline.worker):
        params, state = arrive(params, state, job, worker)
    np.testing.assert_allclose(params, result.params, rtol=0, atol=1e-14)
    assert state.version == timeline.num_commits


def test_state_is_a_fixed_point_under_scan_and_one_compilation_serves_all_workers():
    tx = track_staleness(ao.optimizers.staleness_aware_sgd(0.1), 3)
    params = {"w": jnp.ones((2, 2)), "none": None}

    def step(carry, worker):
        params, state = carry
        gradient = worker_params(state, worker)
        updates, state = tx.update(gradient, state, params, worker=worker)
        return (optax.apply_updates(params, updates), state), state.version

    workers = jnp.array([0, 1, 2, 0, 0, 1])
    (_, state), versions = jax.lax.scan(step, (params, tx.init(params)), workers)
    np.testing.assert_array_equal(versions, np.arange(1, 7))
    np.testing.assert_array_equal(state.read_versions, [5, 6, 3])


def test_version_follows_the_commits():
    tx = track_staleness(ao.optimizers.sgd(0.5), 2)
    params = jnp.ones(1)
    state = tx.init(params)
    for worker, commit, version in ((0, False, 0), (1, True, 1), (0, False, 1)):
        updates, state = tx.update(
            jnp.ones(1), state, params, worker=worker, commit=commit, weight=0.5
        )
        params = optax.apply_updates(params, updates)
        assert state.version == version


def test_workers_out_of_range():
    tx = track_staleness(ao.optimizers.dc_asgd(0.1), 2)
    params = jnp.ones(2)
    state = tx.init(params)
    for worker in (2, -1):
        with pytest.raises(ValueError, match=rf"worker must be in \[0, 2\), got {worker}"):
            tx.update(jnp.ones(2), state, params, worker=worker)
        with pytest.raises(ValueError, match="worker must be in"):
            worker_params(state, worker)
        # Traced, it cannot raise: the result is poisoned, not another worker's.
        assert jnp.isnan(jax.jit(worker_params)(state, jnp.int32(worker))).all()
    with pytest.raises(TypeError, match="worker"):
        tx.update(jnp.ones(2), state, params)
    with pytest.raises(ValueError, match="needs params"):
        tx.update(jnp.ones(2), state, worker=0)


def test_commits_that_inner_ignores_raise():
    tx, params = track_staleness(optax.sgd(1.0), 2), jnp.ones(1)
    with pytest.raises(
        ValueError, match="the optimizer applies each at once: wrap its server part"
    ):
        tx.update(params, tx.init(params), params, worker=0, commit=False, weight=0.5)
    with pytest.raises(TypeError, match="inner must be a gradient transformation, got 'sgd'"):
        track_staleness("sgd", 2)


@pytest.mark.parametrize("num_workers", [0, -3])
def test_bad_number_of_workers(num_workers):
    message = f"num_workers must be an integer >= 1, got {num_workers}"
    with pytest.raises(ValueError, match=message):
        track_staleness(optax.sgd(0.1), num_workers)
    with pytest.raises(TypeError, match="num_workers must be an integer"):
        track_staleness(optax.sgd(0.1), 2.5)
