"""The problems, timelines and runs that engine tests share."""

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

import async_optax as ao
from tests.oracles.replay import SoftmaxRegression


def softmax_problem(model: SoftmaxRegression, noise=None) -> ao.Problem:
    """The JAX twin of the NumPy model; use in double precision."""
    data = jnp.asarray(model.features), jnp.asarray(model.labels)
    return ao.Problem(
        init=Partial(_softmax_init, model.size),
        loss=Partial(_softmax_loss, *data),
        batch=Partial(_softmax_rows, model.batch_size, len(model.labels)),
        evaluate=_norm,
        noise=noise,
    )


def _softmax_init(size, key):
    return jnp.linspace(-1.0, 1.0, size)


def _softmax_loss(features, labels, x, rows, key):
    logits = features[rows] @ x.reshape(-1, features.shape[1]).T
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[rows][:, None], 1)
    return -jnp.mean(picked)


def _softmax_rows(batch_size, num_examples, key, worker):
    return jax.random.randint(key, (batch_size,), 0, num_examples)


def _norm(x):
    return {"norm": jnp.linalg.norm(x)}


def quadratic_problem(size: int = 3) -> ao.Problem:
    """``||x - batch||^2 / 2`` with Gaussian batches around 1."""
    return ao.Problem(
        init=lambda key: jnp.full(size, 4.0),
        loss=lambda x, batch, key: jnp.sum((x - batch) ** 2) / 2,
        batch=lambda key, worker: 1 + jax.random.normal(key, (size,)),
        evaluate=lambda x: {"distance": jnp.linalg.norm(x - 1)},
    )


def make_timeline(num_commits=40, protocol=None, num_workers=4, seed=0):
    return ao.simulate_timeline(
        protocol or ao.protocols.asynchronous(),
        ao.runtimes.gamma(cv=0.5),
        num_workers,
        num_commits=num_commits,
        seed=seed,
    )


def run_quadratic(problem=None, optimizer=None, timeline=None, key=None, **options):
    """``simulate`` with small defaults: one lane, 40 commits of 4 asynchronous workers."""
    return ao.simulate(
        quadratic_problem() if problem is None else problem,
        optimizer or ao.optimizers.sgd(0.1),
        timeline or make_timeline(),
        key=jax.random.key(0) if key is None else key,
        **({"lanes": 1} | options),
    )
