"""Sweeps of optimizers, timelines, numbers and seeds on one problem, as datasets."""

from async_optax.sweeps.reading import final, time_to
from async_optax.sweeps.storage import load, save
from async_optax.sweeps.sweep import sweep

__all__ = ["final", "load", "save", "sweep", "time_to"]
