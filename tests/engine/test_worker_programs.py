"""Worker programs: local steps against a NumPy loop, their inner optimizers, data and dropout."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

import async_optax as ao
from async_optax.engine.program import run_chunk
from tests.engine import protocols
from tests.engine.local_workers import LocalWorkers, Momentum
from tests.engine.problems import (
    make_timeline,
    quadratic_problem,
    run_quadratic,
    softmax_problem,
)
from tests.oracles.replay import SoftmaxRegression, replay
from tests.oracles.rules import ClippedSgd, Sgd, StalenessAwareSgd

MODEL = SoftmaxRegression()
PROBLEM = quadratic_problem()
KEY = jax.random.key(5)
NUM_STEPS, INNER_RATE, DIVISOR = 3, 0.2, 0.25


INNER = {
    "sgd": (lambda: ao.optimizers.sgd(INNER_RATE), lambda: Sgd(INNER_RATE)),
    "clipped_sgd": (
        lambda: ao.optimizers.clipped_sgd(INNER_RATE, max_norm=0.4),
        lambda: ClippedSgd(INNER_RATE, max_norm=0.4),
    ),
    "momentum": (lambda: optax.sgd(INNER_RATE, momentum=0.9), lambda: Momentum(INNER_RATE)),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("inner", "protocol", "lanes"),
    [
        ("sgd", "asynchronous", 1),
        ("clipped_sgd", "buffered_no_wait", 3),
        ("momentum", "buffered_no_wait", 1),
    ],
)
def test_local_steps_equal_a_loop_in_numpy(inner, protocol, lanes):
    optimizer, rule = INNER[inner]
    noise = ao.noise.gaussian(0.1)
    timeline = protocols.make_timeline(protocols.PROTOCOLS[protocol], num_commits=15)
    workers = LocalWorkers(
        MODEL, timeline, KEY, rule, num_steps=NUM_STEPS, divisor=DIVISOR, noise=noise
    )
    versions, losses = replay(
        workers,
        StalenessAwareSgd(0.3),
        timeline,
        KEY,
        np.linspace(-1.0, 1.0, MODEL.size),
    )
    result = ao.simulate(
        softmax_problem(MODEL, noise),
        ao.optimizers.staleness_aware_sgd(0.3),
        timeline,
        key=KEY,
        worker=ao.local_steps(NUM_STEPS, optimizer(), DIVISOR),
        lanes=lanes,
        evaluate_every=1,
    )
    np.testing.assert_allclose(result.params, versions[-1], rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.arrivals["loss"], losses, rtol=0, atol=1e-12)
    norms = np.linalg.norm(versions, axis=1)
    np.testing.assert_allclose(result.evaluations["norm"], norms, rtol=0, atol=1e-12)
    assert np.linalg.norm(versions[-1] - versions[0]) > 0.1


@pytest.mark.usefixtures("x64")
def test_one_local_step_is_a_gradient_and_its_rate_compiles_nothing():
    noisy = PROBLEM.with_noise(ao.noise.gaussian(0.1))

    def run(worker):
        return run_quadratic(noisy, worker=worker)

    expected = run(ao.gradient())
    before = run_chunk._cache_size()
    for rate in (0.1, 0.4):
        result = run(ao.local_steps(1, ao.optimizers.sgd(rate), rate))
        np.testing.assert_allclose(result.params, expected.params, rtol=1e-12)
        np.testing.assert_allclose(result.arrivals["loss"], expected.arrivals["loss"], rtol=1e-12)
        assert run_chunk._cache_size() == before + 1
    other = run(ao.local_steps(2, ao.optimizers.sgd(0.1), 0.1))
    assert run_chunk._cache_size() == before + 2
    assert not np.allclose(other.params, expected.params)


@pytest.mark.usefixtures("x64")
def test_local_steps_of_any_optax_sgd():
    x, rate = jnp.array([3.0, -1.0, 0.5]), 0.3
    programs = ao.local_steps(1, optax.sgd(rate), rate), ao.gradient()
    (update, loss), (gradient, expected) = jax.jit(
        lambda x: [program(PROBLEM, x, jnp.int32(1), KEY) for program in programs]
    )(x)
    np.testing.assert_allclose(update, gradient, rtol=1e-12)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)


NUM_CLASSES = 5
LABELS = np.random.default_rng(0).integers(0, NUM_CLASSES, 200)
SKEWED = ao.data.label_partition(LABELS, 4, concentration=0.1, seed=2)


def _mean_entry(x, labels, key):
    return jnp.mean(x[labels])


def counting_problem():
    """A loss without curvature: the gradient is the share of each class in the batch."""
    return ao.Problem(
        init=lambda key: jnp.zeros(NUM_CLASSES),
        loss=_mean_entry,
        batch=ao.data.in_memory(LABELS, ao.data.partition_rows(SKEWED, 8)),
    )


@pytest.mark.usefixtures("x64")
def test_without_curvature_local_steps_are_a_sum_of_gradients():
    problem, program = counting_problem(), ao.local_steps(4, optax.sgd(0.1), 0.1)

    @jax.jit
    def computed(x):
        sent, _ = program(problem, x, jnp.int32(2), KEY)
        each = jax.vmap(lambda k: ao.gradient()(problem, x, jnp.int32(2), k)[0])
        return sent, each(program.step_keys(KEY))

    update, gradients = computed(jnp.arange(5.0))
    assert gradients.shape == (4, NUM_CLASSES)
    assert len(np.unique(gradients, axis=0)) > 1
    np.testing.assert_allclose(update, gradients.sum(axis=0), rtol=0, atol=1e-12)


def test_an_inner_adam_trains():
    result = run_quadratic(worker=ao.local_steps(4, optax.adam(0.1), 1.0))
    distance = result.evaluations["distance"]
    assert distance[-1] < 0.5 * distance[0]


def test_each_worker_sees_its_own_labels():
    num_workers = SKEWED.num_workers
    owned = ao.data.label_counts(SKEWED, LABELS) > 0
    assert not owned.all(axis=1).any()
    shares = {f"class {c}": Partial(_share, c) for c in range(NUM_CLASSES)}
    runs = [
        run_quadratic(
            counting_problem(),
            timeline=make_timeline(60, num_workers=num_workers),
            lanes=lanes,
            record=shares,
        )
        for lanes in (1, 4)
    ]
    arrivals = runs[0].arrivals
    seen = np.stack([arrivals[name] for name in shares], axis=1)
    np.testing.assert_allclose(seen.sum(axis=1), 1.0, rtol=1e-6)
    for worker in range(num_workers):
        of_worker = seen[arrivals["worker"] == worker] > 0
        np.testing.assert_array_equal(of_worker.any(axis=0), owned[worker])
    for name, column in arrivals.items():
        np.testing.assert_allclose(runs[1].arrivals[name], column, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(runs[1].params, runs[0].params, rtol=1e-5)


def _share(label, info):
    return info.gradient[label]


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dropout(0.5, deterministic=False)(nn.relu(nn.Dense(16)(x)))
        return nn.Dense(1)(x)[:, 0]


def _network_loss(params, batch, key):
    features, targets = batch
    predicted = Network().apply(params, features, rngs={"dropout": key})
    return jnp.mean((predicted - targets) ** 2)


def _network_init(key):
    keys = dict(zip(("params", "dropout"), jax.random.split(key), strict=True))
    return Network().init(keys, jnp.zeros((1, 3)))


def test_dropout_of_a_flax_model_is_drawn_per_job():
    batch = jnp.arange(12.0).reshape(4, 3) / 10, jnp.ones(4)
    problem = ao.Problem(init=_network_init, loss=_network_loss, batch=lambda key, worker: batch)

    def run(rate, lanes):
        return run_quadratic(problem, ao.optimizers.sgd(rate), lanes=lanes)

    @jax.jit
    def expected(jobs):
        init_key, job_key = jax.random.split(jax.random.key(0))
        params = problem.init(init_key)

        def loss(job):
            loss_key = jax.random.split(jax.random.fold_in(job_key, job), 3)[1]
            return _network_loss(params, batch, loss_key)

        return jax.vmap(loss)(jobs)

    # At a rate of nearly zero the parameters stay, and only the masks differ from job to job.
    still = run(1e-30, lanes=1).arrivals
    np.testing.assert_allclose(still["loss"], expected(still["job"]), rtol=1e-5)
    assert len(np.unique(still["loss"])) > 30
    one, four = run(0.05, lanes=1), run(0.05, lanes=4)
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(four.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    np.testing.assert_allclose(one.arrivals["loss"], four.arrivals["loss"], rtol=0, atol=1e-6)
    assert not np.allclose(one.arrivals["loss"], still["loss"], atol=1e-3)


def run_inner(optimizer):
    run_quadratic(worker=ao.local_steps(2, optimizer, 0.1))


BAD_INPUT = {
    "no steps": (
        lambda: ao.local_steps(0, optax.sgd(0.1), 0.1),
        ValueError,
        "num_steps must be an integer >= 1, got 0",
    ),
    "steps": (
        lambda: ao.local_steps(1.5, optax.sgd(0.1), 0.1),
        TypeError,
        "num_steps must be an integer >= 1, got 1.5",
    ),
    "rate zero": (
        lambda: ao.local_steps(2, optax.sgd(0.1), 0),
        ValueError,
        "learning_rate must be a finite number > 0, got 0",
    ),
    "rate nan": (
        lambda: ao.local_steps(2, optax.sgd(0.1), float("nan")),
        ValueError,
        "learning_rate must be a finite number > 0, got nan",
    ),
    "state": (
        lambda: ao.local_steps(2, optax.sgd(0.1), 0.1, keep_state=1),
        TypeError,
        "keep_state must be True or False, got 1",
    ),
    "rates": (
        lambda: ao.local_steps(2, optax.sgd(0.1), jnp.ones(2)),
        ValueError,
        r"learning_rate must be a finite number > 0, got an array of shape \(2,\)",
    ),
    "optimizer": (
        lambda: ao.local_steps(2, 0.1, 0.1),
        TypeError,
        r"optimizer must be a gradient transformation such as optax.sgd\(0.1\), got 0.1",
    ),
    "needs staleness": (
        lambda: run_inner(ao.optimizers.staleness_aware_sgd(0.1)),
        ValueError,
        "the worker program fails: .*keyword-only argument: 'staleness'",
    ),
    "needs stale params": (
        lambda: run_inner(ao.optimizers.dc_asgd(0.1)),
        ValueError,
        "the worker program fails: .*keyword-only argument: 'stale_params'",
    ),
    "needs a worker": (
        lambda: run_inner(ao.optimizers.dana(0.1, num_workers=4)),
        ValueError,
        "the worker program fails: .*keyword-only argument: 'worker'",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_raises_before_anything_is_compiled(case):
    call, error, message = BAD_INPUT[case]
    before = run_chunk._cache_size()
    with pytest.raises(error, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)
    assert run_chunk._cache_size() == before


def test_a_partition_for_fewer_workers_is_refused():
    rows = ao.data.partition_rows(ao.data.equal_partition(12, 3, seed=0), batch_size=2)
    problem = ao.Problem(
        init=lambda key: jnp.zeros(()),
        loss=lambda x, batch, key: jnp.sum((x - batch) ** 2),
        batch=ao.data.in_memory(jnp.arange(12.0), rows),
    )
    with pytest.raises(ValueError, match=r"problem.batch, on a timeline of 4 workers: worker must"):
        run_quadratic(problem, timeline=make_timeline(10, num_workers=4))
