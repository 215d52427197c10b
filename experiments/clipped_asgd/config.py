"""What is compared, on what, and the presets."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import async_optax as ao
from async_optax.data import label_partition, partition_rows, uniform_rows
from experiments.datasets import Images, Text, load_images, load_text
from experiments.models import CNN, LSTM, ResNet, image_problem, language_problem

NUM_WORKERS = 16
VANILLA, ADAPTIVE, RINGMASTER, CLIPPED = "vanilla", "delay-adaptive", "Ringmaster", "clipped"
METHODS = (VANILLA, ADAPTIVE, RINGMASTER, CLIPPED)
IMAGES, TEXT, FEDERATED = "images", "text", "federated"
# Between the staleness of fast workers (at most 14) and of slow ones (at least 24): any bound in
# there rejects what slow workers deliver, and nothing else.
BOUND = 15
CONCENTRATION = 0.5  # of the Dirichlet distribution that skews the labels
# How many times faster the clipped method is, in the paper, than each of the others.
PUBLISHED: Mapping[tuple[str, int], Mapping[str, float]] = {
    (IMAGES, 4): {VANILLA: 1.8, ADAPTIVE: 1.5, RINGMASTER: 1.5},
    (TEXT, 4): {VANILLA: 1.8, ADAPTIVE: 2.1, RINGMASTER: 1.8},
    (TEXT, 8): {VANILLA: 2.0, ADAPTIVE: 2.2, RINGMASTER: 1.4},
    (FEDERATED, 4): {VANILLA: 1.2},
    (FEDERATED, 8): {VANILLA: 1.3},
}


@dataclasses.dataclass(frozen=True)
class Task:
    """What is trained, and how far.

    Attributes:
      data: a name of :func:`experiments.datasets.load_images` or ``load_text``.
      data_arguments: of its loader.
      model: ``"cnn"``, ``"resnet"`` or ``"lstm"``.
      model_arguments: of its module.
      batch_size: images or windows per gradient.
      target: accuracy, or perplexity per character, to be reached.
      horizons: simulated time of a run, by how much slower half of the workers are.
      num_evaluations: evenly spaced in time.
      learning_rates: tried.
      thresholds: of the clipped norm, tried.
      bounds: of Ringmaster's staleness, tried; on tasks that are not federated any between the
        staleness of fast and of slow workers does the same.
      context: characters of a window.
      num_validated: windows on which the perplexity is taken.
    """

    data: str
    data_arguments: Mapping[str, Any]
    model: str
    model_arguments: Mapping[str, Any]
    batch_size: int
    target: float
    horizons: Mapping[int, float]
    num_evaluations: int
    learning_rates: Sequence[float]
    thresholds: Sequence[float]
    bounds: Sequence[int] = (BOUND,)
    context: int = 32
    num_validated: int = 64

    @property
    def metric(self) -> str:
        """What is evaluated."""
        return "perplexity" if self.model == "lstm" else "accuracy"


@dataclasses.dataclass(frozen=True)
class Preset:
    """How much is computed.

    Attributes:
      tasks: by name: images, text and federated images.
      slowdowns: D, half of the workers take D times as long.
      seeds: on which numbers are chosen.
      fresh_seeds: on which the chosen are judged.
      kept: times the best time on the first seed, up to which numbers are tried on the others.
      lanes: of :func:`async_optax.simulate`.
    """

    tasks: Mapping[str, Task]
    slowdowns: Sequence[int] = (4, 8)
    seeds: Sequence[int] = (0, 1, 2)
    fresh_seeds: Sequence[int] = (3, 4, 5)
    kept: float = 1.5
    lanes: int | str = 1


def _powers(first: int, last: int) -> tuple[float, ...]:
    return tuple(2.0**k for k in range(first, last + 1))


_SMALL_CNN = {"channels": (8, 16), "hidden": 32}
_DIGITS = Task(
    data="digits",
    data_arguments={},
    model="cnn",
    model_arguments=_SMALL_CNN,
    batch_size=16,
    target=0.95,
    horizons={4: 250.0, 8: 250.0},
    num_evaluations=125,
    learning_rates=_powers(-7, -1),
    thresholds=_powers(-1, 2),
)
_GRAMMAR = Task(
    data="grammar",
    data_arguments={"num_characters": 200_000},
    model="lstm",
    model_arguments={"width": 64, "num_layers": 1, "embedding": 16, "dropout": 0.2},
    batch_size=8,
    target=5.0,
    horizons={4: 200.0, 8: 200.0},
    num_evaluations=80,
    learning_rates=_powers(-2, 3),
    thresholds=_powers(-3, 0),
)
_FEDERATED = dataclasses.replace(
    _DIGITS,
    horizons={4: 800.0, 8: 1600.0},
    num_evaluations=100,
    bounds=(15, 31, 63),
)
_CIFAR = dataclasses.replace(
    _DIGITS,
    data="cifar10",
    data_arguments={"num_train": 20_000, "num_test": 1_000},
    model_arguments={"channels": (16, 32), "hidden": 64},
    batch_size=32,
    target=0.4,
    horizons={4: 500.0, 8: 500.0},
    num_evaluations=100,
    learning_rates=_powers(-6, 0),
)
_CIFAR_ON_GPU = dataclasses.replace(
    _CIFAR,
    data_arguments={},
    model="resnet",
    model_arguments={},
    batch_size=64,
    target=0.8,
    horizons={4: 4000.0, 8: 4000.0},
    num_evaluations=200,
    learning_rates=_powers(-9, -1),
)
PRESETS: Mapping[str, Preset] = {
    "smoke": Preset(
        {
            IMAGES: dataclasses.replace(
                _DIGITS,
                model_arguments={"channels": (4,), "hidden": 8},
                batch_size=4,
                target=0.2,
                horizons={4: 24.0},
                num_evaluations=6,
                learning_rates=(0.05, 0.1),
                thresholds=(1.0,),
            ),
        },
        slowdowns=(4,),
        seeds=(0, 1),
        fresh_seeds=(2,),
    ),
    "cpu": Preset({IMAGES: _DIGITS, TEXT: _GRAMMAR, FEDERATED: _FEDERATED}),
    "cpu-real": Preset(
        {
            IMAGES: _CIFAR,
            TEXT: dataclasses.replace(
                _GRAMMAR,
                data="shakespeare",
                data_arguments={},
                target=8.0,
                horizons={4: 400.0, 8: 400.0},
                num_evaluations=100,
            ),
        }
    ),
    "gpu": Preset(
        {
            IMAGES: _CIFAR_ON_GPU,
            TEXT: dataclasses.replace(
                _GRAMMAR,
                data="shakespeare",
                data_arguments={},
                model_arguments={"width": 256, "num_layers": 2, "embedding": 64, "dropout": 0.2},
                batch_size=32,
                target=5.0,
                horizons={4: 4000.0, 8: 4000.0},
                num_evaluations=200,
                learning_rates=_powers(-3, 3),
                thresholds=_powers(-3, 1),
                context=64,
                num_validated=256,
            ),
            FEDERATED: dataclasses.replace(
                _CIFAR_ON_GPU,
                model="cnn",
                model_arguments={"channels": (32, 64), "hidden": 128},
                target=0.7,
                horizons={4: 8000.0, 8: 12_000.0},
                bounds=(15, 31, 63),
            ),
        },
        lanes="auto",
    ),
}


def load(task: Task) -> Images | Text:
    """Returns the data of a task."""
    loader = load_text if task.model == "lstm" else load_images
    return loader(task.data, **task.data_arguments)


def make_problem(name: str, task: Task, data: Any) -> ao.Problem:
    """Returns the problem of a task; the federated one's workers own unlike parts of the images."""
    if task.model == "lstm":
        module = LSTM(len(data.alphabet), **task.model_arguments)
        return language_problem(
            module,
            data,
            context=task.context,
            batch_size=task.batch_size,
            num_validated=task.num_validated,
        )
    module = CNN(**task.model_arguments) if task.model == "cnn" else ResNet()
    if name == FEDERATED:
        partition = label_partition(
            data.train_labels, NUM_WORKERS, concentration=CONCENTRATION, min_size=task.batch_size
        )
        rows = partition_rows(partition, task.batch_size)
    else:
        rows = uniform_rows(len(data.train), task.batch_size)
    return image_problem(module, data, rows)


