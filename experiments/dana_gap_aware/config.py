"""What is compared: momentum methods over numbers of workers, and the presets."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

import async_optax as ao
from async_optax.data import uniform_rows
from experiments.datasets import Images, load_images
from experiments.models import CNN, ResNet, image_problem

MOMENTUM = 0.9
WARM_UP = 5 / 160  # share of the gradients
DECAYS, FACTOR = (1 / 2, 3 / 4), 0.1  # when, as shares of the gradients, and to how much
NAG, MULTI, DANA, DANA_DC = "NAG-ASGD", "multi-momentum", "DANA", "DANA-DC"
GAP, DANA_GAP, STALENESS = "gap-aware", "DANA-gap-aware", "staleness-aware"
SAME, UNLIKE = "same machines", "unlike machines"
MACHINES: Mapping[str, Any] = {
    SAME: ao.runtimes.gamma(cv=0.1),
    UNLIKE: ao.runtimes.gamma(cv=0.1, machine_cv=0.6),
}
Schedule = Callable[[jax.Array], jax.Array]


def _staleness_aware(schedule: Schedule, num_workers: int) -> optax.GradientTransformation:
    """NAG-ASGD on gradients divided by their staleness."""
    del num_workers
    return optax.chain(
        ao.transforms.scale_by_staleness(ao.weights.inverse()),
        ao.transforms.accumulate_until_commit(optax.sgd(schedule, MOMENTUM, nesterov=True)),
    )


METHODS: Mapping[str, Callable[[Schedule, int], optax.GradientTransformation]] = {
    NAG: lambda schedule, n: ao.optimizers.momentum_sgd(schedule, MOMENTUM, nesterov=True),
    MULTI: lambda schedule, n: ao.optimizers.multi_momentum(schedule, n, MOMENTUM),
    DANA: lambda schedule, n: ao.optimizers.dana(schedule, n, MOMENTUM),
    DANA_DC: lambda schedule, n: ao.optimizers.dana_dc(schedule, n, MOMENTUM),
    GAP: lambda schedule, n: ao.optimizers.gap_aware(schedule, MOMENTUM),
    DANA_GAP: lambda schedule, n: ao.optimizers.dana_gap_aware(schedule, n, MOMENTUM),
    STALENESS: ao.transforms.sweepable(_staleness_aware, static_argnames=("num_workers",)),
}


@dataclasses.dataclass(frozen=True)
class Preset:
    """How much is computed.

    Attributes:
      data: name of the images.
      data_arguments: of their loader.
      model: ``"cnn"`` or ``"resnet"``.
      model_arguments: of its module.
      batch_size: images per gradient.
      num_gradients: of all workers together, the same whatever their number.
      num_workers: numbers of workers.
      machines: names of ``MACHINES``.
      learning_rates: tried.
      more_rates: tried as well, by methods whose best rate would be at an edge.
      methods: names of ``METHODS``.
      seeds: of initialisation, batches and times.
      num_evaluations: evenly spaced.
      lanes: of :func:`async_optax.simulate`.
    """

    data: str = "digits"
    data_arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    model: str = "cnn"
    model_arguments: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: {"channels": (8, 16), "hidden": 32}
    )
    batch_size: int = 16
    num_gradients: int = 1500
    num_workers: Sequence[int] = (4, 8, 16, 32, 64)
    machines: Sequence[str] = (SAME, UNLIKE)
    learning_rates: Sequence[float] = tuple(2.0**k for k in range(-12, -3))
    more_rates: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    methods: Sequence[str] = tuple(METHODS)
    seeds: Sequence[int] = (0, 1, 2)
    num_evaluations: int = 20
    lanes: int | str = 1

    def rates(self, method: str) -> tuple[float, ...]:
        """Returns all learning rates that a method tries, in their order."""
        return tuple(sorted((*self.learning_rates, *self.more_rates.get(method, ()))))


_LOWER, _HIGHER = (2.0**-14, 2.0**-13), (2.0**-3, 2.0**-2)
PRESETS: Mapping[str, Preset] = {
    "smoke": Preset(
        model_arguments={"channels": (4,), "hidden": 8},
        batch_size=4,
        num_gradients=40,
        num_workers=(4,),
        machines=(UNLIKE,),
        learning_rates=(0.005, 0.01),
        methods=(NAG, DANA_GAP),
        seeds=(0, 1),
        num_evaluations=2,
    ),
    "cpu": Preset(more_rates={NAG: _LOWER}),
    # Four times as long: is what many workers lose lost because runs are short?
    "cpu-long": Preset(
        num_gradients=6000,
        num_workers=(64,),
        more_rates={NAG: _LOWER, GAP: _HIGHER, DANA_GAP: _HIGHER, STALENESS: _HIGHER},
    ),
    "gpu": Preset(
        data="cifar10",
        model="resnet",
        model_arguments={},
        batch_size=128,
        num_gradients=62_500,
        learning_rates=tuple(0.1 * 2.0**k for k in range(-5, 2)),
        num_evaluations=40,
        lanes="auto",
    ),
}


def load(preset: Preset) -> Images:
    """Returns the images of a preset."""
    return load_images(preset.data, **preset.data_arguments)


def make_problem(preset: Preset, images: Images) -> ao.Problem:
    """Returns the problem of a preset; all workers draw from all images."""
    module = ResNet() if preset.model == "resnet" else CNN(**preset.model_arguments)
    return image_problem(module, images, uniform_rows(len(images.train), preset.batch_size))


def make_timeline(machines: str, num_gradients: int, num_workers: int, seed: int) -> ao.Timeline:
    """Returns the timeline that all methods share."""
    return ao.simulate_timeline(
        ao.protocols.asynchronous(),
        MACHINES[machines],
        num_workers,
        num_commits=num_gradients,
        seed=seed,
    )


def make_optimizer(
    preset: Preset, method: str, learning_rate: float, num_workers: int
) -> optax.GradientTransformation:
    """Returns a method with the papers' schedule: warmed up from ``learning_rate / num_workers``.

    Then constant, and divided by ten at half and at three quarters of the gradients.
    """
    schedule = Partial(
        warmed_up_steps, learning_rate, 1.0 / num_workers, float(preset.num_gradients)
    )
    return METHODS[method](schedule, num_workers)


def warmed_up_steps(
    peak: jax.Array, start: jax.Array, num_gradients: jax.Array, step: jax.Array
) -> jax.Array:
    """From ``start * peak`` along a line to the peak, then down in two steps."""
    share = step / num_gradients
    rising = start + (1 - start) * jnp.minimum(share / WARM_UP, 1.0)
    decays = sum(jnp.where(share >= decay, 1.0, 0.0) for decay in DECAYS)
    return peak * rising * FACTOR**decays
