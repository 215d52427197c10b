"""Rounds of gossip on the server's engine: exact, resumed, swept, recorded like any other run."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import async_optax as ao
from async_optax import topologies
from async_optax.engine import execution
from async_optax.engine.program import run_chunk
from tests.engine.problems import quadratic_problem, softmax_problem
from tests.oracles import gossip
from tests.oracles.replay import SoftmaxRegression

N, ROUNDS, KEY = 5, 30, jax.random.key(7)
MODEL, NOISE = SoftmaxRegression(), ao.noise.gaussian(0.1)
X0 = np.broadcast_to(np.linspace(-1.0, 1.0, MODEL.size), (N, MODEL.size))
RING = topologies.ring(N)
LATE = topologies.delayed_links(RING, 0.5, seed=1)
TIMELINE = ao.gossip.timeline(RING, ao.runtimes.gamma(), ROUNDS)
METHODS = {
    "d_psgd": ao.optimizers.d_psgd(0.3, RING),
    "d_psgd delayed": ao.optimizers.d_psgd(0.3, RING, 2 * LATE),
    "p_asgd": ao.optimizers.p_asgd(0.3, RING, LATE, 2, 0.5),
    "c_asgd": ao.optimizers.c_asgd(0.3, RING, LATE),
    "pc_asgd": ao.optimizers.pc_asgd(0.3, RING, LATE, 2, 0.4, 0.5),
    "pc_asgd_practical": ao.optimizers.pc_asgd_practical(0.3, RING, LATE, 2, 0.5),
}
THETAS = {"p_asgd": 1.0, "c_asgd": 0.0, "pc_asgd": 0.4, "pc_asgd_practical": "aligned"}
methods = pytest.mark.parametrize("method", METHODS)


def agents(**options):
    return ao.gossip.problem(softmax_problem(MODEL, NOISE), N, **options)


def simulate(method, **options):
    return ao.simulate(
        agents(),
        METHODS[method],
        TIMELINE,
        key=KEY,
        **({"worker": ao.gossip.gradients(), "lanes": 1, "evaluate_every": 1} | options),
    )


def losses_and_gradients(t, x):
    """Of all agents in round t, by the rules of the keys."""
    round_key = jax.random.fold_in(jax.random.split(KEY)[1], t)
    rows = []
    for i in range(N):
        batch_key, _, noise_key = jax.random.split(jax.random.fold_in(round_key, i), 3)
        loss, g = MODEL.loss_and_gradient(x[i], MODEL.rows(batch_key))
        rows.append((loss, g + np.asarray(NOISE(noise_key, jnp.zeros(MODEL.size)))))
    return np.array([loss for loss, _ in rows]), np.array([g for _, g in rows])


def gradient(t, x):
    return losses_and_gradients(t, x)[1]


@pytest.mark.usefixtures("x64", "strict_dtypes")
@methods
def test_the_engine_is_the_loop(method):
    result = simulate(method, record={"distance": ao.gossip.consensus_distance})
    if method in THETAS:
        expected = gossip.predict_clip(
            X0, gradient, RING.matrices, 0.3, LATE, 2, 0.5, THETAS[method], ROUNDS
        )
    else:
        delays = 2 * LATE if method == "d_psgd delayed" else 0 * LATE
        expected = gossip.mix_neighbours(X0, gradient, RING.matrices, 0.3, delays, ROUNDS)
    np.testing.assert_allclose(result.params, expected[-1], rtol=0, atol=1e-12)
    mean = expected.mean(1)
    distance = np.sqrt(((expected - mean[:, np.newaxis]) ** 2).sum(2).mean(1))
    np.testing.assert_allclose(
        result.evaluations["norm"], np.linalg.norm(mean, axis=1), rtol=0, atol=1e-12
    )
    np.testing.assert_allclose(
        result.evaluations["consensus_distance"], distance, rtol=0, atol=1e-12
    )
    np.testing.assert_allclose(result.arrivals["distance"], distance[:-1], rtol=0, atol=1e-12)
    losses = [losses_and_gradients(t, x)[0].mean() for t, x in enumerate(expected[:-1])]
    np.testing.assert_allclose(result.arrivals["loss"], losses, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_complete_with_equal_starts_is_minibatch_sgd():
    complete = topologies.complete(N)
    result = ao.simulate(
        agents(),
        ao.optimizers.d_psgd(0.3, complete, order="step_first"),
        TIMELINE,
        key=KEY,
        lanes=1,
        worker=ao.gossip.gradients(),
    )
    x = X0[0]
    for t in range(ROUNDS):
        x = x - 0.3 * gradient(t, np.broadcast_to(x, X0.shape)).mean(0)
    np.testing.assert_allclose(result.params, np.broadcast_to(x, X0.shape), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_a_star_with_an_idle_centre_is_synchronous_elastic_averaging():
    """All workers pull at the centre at once; the last agent is the centre, without gradients."""
    centre, pull = N - 1, 0.2
    w = np.diag([1 - pull] * centre + [1 - pull * centre])
    w[centre, :centre] = w[:centre, centre] = pull
    single = softmax_problem(MODEL)
    weighted = ao.Problem(
        init=single.init,
        loss=lambda x, batch, key: batch[1] * single.loss(x, batch[0], key),
        batch=lambda key, worker: (single.batch(key, worker), (worker != centre).astype(float)),
    )
    result = ao.simulate(
        ao.gossip.problem(weighted, N),
        ao.optimizers.d_psgd(0.3, topologies.from_matrix(w)),
        ao.gossip.timeline(topologies.from_matrix(w), ao.runtimes.gamma(), 12),
        key=KEY,
        lanes=1,
        worker=ao.gossip.gradients(),
    )
    x = [X0[0]] * N
    for t in range(12):
        round_key, new = jax.random.fold_in(jax.random.split(KEY)[1], t), list(x)
        for i in range(centre):
            batch_key = jax.random.split(jax.random.fold_in(round_key, i), 3)[0]
            g = MODEL.loss_and_gradient(x[i], MODEL.rows(batch_key))[1]
            force = pull * (x[i] - x[centre])
            new[i] = x[i] - 0.3 * g - force
            new[centre] = new[centre] + force
        x = new
    np.testing.assert_allclose(result.params, x, rtol=0, atol=1e-12)
    assert np.linalg.norm(x[centre] - X0[0]) > 0.1


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("method", ["d_psgd delayed", "pc_asgd_practical"])
def test_lanes_change_rounding_only(method):
    one, all_agents, some = (
        simulate(method, worker=ao.gossip.gradients(lanes)) for lanes in (1, 2 * N, 2)
    )
    for other in (all_agents, some):
        np.testing.assert_allclose(other.params, one.params, rtol=0, atol=1e-13)


def test_the_default_worker_trains_agents_too():
    result = simulate("d_psgd", worker=None)
    ours = simulate("d_psgd")
    assert result.arrivals["loss"][-10:].mean() < 0.9 * result.arrivals["loss"][:3].mean()
    assert ours.arrivals["loss"][-10:].mean() < 0.9 * ours.arrivals["loss"][:3].mean()


class _Stopped(Exception):
    pass


@pytest.mark.parametrize("method", ["d_psgd delayed", "pc_asgd"])
def test_resumed_runs_are_equal_to_the_bit(tmp_path, monkeypatch, method):
    monkeypatch.setattr(execution, "_FIRST_CHUNK", 8)
    monkeypatch.setattr(execution, "_CHUNK_SECONDS", 0.0)
    expected, checkpoint = simulate(method), ao.Checkpointing(tmp_path, every=0)

    def stop(done, total):
        if done >= 16:
            raise _Stopped

    with pytest.raises(_Stopped):
        simulate(method, checkpoint=checkpoint, progress=stop)
    reached = []
    resumed = simulate(
        method, checkpoint=checkpoint, progress=lambda done, total: reached.append(done)
    )
    assert reached[0] >= 8
    trees = [(r.params, r.opt_state, r.arrivals, r.evaluations) for r in (resumed, expected)]
    jax.tree.map(np.testing.assert_array_equal, *trees)


def test_another_matrix_is_another_run(tmp_path):
    checkpoint = ao.Checkpointing(tmp_path, every=0)
    simulate("d_psgd", checkpoint=checkpoint)
    other = ao.optimizers.d_psgd(0.3, topologies.complete(N))
    with pytest.raises(ValueError, match="optimizer"):
        ao.simulate(
            agents(),
            other,
            TIMELINE,
            key=KEY,
            lanes=1,
            evaluate_every=1,
            checkpoint=checkpoint,
            worker=ao.gossip.gradients(),
        )


@pytest.mark.parametrize("strategy", ["loop", "vmap"])
def test_sweeps_over_theta(strategy):
    factory = functools.partial(ao.optimizers.pc_asgd, mixing=RING, delayed=LATE, delay=2)
    dataset = ao.sweep(
        agents(),
        {"pc_asgd": factory},
        TIMELINE,
        seeds=[0, 1],
        grid={"learning_rate": [0.1, 0.3], "theta": [0.0, 0.5, 1.0]},
        worker=ao.gossip.gradients(),
        evaluate_every=10,
        strategy=strategy,
    )
    for theta in (0.0, 0.5):
        optimizer = ao.optimizers.pc_asgd(0.3, RING, LATE, 2, theta)
        result = ao.simulate(
            agents(),
            optimizer,
            TIMELINE,
            key=jax.random.key(1),
            lanes=1,
            evaluate_every=10,
            worker=ao.gossip.gradients(),
        )
        cell = dataset.sel(seed=1, learning_rate=0.3, theta=theta)["norm"].squeeze()
        np.testing.assert_allclose(cell, result.evaluations["norm"], rtol=1e-5)


def test_numbers_matrices_and_seeds_compile_nothing():
    run = functools.partial(
        ao.simulate, agents(), timeline=TIMELINE, worker=ao.gossip.gradients(), lanes=1
    )
    run(ao.optimizers.pc_asgd(0.3, RING, LATE, 2, 0.4), key=KEY)
    before = run_chunk._cache_size()
    late = topologies.delayed_links(RING, 0.5, seed=9)
    run(ao.optimizers.pc_asgd(0.2, RING, late, 2, 0.9, 0.7), key=jax.random.key(3))
    assert run_chunk._cache_size() == before


def test_local_steps_between_mixings():
    """Local SGD over a graph: agents take K steps, with or without a state of their own."""
    timeline = ao.gossip.timeline(topologies.complete(3), ao.runtimes.gamma(), 12)
    params = []
    for keep_state in (False, True):
        program = ao.local_steps(2, optax.sgd(0.1, momentum=0.9), 0.1, keep_state)
        for lanes in (1, 3) if keep_state else (1,):
            result = ao.simulate(
                ao.gossip.problem(quadratic_problem(), 3),
                ao.optimizers.d_psgd(0.1, topologies.complete(3)),
                timeline,
                key=KEY,
                worker=ao.gossip.every_agent(program, lanes),
                lanes=1,
            )
            assert result.arrivals["loss"][-1] < 0.6 * result.arrivals["loss"][0]
            params.append(np.asarray(result.params))
    np.testing.assert_allclose(params[1], params[2], atol=1e-5)
    assert np.abs(params[0] - params[1]).max() > 1e-2  # the momentum went on


@pytest.mark.parametrize(
    ("dtype", "method"),
    [("bfloat16", "d_psgd delayed"), ("bfloat16", "pc_asgd_practical"), ("float16", "pc_asgd")],
)
def test_low_precision(dtype, method):
    single = ao.Problem(
        init=lambda key: jnp.ones(4, dtype),
        loss=lambda x, batch, key: jnp.sum((x - batch) ** 2).astype(jnp.float32) / 2,
        batch=lambda key, worker: jnp.zeros(4, dtype),
    )
    result = ao.simulate(
        ao.gossip.problem(single, N),
        METHODS[method],
        TIMELINE,
        key=KEY,
        lanes=1,
        worker=ao.gossip.gradients(),
        evaluate_every=10,
    )
    assert result.params.dtype == jnp.dtype(dtype)
    assert np.abs(np.asarray(result.params, float)).max() < 0.05
    assert set(result.evaluations) == {"version", "time", "consensus_distance"}
