"""The simulator: a timeline is compiled into a plan and executed exactly."""

from async_optax.engine.checkpoints import Checkpointing
from async_optax.engine.memory import MemoryUse
from async_optax.engine.plan import Plan, compile_timeline, cut_waves
from async_optax.engine.problem import Problem
from async_optax.engine.record import RECORDERS, ArrivalInfo
from async_optax.engine.result import Divergence, LaneChoice, Result
from async_optax.engine.simulate import simulate
from async_optax.engine.worker import WorkerProgram, gradient, local_steps

__all__ = [
    "RECORDERS",
    "ArrivalInfo",
    "Checkpointing",
    "Divergence",
    "LaneChoice",
    "MemoryUse",
    "Plan",
    "Problem",
    "Result",
    "WorkerProgram",
    "compile_timeline",
    "cut_waves",
    "gradient",
    "local_steps",
    "simulate",
]
