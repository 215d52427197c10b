"""Parameter averaging, local SGD and DiLoCo: when they are minibatch SGD, and when they are not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

import async_optax as ao
from tests.engine import protocols
from tests.engine.local_workers import AdamW, LocalWorkers, Momentum, step_key
from tests.engine.problems import softmax_problem
from tests.oracles.momentum_rules import MomentumSgd, WeightedMomentumSgd
from tests.oracles.replay import SoftmaxRegression, replay
from tests.oracles.rules import FedAsync, Sgd

pytestmark = pytest.mark.usefixtures("x64")

MODEL = SoftmaxRegression()
KEY = jax.random.key(11)
START = np.linspace(-1.0, 1.0, MODEL.size)
NUM_WORKERS, NUM_ROUNDS, RATE = 4, 10, 0.4


def synchronous(num_rounds=NUM_ROUNDS, num_workers=NUM_WORKERS):
    runtimes = ao.runtimes.gamma(cv=0.5)
    return ao.simulate_timeline(
        ao.protocols.synchronous(), runtimes, num_workers, num_commits=num_rounds
    )


def run(optimizer, worker, timeline=None, problem=None, lanes=1):
    return ao.simulate(
        softmax_problem(MODEL) if problem is None else problem,
        optimizer,
        synchronous() if timeline is None else timeline,
        key=KEY,
        worker=worker,
        lanes=lanes,
    )


def rows_of(job, step=0):
    _, job_key = jax.random.split(KEY)
    key = step_key(jax.random.fold_in(job_key, job), step)
    return MODEL.rows(jax.random.split(key, 3)[0])


def minibatch(rule, num_rounds=NUM_ROUNDS, num_steps=1, num_workers=NUM_WORKERS):
    """Training on one machine, each step with the batches of all workers in one."""
    x = START
    for first in range(0, num_rounds * num_workers, num_workers):
        for step in range(num_steps):
            rows = [rows_of(job, step) for job in range(first, first + num_workers)]
            x = rule.step(x, MODEL.loss_and_gradient(x, np.concatenate(rows))[1])
    return x


class PlainSgd:
    """``x <- x - lr g``."""

    def __init__(self, lr):
        self.lr = lr

    def step(self, x, g):
        return x - self.lr * g


def distance(a, b):
    return np.abs(np.asarray(a) - np.asarray(b)).max()


AVERAGES = {
    "models": lambda rate: ao.optimizers.parameter_averaging(rate),
    "differences": lambda rate: ao.optimizers.sgd(rate),
}


@pytest.mark.parametrize("average", AVERAGES)
def test_averaging_after_one_plain_step_is_minibatch_sgd(average):
    worker = ao.local_steps(1, optax.sgd(RATE), RATE)
    averaged = run(AVERAGES[average](RATE), worker).params
    expected = minibatch(PlainSgd(RATE))
    np.testing.assert_allclose(averaged, expected, rtol=0, atol=1e-14)
    assert distance(expected, START) > 0.1


def test_a_rate_of_one_averages_what_was_sent_undivided():
    worker = ao.local_steps(1, optax.sgd(RATE), learning_rate=1.0)
    for average in AVERAGES.values():
        averaged = run(average(1.0), worker).params
        np.testing.assert_allclose(averaged, minibatch(PlainSgd(RATE)), rtol=0, atol=1e-14)


def test_models_and_differences_part_when_they_are_stale():
    worker = ao.local_steps(2, optax.sgd(RATE), RATE)
    stale = protocols.make_timeline(protocols.PROTOCOLS["asynchronous"])
    for timeline, agree in ((synchronous(), True), (stale, False)):
        models, differences = (run(f(RATE), worker, timeline).params for f in AVERAGES.values())
        assert (distance(models, differences) < 1e-13) == agree
        assert agree or distance(models, differences) > 1e-2


SIZES = np.array([1, 2, 3, 4])


def _sized_batch(sizes, num_examples, key, worker):
    """The same rows as ever, of which a worker's first few count."""
    rows = jax.random.randint(key, (MODEL.batch_size,), 0, num_examples)
    return rows, jnp.arange(MODEL.batch_size) < sizes[worker]


def _sized_loss(features, labels, x, batch, key):
    rows, counts = batch
    logits = features[rows] @ x.reshape(-1, features.shape[1]).T
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[rows][:, None], 1)[:, 0]
    return -jnp.sum(picked * counts) / jnp.sum(counts)


