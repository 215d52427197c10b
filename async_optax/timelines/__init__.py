"""Timelines: who computes on which version, and when it arrives. Computed in NumPy."""

from async_optax.timelines import protocols, runtimes
from async_optax.timelines.fresh_rows import require_fresh_rows
from async_optax.timelines.given_staleness import uniform_staleness
from async_optax.timelines.open_arrivals import open_arrivals
from async_optax.timelines.own_versions import require_own_versions
from async_optax.timelines.side_tables import Absences, LostJobs, MadeFor, Phases, Reason
from async_optax.timelines.simulation import simulate_timeline
from async_optax.timelines.timeline import Timeline
from async_optax.timelines.traces import MeasuredJobs, read_jobs

__all__ = [
    "Absences",
    "LostJobs",
    "MadeFor",
    "MeasuredJobs",
    "Phases",
    "Reason",
    "Timeline",
    "open_arrivals",
    "protocols",
    "read_jobs",
    "require_fresh_rows",
    "require_own_versions",
    "runtimes",
    "simulate_timeline",
    "uniform_staleness",
]
