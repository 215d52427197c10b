"""Asynchronous stochastic optimisation with stale, heavy-tailed gradients, on JAX and Optax."""

from async_optax import data, engine, noise, optimizers, sweeps, timelines, transforms
from async_optax.engine import Checkpointing, Problem, gradient, local_steps, simulate
from async_optax.sweeps import sweep
from async_optax.timelines import Timeline, protocols, runtimes, simulate_timeline
from async_optax.transforms import weights

__version__ = "0.1.0"

__all__ = [
    "Checkpointing",
    "Problem",
    "Timeline",
    "data",
    "engine",
    "gradient",
    "local_steps",
    "noise",
    "optimizers",
    "protocols",
    "runtimes",
    "simulate",
    "simulate_timeline",
    "sweep",
    "sweeps",
    "timelines",
    "transforms",
    "weights",
]