def test_batches_of_different_sizes_need_weights_in_proportion():
    data = jnp.asarray(MODEL.features), jnp.asarray(MODEL.labels)
    problem = dataclasses.replace(
        softmax_problem(MODEL),
        loss=Partial(_sized_loss, *data),
        batch=Partial(_sized_batch, jnp.asarray(SIZES), len(MODEL.labels)),
    )
    timeline, worker = synchronous(), ao.local_steps(1, optax.sgd(RATE), RATE)
    x = START
    for first in range(0, timeline.num_arrivals, NUM_WORKERS):
        jobs = range(first, first + NUM_WORKERS)
        rows = [rows_of(job)[: SIZES[timeline.worker[job]]] for job in jobs]
        x = PlainSgd(RATE).step(x, MODEL.loss_and_gradient(x, np.concatenate(rows))[1])
    optimizer = ao.optimizers.parameter_averaging(RATE)
    equal_shares = run(optimizer, worker, timeline, problem).params
    assert distance(equal_shares, x) > 1e-2
    weight = SIZES[timeline.worker] / SIZES.sum()
    timeline = dataclasses.replace(timeline, weight=weight)
    in_proportion = run(optimizer, worker, timeline, problem).params
    np.testing.assert_allclose(in_proportion, x, rtol=0, atol=1e-14)


def test_momentum_must_stay_at_the_workers():
    """It is linear in the gradients: the mean of the workers' momenta is that of the mean."""
    inner, average = optax.sgd(RATE, momentum=0.9), ao.optimizers.parameter_averaging(RATE)
    kept = run(average, ao.local_steps(1, inner, RATE, keep_state=True)).params
    np.testing.assert_allclose(kept, minibatch(Momentum(RATE)), rtol=0, atol=1e-13)
    # Begun afresh it never builds up, and what is left is plain SGD.
    afresh = run(average, ao.local_steps(1, inner, RATE)).params
    np.testing.assert_allclose(afresh, minibatch(PlainSgd(RATE)), rtol=0, atol=1e-14)
    assert distance(kept, afresh) > 0.1


@pytest.mark.parametrize("keep_state", [False, True])
def test_averages_of_adam_are_not_adam_on_the_average(keep_state):
    average = ao.optimizers.parameter_averaging(1.0)
    inner = optax.adamw(0.05, b2=AdamW.b2, weight_decay=0.01)
    averaged = run(average, ao.local_steps(1, inner, 1.0, keep_state)).params
    assert distance(averaged, minibatch(AdamW(0.05, 0.01))) > 1e-2
    # One worker has nothing to average.
    alone = run(average, ao.local_steps(1, inner, 1.0, keep_state), synchronous(10, 1)).params
    expected = minibatch(AdamW(0.05, 0.01), num_workers=1)
    assert (distance(alone, expected) < 1e-13) == keep_state


def test_two_steps_differ_from_minibatch_steps_in_second_order():
    """After one round: the second gradients are taken at points that are O(rate) apart."""

    def difference(rate):
        worker = ao.local_steps(2, optax.sgd(rate), rate)
        averaged = run(ao.optimizers.parameter_averaging(rate), worker, synchronous(1)).params
        return np.asarray(averaged) - minibatch(PlainSgd(rate), num_rounds=1, num_steps=2)

    large, half = difference(0.02), difference(0.01)
    assert np.linalg.norm(half) > 1e-6
    np.testing.assert_allclose(np.linalg.norm(large) / np.linalg.norm(half), 4.0, rtol=0.02)


class AsyncLocalSgd(MomentumSgd):
    """The server of the authors' notebook: its factor on what arrives, then Nesterov momentum."""

    def per_arrival(self, g, x, s, tau, worker):
        n = self.options["num_workers"]
        return np.sqrt(n) / n / (1 + tau) ** 0.5 * g


POLYNOMIAL = ao.weights.polynomial(0.5)
OUTER = {
    "models": (
        lambda: ao.optimizers.parameter_averaging(1.0),
        lambda: FedAsync(1.0, mixing=1.0, power=0.0),
    ),
    "differences": (lambda: ao.optimizers.sgd(1.0), lambda: Sgd(1.0)),
    "diloco": (
        lambda: ao.optimizers.diloco(0.7),
        lambda: MomentumSgd(0.7, momentum=0.9, nesterov=True),
    ),
    "weighted": (
        lambda: ao.optimizers.diloco(0.4, 0.5, POLYNOMIAL),
        lambda: WeightedMomentumSgd(0.4, momentum=0.5, nesterov=True, power=0.5),
    ),
    "notebook": (
        lambda: ao.optimizers.diloco(0.1 * np.sqrt(5) / 5, 0.9, POLYNOMIAL),
        lambda: AsyncLocalSgd(0.1, momentum=0.9, nesterov=True, num_workers=5),
    ),
}


