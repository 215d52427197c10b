"""The sweeps that these tests share."""

import functools
import importlib

import jax
import numpy as np

import async_optax as ao
from async_optax.sweeps import sweep
from tests.engine.problems import make_timeline, quadratic_problem

PROBLEM = quadratic_problem()
jobs_module = importlib.import_module("async_optax.sweeps.jobs")


def asynchronous(seed):
    return make_timeline(30, seed=seed)


FIXED = make_timeline(25, ao.protocols.synchronous())
OPTIMIZERS = {
    "plain": "sgd",
    "clipped": functools.partial(ao.optimizers.clipped_sgd, max_norm=1.5),
}
GRID = {"learning_rate": [0.05, 0.2], "noise_scale": [0.1, 1.0]}


def noisy(noise_scale):
    return PROBLEM.with_noise(ao.noise.gaussian(noise_scale))


def run_sweep(**changes):
    """Sixteen cells: two optimizers, two seeds, two rates, two noises."""
    arguments = {
        "problem": noisy,
        "optimizers": OPTIMIZERS,
        "timelines": asynchronous,
        "seeds": [0, 3],
        "grid": GRID,
        "evaluate_every": 4,
    } | changes
    return sweep(**arguments)


def small_sweep(**changes):
    """Four quick cells: two rates, two seeds."""
    arguments = {
        "problem": PROBLEM,
        "optimizers": "sgd",
        "timelines": asynchronous,
        "seeds": [0, 1],
        "grid": {"learning_rate": [0.05, 0.2]},
        "evaluate_every": 10,
    } | changes
    return sweep(**arguments)


def single_runs(dataset):
    """Yields each cell's place in a dataset of ``run_sweep``, and what ``simulate`` gives there."""
    optimizers = {"plain": ao.optimizers.sgd, "clipped": OPTIMIZERS["clipped"]}
    dims = dataset["status"].dims
    for place in np.ndindex(dataset["status"].shape):
        at = {dim: dataset[dim].values.tolist()[i] for dim, i in zip(dims, place, strict=True)}
        yield (
            place,
            ao.simulate(
                noisy(at["noise_scale"]),
                optimizers[at["optimizer"]](at["learning_rate"]),
                asynchronous(at["seed"]),
                key=jax.random.key(at["seed"]),
                lanes=1,
                evaluate_every=4,
            ),
        )


def counted(monkeypatch):
    """Returns a list that grows with each call of ``simulate``."""
    calls = []
    simulate = jobs_module.simulate

    def spy(problem, optimizer, *args, **kwargs):
        calls.append(optimizer)
        return simulate(problem, optimizer, *args, **kwargs)

    monkeypatch.setattr(jobs_module, "simulate", spy)
    return calls
