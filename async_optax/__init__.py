"""Asynchronous stochastic optimisation with stale, heavy-tailed gradients, on JAX and Optax."""

from async_optax import engine, noise, optimizers, timelines, transforms
from async_optax.engine import Problem, simulate
from async_optax.timelines import Timeline, protocols, runtimes, simulate_timeline
from async_optax.transforms import weights

__version__ = "0.1.0"

__all__ = [
    "Problem",
    "Timeline",
    "engine",
    "noise",
    "optimizers",
    "protocols",
    "runtimes",
    "simulate",
    "simulate_timeline",
    "timelines",
    "transforms",
    "weights",
]