def make_timeline(name: str, horizon: float, method: str, slowdown: int, seed: int) -> ao.Timeline:
    """Returns the timeline of a method: half of the workers take ``slowdown`` times as long."""
    if name == FEDERATED:
        protocol = ao.protocols.asynchronous("uniform")
    elif method == RINGMASTER:
        protocol = ao.protocols.ringmaster(BOUND)
    else:
        protocol = ao.protocols.asynchronous()
    return ao.simulate_timeline(
        protocol,
        ao.runtimes.two_speed(float(slowdown)),
        NUM_WORKERS,
        max_time=horizon,
        seed=seed,
    )


def make_optimizer(name: str, method: str, learning_rate: float, extra: float) -> Any:
    """Returns a method; ``extra`` is a clipping threshold, or Ringmaster's bound."""
    if method == ADAPTIVE:
        return ao.optimizers.delay_adaptive_sgd(learning_rate, NUM_WORKERS)
    if method == CLIPPED:
        return ao.optimizers.clipped_sgd(learning_rate, extra)
    if method == RINGMASTER and name == FEDERATED:
        return ao.optimizers.ringmaster_sgd(learning_rate, extra)
    return ao.optimizers.sgd(learning_rate)


def extras(name: str, task: Task, method: str) -> Sequence[float]:
    """Returns the numbers beside the learning rate that a method tries; 0 if it has none."""
    if method == CLIPPED:
        return task.thresholds
    return task.bounds if method == RINGMASTER else (0,)
