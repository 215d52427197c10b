"""What the simulator is measured against: networks, and the loops one would write by hand.

Every loop runs plain SGD on the same jobs as ``simulate``: batches and keys are those of
``fold_in(job_key, row)``, so that both end at the same parameters, to rounding. ``functions()``
is ``(loss, batch)`` of a problem; its data are arguments of the compiled loop.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import Partial

import async_optax as ao
from async_optax.transforms import Structure, split_numbers

BATCH = 32
LEARNING_RATE = 0.01
KEY_SEED = 0


def perceptron(widths, num_samples=2048, batch_size=BATCH):
    """A multilayer perceptron on random data: only its cost matters here."""
    rng = np.random.default_rng(0)
    samples = jnp.asarray(rng.normal(size=(num_samples, widths[0])), jnp.float32)
    labels = jnp.asarray(rng.integers(0, widths[-1], num_samples))

    batch = Partial(_sample, samples, labels, batch_size=batch_size)
    return ao.Problem(Partial(_init, widths), _loss, batch)


def widths_for(num_parameters):
    """Widths of a perceptron with two square layers and about that many parameters."""
    width = round(math.sqrt(num_parameters / 2))
    return width, width, width, 10


def size(params):
    """Number of parameters."""
    return sum(x.size for x in jax.tree.leaves(params))


def num_bytes(params):
    """Bytes of one copy of the parameters."""
    return sum(x.nbytes for x in jax.tree.leaves(params))


def start(problem, num_jobs):
    """What ``simulate`` starts from: functions, first parameters and the keys of its jobs."""
    init_key, job_key = jax.random.split(jax.random.key(KEY_SEED))
    keys = jax.vmap(functools.partial(jax.random.fold_in, job_key))(jnp.arange(num_jobs))
    numbers, structure = split_numbers((problem.loss, problem.batch))
    return Partial(_Functions(structure), numbers), problem.init(init_key), keys


@dataclasses.dataclass(frozen=True)
class _Functions:
    structure: Structure

    def __call__(self, numbers):
        return self.structure.join(numbers)


def simulate(problem, timeline, lanes=1):
    """The simulator on the same jobs, by the same rule."""
    key, optimizer = jax.random.key(KEY_SEED), ao.optimizers.sgd(LEARNING_RATE)
    return ao.simulate(problem, optimizer, timeline, key=key, lanes=lanes)


def _init(widths, key):
    keys = jax.random.split(key, len(widths) - 1)
    return [
        (jax.random.normal(k, (a, b)) / np.sqrt(a), jnp.zeros(b))
        for k, a, b in zip(keys, widths[:-1], widths[1:], strict=True)
    ]


def _loss(params, batch, key):
    del key
    x, y = batch
    for w, b in params[:-1]:
        x = jax.nn.relu(x @ w + b)
    w, b = params[-1]
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(x @ w + b), y[:, None], 1))


def _sample(samples, labels, key, worker, *, batch_size):
    del worker
    rows = jax.random.randint(key, (batch_size,), 0, len(samples))
    return samples[rows], labels[rows]


def _gradient(functions, params, worker, key):
    loss, sample = functions()
    batch_key, loss_key, _ = jax.random.split(key, 3)
    return jax.value_and_grad(loss)(params, sample(batch_key, worker), loss_key)


def _step(params, gradient):
    return jax.tree.map(lambda p, g: p - LEARNING_RATE * g, params, gradient)


@functools.partial(jax.jit, static_argnames="num_workers")
def asynchronous(functions, params, workers, keys, num_workers):
    """One arrival after another; a copy of the parameters per worker. ``workers``: [arrivals]."""

    def step(carry, job):
        params, copies = carry
        worker, key = job
        stale = jax.tree.map(lambda c: c[worker], copies)
        value, gradient = _gradient(functions, stale, worker, key)
        params = _step(params, gradient)
        copies = jax.tree.map(lambda c, p: c.at[worker].set(p), copies, params)
        return (params, copies), value

    copies = jax.tree.map(lambda p: jnp.repeat(p[None], num_workers, 0), params)
    (params, _), losses = lax.scan(step, (params, copies), (workers, keys))
    return params, losses


@jax.jit
def one_by_one_then_step(functions, params, workers, keys):
    """Synchronous SGD: workers one by one, their mean applied. ``workers``: [commits, workers]."""
    num_workers = workers.shape[1]

    def commit(params, jobs):
        def add(total, job):
            value, gradient = _gradient(functions, params, *job)
            return jax.tree.map(lambda t, g: t + g / num_workers, total, gradient), value

        total, values = lax.scan(add, jax.tree.map(jnp.zeros_like, params), jobs)
        return _step(params, total), values

    return lax.scan(commit, params, (workers, keys))


@jax.jit
def one_batch_then_step(functions, params, workers, keys):
    """Synchronous SGD: all workers' batches as one large batch. ``workers``: [commits, workers]."""
    loss, sample = functions()

    def commit(params, jobs):
        workers, keys = jobs
        batch_keys, loss_keys = jax.vmap(lambda key: tuple(jax.random.split(key, 3)[:2]))(keys)
        batches = jax.vmap(sample)(batch_keys, workers)
        batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batches)
        value, gradient = jax.value_and_grad(loss)(params, batch, loss_keys[0])
        return _step(params, gradient), value

    return lax.scan(commit, params, (workers, keys))


@jax.jit
def gradients_at_one_version(functions, params, workers, keys):
    """The limit: ``width`` gradients at the same parameters by one vmap; [blocks, width]."""

    def block(params, jobs):
        compute = jax.vmap(functools.partial(_gradient, functions, params))
        values, gradients = compute(*jobs)
        return _step(params, jax.tree.map(lambda g: g.mean(0), gradients)), values

    return lax.scan(block, params, (workers, keys))


@jax.jit
def gradients_at_own_versions(functions, params, workers, keys):
    """The limit of a wave: each lane trains a copy of its own, by one vmap; [blocks, width]."""
    copies = jax.tree.map(lambda p: jnp.repeat(p[None], workers.shape[1], 0), params)

    def block(copies, jobs):
        values, gradients = jax.vmap(functools.partial(_gradient, functions))(copies, *jobs)
        return _step(copies, gradients), values

    return lax.scan(block, copies, (workers, keys))


def in_blocks(workers, keys, width):
    """Jobs in rows of ``width``; those that fill no row are left out."""
    blocks = len(keys) // width
    return (
        jnp.asarray(workers[: blocks * width]).reshape(blocks, width),
        keys[: blocks * width].reshape(blocks, width),
    )


def largest_difference(params, others):
    """The largest difference between coordinates of two pytrees."""
    differences = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), params, others)
    return float(max(jax.tree.leaves(differences)))
