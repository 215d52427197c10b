"""Runtime models: how long a worker takes for a job, and when it is there."""

from async_optax.timelines.runtimes.empirical import empirical
from async_optax.timelines.runtimes.laws import (
    deterministic,
    exponential,
    gamma,
    half_normal,
    lognormal,
    pareto,
    uniform,
)
from async_optax.timelines.runtimes.machines import power_law, two_speed
from async_optax.timelines.runtimes.model import RuntimeModel

__all__ = [
    "RuntimeModel",
    "deterministic",
    "empirical",
    "exponential",
    "gamma",
    "half_normal",
    "lognormal",
    "pareto",
    "power_law",
    "two_speed",
    "uniform",
]
