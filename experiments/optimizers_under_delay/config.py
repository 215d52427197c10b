"""What is compared: optimizers under delays, with remedies, and the presets."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

import async_optax as ao
from async_optax import transforms, weights
from experiments.datasets import Text, load_text
from experiments.nesterov_pipeline import model
from experiments.nesterov_pipeline.config import warmed_up_cosine

SGD, ADAM, ADAMW, LION, MUON = "SGD", "Adam", "AdamW", "Lion", "Muon"
# Each with the learning rate from which its search starts.
OPTIMIZERS: Mapping[str, float] = {
    SGD: 0.25,
    ADAM: 2.0**-7,
    ADAMW: 2.0**-7,
    LION: 2.0**-9,
    MUON: 2.0**-6,
}
WEIGHT_DECAY = 0.1  # of AdamW and Lion
NONE, SCALING, COMPENSATION = "none", "staleness scaling", "compensation"
LOOK_AHEAD, CLIPPING = "look-ahead", "clipping"
REMEDIES = (NONE, SCALING, COMPENSATION, LOOK_AHEAD, CLIPPING)
_HIDDEN = ("queries_keys_values", "merge", "up", "down")  # what Muon makes orthogonal


@dataclasses.dataclass(frozen=True)
class Delay:
    """By how many updates gradients are late.

    Attributes:
      most: in updates.
      by_stage: if the stages of a pipeline are late by ``most``, less, and less, down to 0;
        else all parameters are late by ``most``.
    """

    most: int
    by_stage: bool = False

    @property
    def name(self) -> str:
        """For tables."""
        return f"stages {self.most}..0" if self.by_stage else f"uniform {self.most}"


@dataclasses.dataclass(frozen=True)
class Preset:
    """How much is computed.

    Attributes:
      text: ``"grammar"`` or ``"shakespeare"``.
      text_arguments: of its loader.
      num_layers: blocks of the transformer, each a stage of the pipeline.
      width: of its residual stream.
      num_heads: of its attention.
      context: positions.
      batch_size: windows per gradient.
      num_validated: windows on which the loss is taken.
      num_updates: of each run.
      num_evaluations: of each run, evenly spaced.
      optimizers: names of ``OPTIMIZERS``.
      delays: at which optimizers are compared, by ``most``.
      remedied: at which remedies are tried.
      remedies: names of ``REMEDIES``.
      strengths: of the compensation, tried.
      thresholds: of the clipped norm, tried.
      tuned_on: the seed on which numbers are chosen.
      seeds: fresh ones, on which they are judged.
    """

    text: str = "grammar"
    text_arguments: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: {"num_characters": 200_000}
    )
    num_layers: int = 3
    width: int = 32
    num_heads: int = 2
    context: int = 32
    batch_size: int = 8
    num_validated: int = 64
    num_updates: int = 700
    num_evaluations: int = 7
    optimizers: Sequence[str] = tuple(OPTIMIZERS)
    delays: Sequence[Delay] = (
        *(Delay(most) for most in (0, 1, 4, 8, 16)),
        *(Delay(most, by_stage=True) for most in (8, 16)),
    )
    remedied: Sequence[Delay] = (Delay(8), Delay(8, by_stage=True))
    remedies: Sequence[str] = (SCALING, COMPENSATION, LOOK_AHEAD, CLIPPING)
    strengths: Sequence[float] = (1.0, 100.0, 1000.0, 10_000.0, 100_000.0)
    thresholds: Sequence[float] = (0.03, 0.1, 0.3, 1.0)
    tuned_on: int = 0
    seeds: Sequence[int] = (1, 2, 3)


PRESETS: Mapping[str, Preset] = {
    "smoke": Preset(
        text_arguments={"num_characters": 2000},
        num_layers=2,
        width=8,
        context=8,
        batch_size=2,
        num_validated=4,
        num_updates=20,
        num_evaluations=2,
        optimizers=(ADAM,),
        delays=(Delay(0), Delay(2, by_stage=True)),
        remedied=(Delay(2, by_stage=True),),
        remedies=(COMPENSATION,),
        strengths=(1.0,),
        thresholds=(1.0,),
        seeds=(1,),
    ),
    "cpu": Preset(),
    "gpu": Preset(
        text="shakespeare",
        text_arguments={},
        num_layers=9,
        width=256,
        num_heads=8,
        context=256,
        batch_size=32,
        num_validated=256,
        num_updates=5000,
        num_evaluations=20,
        delays=(
            *(Delay(most) for most in (0, 1, 4, 8, 16)),
            *(Delay(most, by_stage=True) for most in (4, 8, 16)),
        ),
    ),
}


def make_problem(preset: Preset, text: Text) -> ao.Problem:
    """Returns the transformer, its parameters a tuple of as many stages as layers."""
    layers = model.layers(
        preset.num_layers, preset.width, preset.num_heads, preset.context, len(text.alphabet)
    )
    return model.problem(
        text,
        layers,
        preset.num_layers,
        context=preset.context,
        batch_size=preset.batch_size,
        num_validated=preset.num_validated,
    )


def load(preset: Preset) -> Text:
    """Returns the text of a preset."""
    return load_text(preset.text, **preset.text_arguments)


def make_timeline(preset: Preset, delay: Delay) -> ao.Timeline:
    """Returns the timeline of a delay; what counts are its first ``preset.num_updates`` commits.

    After them, those with uniform delays have some more commits at the largest delay of all, so
    that all hold equally many versions and share one compiled program.
    """
    if delay.by_stage:
        return ao.pipeline.timeline(preset.num_layers, preset.num_updates)
    largest = max(each.most for each in preset.delays)
    staleness = np.minimum(np.arange(preset.num_updates), delay.most)
    return ao.Timeline.from_staleness(np.append(staleness, [largest] * (largest + 1)))


def stage_delays(delay: Delay, num_stages: int) -> tuple[int, ...] | None:
    """Returns the delays of stages, evenly from ``delay.most`` down to 0; ``None`` if uniform.

    Example:
      >>> stage_delays(Delay(8, by_stage=True), 3)
      (8, 4, 0)
    """
    if not delay.by_stage:
        return None
    last = num_stages - 1
    return tuple(round(delay.most * (last - i) / last) for i in range(num_stages))


def _hidden_matrices(params: Any) -> Any:
    """Which parameters Muon makes orthogonal, and what the others are left as."""

    def dimensions(path: Any, x: jax.Array) -> Any:
        del x
        return optax.contrib.MuonDimensionNumbers() if path[-1].key in _HIDDEN else None

    return jax.tree_util.tree_map_with_path(dimensions, params)


def server(name: str, learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """Returns an optimizer by its name."""
    if name == SGD:
        return optax.sgd(learning_rate)
    if name == ADAM:
        return optax.adam(learning_rate)
    if name == ADAMW:
        return optax.adamw(learning_rate, weight_decay=WEIGHT_DECAY)
    if name == LION:
        return optax.lion(learning_rate, weight_decay=WEIGHT_DECAY)
    return optax.contrib.muon(
        learning_rate, consistent_rms=0.2, muon_weight_dimension_numbers=_hidden_matrices
    )


@transforms.sweepable(static_argnames=("delays",))
def under_delay(
    learning_rate: float,
    name: str,
    remedy: str,
    num_updates: float,
    extra: float,
    delay: float,
    delays: tuple[int, ...] | None,
) -> optax.GradientTransformationExtraArgs:
    """An optimizer with a remedy, for timelines of :func:`make_timeline`.

    Args:
      learning_rate: at its peak.
      name: one of ``OPTIMIZERS``.
      remedy: one of ``REMEDIES``. Scaling, by ``(1 + tau)^-0.5``, comes after the optimizer, which
        would divide it away; clipping and compensation come before it.
      num_updates: of the schedule.
      extra: strength of the compensation, or threshold of the norm.
      delay: the uniform delay, by which the look-ahead predicts.
      delays: of the stages, or ``None``.
    """
    step = server(name, Partial(warmed_up_cosine, learning_rate, num_updates))
    before = []
    if remedy == SCALING:
        step = optax.chain(step, transforms.scale_by_staleness(weights.polynomial(0.5)))
    elif remedy == COMPENSATION:
        before = [transforms.compensate_delay(extra)]
    elif remedy == CLIPPING:
        before = [transforms.clip_by_global_norm(extra)]
    elif remedy == LOOK_AHEAD and delays is None:
        step = transforms.look_ahead(step, delay)
    elif remedy == LOOK_AHEAD:
        step = transforms.predict_stages(step, delays=delays)
    whole = optax.chain(*before, transforms.accumulate_until_commit(step))
    return whole if delays is None else transforms.delay_stages(whole, delays=delays)


def extras(preset: Preset, remedy: str) -> Sequence[float]:
    """Returns the strengths or thresholds that a remedy tries; 0 if it has none."""
    if remedy == COMPENSATION:
        return preset.strengths
    return preset.thresholds if remedy == CLIPPING else (0.0,)


def guessing(text: Text) -> float:
    """Returns the loss of guessing, with which a run that diverged counts."""
    return float(jnp.log(len(text.alphabet)))
