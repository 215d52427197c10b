"""Asynchronous stochastic optimisation with stale, heavy-tailed gradients, on JAX and Optax."""

from async_optax import (
    data,
    distributed,
    engine,
    noise,
    optimizers,
    sweeps,
    theory,
    timelines,
    transforms,
)
from async_optax.engine import (
    Checkpointing,
    Problem,
    gossip,
    gradient,
    local_steps,
    pipeline,
    simulate,
)
from async_optax.sweeps import sweep
from async_optax.timelines import Timeline, protocols, runtimes, simulate_timeline
from async_optax.transforms import topologies, weights

__version__ = "0.1.0"

__all__ = [
    "Checkpointing",
    "Problem",
    "Timeline",
    "data",
    "distributed",
    "engine",
    "gossip",
    "gradient",
    "local_steps",
    "noise",
    "optimizers",
    "pipeline",
    "protocols",
    "runtimes",
    "simulate",
    "simulate_timeline",
    "sweep",
    "sweeps",
    "theory",
    "timelines",
    "topologies",
    "transforms",
    "weights",
]
