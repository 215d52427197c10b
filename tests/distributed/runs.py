"""What real runs in tests share: one Ray session, problems, and ways to break things."""

import jax
import jax.numpy as jnp
import numpy as np

import async_optax as ao
from async_optax.distributed import Limits, replay, train

KEY = jax.random.key(5)
LIMITS = Limits(job=30.0, start=90.0, store=20.0, server=60.0)


def features():
    return np.random.default_rng(0).normal(size=(40, 6))


def regression():
    """Least squares on 40 rows, batches of 4; captured arrays travel with the closure."""
    x = features().astype(np.float32)
    y = x @ np.arange(6, dtype=np.float32)

    def loss(params, rows, key):
        return jnp.mean(
            (jnp.asarray(x)[rows] @ params["w"] + params["b"] - jnp.asarray(y)[rows]) ** 2
        )

    return ao.Problem(
        init=lambda key: {"w": jnp.zeros(6), "b": jnp.zeros([])},
        loss=loss,
        batch=lambda key, worker: jax.random.randint(key, (4,), 0, 40),
        evaluate=lambda params: {"norm": jnp.linalg.norm(params["w"])},
    )


PROBLEM = regression()
METHOD = ao.optimizers.async_heavy_tailed(
    0.02, threshold=2.0, weight_fn=ao.weights.inverse(), compensation=0.1
)


def random_sleep(worker, job):
    """About 2 ms; worker 1 is slower."""
    return float(np.random.default_rng(job).exponential(0.002 if worker != 1 else 0.006))


def run(directory, protocol, num_workers=2, **arguments):
    arguments = {"key": KEY, "limits": LIMITS, "checkpoint_every": None} | arguments
    problem, method = arguments.pop("problem", PROBLEM), arguments.pop("method", METHOD)
    return train(problem, method, protocol, num_workers, directory=directory, **arguments)


def distance(result, problem=PROBLEM, method=METHOD, **arguments):
    """The largest difference between the parameters of a run and of its replay."""
    again = replay(problem, method, result.recording, lanes=1, **arguments)
    pairs = zip(jax.tree.leaves(again.params), jax.tree.leaves(result.params), strict=True)
    return max(float(np.max(np.abs(np.asarray(one) - two))) for one, two in pairs)
