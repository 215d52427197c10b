"""What is compared: methods, settings and learning rates."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import optax
from jax.tree_util import Partial

from async_optax import noise, problems, runtimes
from async_optax.engine import Problem
from async_optax.transforms import (
    bi_clip,
    clip_by_global_norm,
    clip_by_quantile,
    clip_coordinates_by_quantile,
    compensate_delay,
    compensate_delay_dynamic,
    sweepable,
)
from experiments.adaptive.prototypes import (
    clip_by_mean,
    compensate_by_hypergradient,
    compensate_own_square,
)

ALPHA = 1.2  # tail index of the noise: no variance
CLIP = 0.03  # of every coordinate where compensations are compared
SCALE = 8.0  # by which noise or loss change
NO_NOISE = 1e-9  # a scale, so that runs without noise share the compiled program
RUNTIMES = runtimes.two_speed(8.0, law=runtimes.gamma(cv=0.5))


@dataclasses.dataclass(frozen=True)
class Method:
    """A chain without its learning rate.

    Attributes:
      name: in tables.
      make: from a learning rate to an optimizer.
      rate_unit: what the grid of learning rates is multiplied with, for updates that are not
        in gradient units.
    """

    name: str
    make: Callable[[float], optax.GradientTransformation]
    rate_unit: float = 1.0


@dataclasses.dataclass(frozen=True)
class Setting:
    """A problem, how many work on it, and for how long.

    Attributes:
      name: in tables.
      problem: with its noise.
      max_time: simulated.
      learning_rates: the grid, ascending.
      num_workers: of which half are 8 times slower.
      target: accuracy whose time is taken.
    """

    name: str
    problem: Problem
    max_time: float
    learning_rates: Sequence[float]
    num_workers: int = 16
    target: float = 0.8


@dataclasses.dataclass(frozen=True)
class Study:
    """Methods on settings, and where the tuned ones are carried without retuning.

    Attributes:
      name: key in the summary.
      grids: ``(setting, methods)``, each method at all learning rates.
      carried: for a setting's name, the settings to which its best learning rates are carried.
    """

    name: str
    grids: Sequence[tuple[Setting, Sequence[Method]]]
    carried: Mapping[str, Sequence[Setting]] = dataclasses.field(default_factory=dict)


@sweepable
def _chain(
    clip: Any, compensation: Any, learning_rate: float
) -> optax.GradientTransformationExtraArgs:
    return optax.chain(clip, compensation, optax.sgd(learning_rate))


@sweepable
def _clipped(clip: Any, learning_rate: float) -> optax.GradientTransformationExtraArgs:
    return optax.chain(clip, optax.sgd(learning_rate))


def clipping_methods() -> list[Method]:
    """Fixed thresholds, and adaptive ones at one setting each."""

    def method(name: str, clip: Any, rate_unit: float = 1.0) -> Method:
        return Method(name, Partial(_clipped, clip), rate_unit)

    coordinates = [CLIP * SCALE ** (k / 2) for k in range(-2, 3)]
    return [
        *[method(f"coordinate {c:.2g}", bi_clip(0.0, c)) for c in coordinates],
        *[method(f"norm {c:g}", clip_by_global_norm(c)) for c in (0.1, 0.3, 1.0, 3.0)],
        method("norm quantile", clip_by_quantile(0.5, 100)),
        method("mean magnitude", clip_by_mean()),
        *[
            method(
                f"quantile, {granularity}", clip_coordinates_by_quantile(granularity=granularity)
            )
            for granularity in ("global", "layer", "coordinate")
        ],
        method("quantile, normalised", clip_coordinates_by_quantile(normalize=True), CLIP),
    ]


def compensation_methods() -> list[Method]:
    """Fixed strengths in units of 1/clip^2, and those chosen while training.

    The last one has another clip, whose unit is 1.
    """

    def method(name: str, compensation: Any) -> Method:
        return Method(name, Partial(_chain, bi_clip(0.0, CLIP), compensation))

    unit = 1 / CLIP**2
    return [
        *[method(f"fixed {k:g}", compensate_delay(k * unit)) for k in (0.0, 0.1, 0.25, 1.0, 3.0)],
        method("dynamic", compensate_delay_dynamic()),
        method("own square", compensate_own_square()),
        method("hypergradient", compensate_by_hypergradient(clip=CLIP)),
        method("fixed 0.25, capped", compensate_delay(0.25 * unit, max_ratio=0.5)),
        method("relative 0.3", compensate_delay(1e12, max_ratio=0.3)),
        Method(
            "normalised, fixed 3",
            Partial(_chain, clip_coordinates_by_quantile(normalize=True), compensate_delay(3.0)),
            CLIP,
        ),
    ]


def _scaled_loss(loss: Any, factor: float, params: Any, batch: Any, key: jax.Array) -> jax.Array:
    return factor * loss(params, batch, key)


def setting(
    name: str,
    problem: Problem,
    noise_scale: float,
    *,
    loss_scale: float = 1.0,
    **arguments: Any,
) -> Setting:
    problem = dataclasses.replace(problem, loss=Partial(_scaled_loss, problem.loss, loss_scale))
    noisy = problem.with_noise(noise.alpha_stable(ALPHA, noise_scale * loss_scale))
    return Setting(name, noisy, **arguments)


def _powers(first: int, last: int) -> list[float]:
    return [2.0**exponent for exponent in range(first, last + 1)]


def full_studies() -> list[Study]:
    """Returns what is reported: about eleven minutes on one core."""
    digits, attention = problems.digits(hidden=(32,)), problems.attention()
    small = {"max_time": 80.0}
    long = {"max_time": 100.0}
    clips = small | {"learning_rates": _powers(-7, 3)}
    clips_long = long | {"learning_rates": _powers(-6, 1)}
    noisier = setting("digits, noise x 8", digits, 0.05 * SCALE, **clips)
    calmer = setting("digits, noise / 8", digits, 0.05 / SCALE, **clips)
    scales = {"loss x 8": (1.0, SCALE), "loss / 8": (1.0, 1 / SCALE)}
    scales |= {"loss x 64": (1.0, SCALE**2), "loss / 64": (1.0, SCALE**-2)}
    noises = {"noise x 8": (SCALE, 1.0), "noise / 8": (1 / SCALE, 1.0)}
    every = clipping_methods()
    some = [m for m in every if m.name not in ("coordinate 0.24", "norm 0.1")]
    clipping = Study(
        "clipping",
        [
            (setting("digits", digits, 0.05, **clips), every),
            (noisier, every),
            (calmer, every),
            (setting("attention", attention, 0.02, **clips_long), some),
        ],
        {
            "digits": [noisier, calmer]
            + [
                setting(f"digits, {name}", digits, 0.05 * n, loss_scale=k, **clips)
                for name, (n, k) in scales.items()
            ],
            "attention": [
                setting(f"attention, {name}", attention, 0.02 * n, loss_scale=k, **clips_long)
                for name, (n, k) in (noises | scales).items()
            ],
        },
    )
    rates, rates_long = {"learning_rates": _powers(-5, 4)}, {"learning_rates": _powers(-5, 2)}
    crowd = {"max_time": 40.0, "num_workers": 32}
    strengths = compensation_methods()
    few = ("fixed 0", "fixed 0.1", "fixed 0.25", "dynamic", "fixed 0.25, capped")
    few_strengths = [m for m in strengths if m.name in few]
    compensation = Study(
        "compensation",
        [
            (setting("digits", digits, 0.05, **small, **rates), strengths),
            (setting("digits, no noise", digits, NO_NOISE, **small, **rates), strengths),
            (setting("digits, 32 workers", digits, 0.05, **crowd, **rates), strengths),
            (setting("attention", attention, 0.02, **long, **rates_long), few_strengths),
            (
                setting("attention, no noise", attention, NO_NOISE, **long, **rates_long),
                few_strengths,
            ),
        ],
    )
    return [clipping, compensation]


def quick_studies() -> list[Study]:
    """Returns a smoke test: all code paths, and numbers that mean nothing."""
    digits = problems.digits(hidden=(8,), batch_size=4)
    arguments: dict[str, Any] = {
        "max_time": 12.0,
        "num_workers": 4,
        "learning_rates": [0.125, 0.5],
        "target": 0.1,
    }
    home = setting("digits", digits, 0.05, **arguments)
    scaled = setting("digits, loss x 8", digits, 0.05, loss_scale=SCALE, **arguments)
    clips = [m for m in clipping_methods() if m.name in ("coordinate 0.03", "quantile, normalised")]
    strengths = [m for m in compensation_methods() if m.name in ("fixed 0.25", "dynamic")]
    return [
        Study("clipping", [(home, clips)], {"digits": [scaled]}),
        Study("compensation", [(home, strengths)]),
    ]
