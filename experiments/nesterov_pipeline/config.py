"""What is compared: methods for pipelines, on one text, with the same learning rates."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

import async_optax as ao
from async_optax.optimizers import pipelines
from experiments.nesterov_pipeline import model
from experiments.nesterov_pipeline.text import grammar_text, shakespeare

TEXTS = ("grammar", "shakespeare")
WARM_UP, FLOOR = 3 / 50, 0.1  # shares of the updates and of the learning rate, as in the paper
ANNEALING = 7 / 50  # share of the updates after which no learning rate is discounted
MAX_NORM = 10.0
GPIPE, GPIPE_IN_TIME = "gpipe", "gpipe, same time"


@dataclasses.dataclass(frozen=True)
class Preset:
    """Everything that decides a result.

    Attributes:
      text: one of ``TEXTS``.
      num_characters: of the text that the grammar writes.
      num_layers: blocks of the transformer.
      width: of its residual stream.
      num_heads: of its attention.
      context: positions.
      batch_size: windows per update.
      num_validated: windows on which the perplexity is taken.
      all_num_stages: pipelines that are compared.
      num_micro_batches: of GPipe.
      num_updates: of all methods but GPipe in the same time.
      learning_rates: the grid, ascending.
      momenta: values of b1 that are tried on the first seed, at the most stages.
      seeds: of initial parameters and batches.
      num_evaluations: of each run, the start not counted.
      strategy: of the sweeps.
    """

    text: str = "grammar"
    num_characters: int = 400_000
    num_layers: int = 8
    width: int = 32
    num_heads: int = 2
    context: int = 64
    batch_size: int = 8
    num_validated: int = 128
    all_num_stages: Sequence[int] = (4, 8)
    num_micro_batches: int = 4
    num_updates: int = 1500
    learning_rates: Sequence[float] = (0.002, 0.004, 0.008)
    momenta: Sequence[float] = (0.9, 0.95, 0.99)
    seeds: Sequence[int] = (0, 1, 2)
    num_evaluations: int = 10
    strategy: str = "threads"

    def gpipe_updates(self, num_stages: int) -> int:
        """How many updates GPipe makes in the time of ``num_updates`` asynchronous ones."""
        m = self.num_micro_batches
        return (self.num_updates * m + num_stages - 1) // (m + num_stages - 1)


PRESETS: Mapping[str, Preset] = {
    "smoke": Preset(
        num_layers=2,
        num_characters=20_000,
        width=8,
        num_heads=2,
        context=16,
        batch_size=4,
        num_validated=8,
        all_num_stages=(2,),
        num_updates=30,
        learning_rates=(0.002, 0.008),
        momenta=(0.9, 0.99),
        seeds=(0, 1),
        num_evaluations=3,
    ),
    "cpu": Preset(),
    "gpu": Preset(
        text="shakespeare",
        width=256,
        num_heads=8,
        context=256,
        batch_size=32,
        num_validated=256,
        num_updates=5000,
        learning_rates=(0.0001, 0.0003, 0.001, 0.003),
        num_evaluations=20,
        strategy="auto",
    ),
}


def methods(num_updates: int) -> dict[str, Callable[[float], Any]]:
    """Returns the asynchronous methods, from a learning rate at its peak to an optimizer."""
    annealing = ANNEALING * num_updates
    made: dict[str, Callable[..., Any]] = {
        "pipedream": pipelines.pipedream,
        "pipemare": Partial(pipelines.pipemare, annealing_steps=annealing),
        "stage_momentum": pipelines.stage_momentum,
        "weight_prediction": pipelines.weight_prediction,
        "nesterov": pipelines.nesterov_pipeline,
        "nesterov, b1 0.95": Partial(pipelines.nesterov_pipeline, b1=0.95),
        "nesterov, no stash": Partial(
            pipelines.nesterov_pipeline_no_stash, annealing_steps=annealing
        ),
    }
    return {name: Partial(scheduled, make, num_updates) for name, make in made.items()}


def gpipe(num_updates: int) -> Callable[[float], Any]:
    """Returns the synchronous method."""
    return Partial(scheduled, pipelines.gpipe, num_updates)


def with_momenta(num_updates: int) -> dict[str, Callable[[float, float], Any]]:
    """Returns methods from a learning rate at its peak and b1 to an optimizer."""
    made = {"pipedream": pipelines.pipedream, "nesterov": pipelines.nesterov_pipeline}
    return {name: Partial(_with_momentum, make, num_updates) for name, make in made.items()}


def gpipe_with_momentum(num_updates: int) -> Callable[[float, float], Any]:
    """Returns the synchronous method as a function of its learning rate and b1."""
    return Partial(_with_momentum, pipelines.gpipe, num_updates)


def _with_momentum(
    make: Callable[..., Any], num_updates: int, learning_rate: float, b1: float
) -> Any:
    return scheduled(Partial(make, b1=b1), num_updates, learning_rate)


def scheduled(make: Callable[..., Any], num_updates: int, learning_rate: float) -> Any:
    """A method with its learning rate warmed up, and then lowered along a cosine."""
    schedule = Partial(warmed_up_cosine, learning_rate, float(num_updates))
    return make(schedule, max_norm=MAX_NORM)


def warmed_up_cosine(peak: jax.Array, num_updates: jax.Array, step: jax.Array) -> jax.Array:
    """Up to the peak along a line, then down to a tenth of it along a cosine."""
    warm_up = WARM_UP * num_updates
    rising = (step + 1) / warm_up
    share = jnp.clip((step - warm_up) / (num_updates - warm_up), 0.0, 1.0)
    falling = FLOOR + (1 - FLOOR) * (1 + jnp.cos(jnp.pi * share)) / 2
    return peak * jnp.minimum(rising, falling)


def make_problem(preset: Preset, num_stages: int) -> ao.Problem:
    """Returns the problem in so many stages; initial parameters and batches do not depend on it."""
    text = grammar_text(preset.num_characters) if preset.text == "grammar" else shakespeare()
    layers = model.layers(
        preset.num_layers, preset.width, preset.num_heads, preset.context, len(text.alphabet)
    )
    return model.problem(
        text,
        layers,
        num_stages,
        context=preset.context,
        batch_size=preset.batch_size,
        num_validated=preset.num_validated,
    )
