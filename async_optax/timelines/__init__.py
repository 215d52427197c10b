"""Timelines: who computes on which version, and when it arrives. Computed in NumPy."""

from async_optax.timelines import protocols, runtimes
from async_optax.timelines.simulation import simulate_timeline
from async_optax.timelines.timeline import LostJobs, Phases, Reason, Timeline

__all__ = [
    "LostJobs",
    "Phases",
    "Reason",
    "Timeline",
    "protocols",
    "runtimes",
    "simulate_timeline",
]