@pytest.mark.parametrize(
    ("outer", "protocol", "lanes", "keep_state"),
    [
        ("models", "synchronous", 1, True),
        ("differences", "asynchronous", 3, True),
        ("diloco", "synchronous", 3, True),
        ("diloco", "buffered_no_wait", 3, True),
        ("diloco", "ringmaster", 1, True),
        ("weighted", "uniform", 3, True),
        ("notebook", "asynchronous", 1, False),
    ],
)
def test_adamw_at_the_workers_equals_a_loop_with_one_state_for_each(
    outer, protocol, lanes, keep_state
):
    optimizer, rule = OUTER[outer]
    num_steps, rate, decay = 3, 0.05, 0.02
    timeline = protocols.make_timeline(protocols.PROTOCOLS[protocol], num_commits=15)
    workers = LocalWorkers(
        MODEL,
        timeline,
        KEY,
        lambda: AdamW(rate, decay),
        num_steps=num_steps,
        divisor=1.0,
        keep_state=keep_state,
    )
    versions, losses = replay(workers, rule(), timeline, KEY, START)
    inner = optax.adamw(rate, b2=AdamW.b2, weight_decay=decay)
    worker = ao.local_steps(num_steps, inner, 1.0, keep_state=keep_state)
    result = run(optimizer(), worker, timeline, lanes=lanes)
    np.testing.assert_allclose(result.params, versions[-1], rtol=0, atol=1e-11)
    np.testing.assert_allclose(result.arrivals["loss"], losses, rtol=0, atol=1e-11)
    assert distance(versions[-1], START) > 0.1
    if not keep_state:
        assert result.worker_states == ()
        return
    adam = result.worker_states[0]
    for i in range(timeline.num_workers):
        kept = workers.kept.get(i, AdamW(rate, decay))
        assert adam.count[i] == kept.t
        np.testing.assert_allclose(adam.mu[i], np.broadcast_to(kept.m, START.shape), atol=1e-11)
        np.testing.assert_allclose(adam.nu[i], np.broadcast_to(kept.v, START.shape), atol=1e-11)


@pytest.mark.parametrize("num_steps", [1, 4])
def test_one_worker_with_an_outer_rate_of_one_just_trains(num_steps):
    timeline, inner = synchronous(12, num_workers=1), optax.adamw(0.05, weight_decay=0.01)
    outer = ao.optimizers.diloco(1.0, momentum=0.0)

    def trained(keep_state):
        return run(outer, ao.local_steps(num_steps, inner, 1.0, keep_state), timeline).params

    x = jnp.asarray(START)
    state = inner.init(x)
    for job in range(12):
        for step in range(num_steps):
            _, g = MODEL.loss_and_gradient(np.asarray(x), rows_of(job, step))
            updates, state = inner.update(jnp.asarray(g), state, x)
            x = optax.apply_updates(x, updates)
    np.testing.assert_allclose(trained(True), x, rtol=0, atol=1e-12)
    assert distance(trained(False), x) > 1e-2


def test_diloco_takes_nesterov_steps_by_hand():
    tx, x = ao.optimizers.diloco(0.7, momentum=0.9), np.array([1.0, -2.0])
    state, velocity, ours = tx.init(jnp.asarray(x)), np.zeros(2), jnp.asarray(x)
    rng = np.random.default_rng(0)
    for _ in range(5):
        differences = rng.normal(size=(3, 2))
        for i, d in enumerate(differences):
            updates, state = tx.update(
                jnp.asarray(d), state, ours, commit=jnp.bool_(i == 2), weight=1 / 3
            )
            ours = ours + updates
        mean = differences.mean(axis=0)
        velocity = 0.9 * velocity + mean
        x = x - 0.7 * (mean + 0.9 * velocity)
        np.testing.assert_allclose(ours, x, rtol=0, atol=1e-14)


@pytest.mark.parametrize("bad", [1.0, -0.1])
def test_bad_momenta_raise(bad):
    with pytest.raises(ValueError, match=f"momentum must be .* >= 0 and < 1, got {bad}"):
        ao.optimizers.diloco(0.7, momentum=bad)
