"""Asynchronous pipeline parallelism, stage by stage, on the engine of everything else.

A model is a list of stages (:func:`problem`), the delays of its stages are an optimizer
(:mod:`async_optax.optimizers.pipelines`), time and bubbles are a timeline (:func:`timeline`), and
:func:`gradient` is the worker program: ``ao.simulate`` and ``ao.sweep`` run them.
"""

from async_optax.engine.pipeline.gradient import gradient
from async_optax.engine.pipeline.problem import problem
from async_optax.engine.pipeline.record import gap
from async_optax.engine.pipeline.stage import Stage, apply_stages, split_layers
from async_optax.timelines.pipelines import bubble_fraction
from async_optax.timelines.pipelines import pipeline_delays as delays
from async_optax.timelines.pipelines import pipeline_timeline as timeline

__all__ = [
    "Stage",
    "apply_stages",
    "bubble_fraction",
    "delays",
    "gap",
    "gradient",
    "problem",
    "split_layers",
    "timeline",
]
