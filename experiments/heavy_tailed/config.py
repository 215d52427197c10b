"""Tasks, sizes and presets."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from async_optax import runtimes
from async_optax.validation import require_choice
from experiments.datasets import GLUE

SLOW_FACTOR = 4.0
RUNTIMES = runtimes.two_speed(SLOW_FACTOR, law=runtimes.gamma(cv=0.5))
ALPHA = 1.2  # tail index of noise that is added: no variance
NEAR = 0.02  # of accuracy: learning rates that are good


@dataclasses.dataclass(frozen=True)
class TaskSetting:
    """A task, the model that is trained on it, and for how long.

    Attributes:
      task: ``"digits"``, ``"cifar10"``, ``"sentiment"`` (generated), or ``"glue/NAME"``.
      model: sizes of a ViT or a BERT; or a ``checkpoint`` for both.
      batch_size: examples per gradient.
      max_time: simulated; the mean time of a fast worker's gradient is 1.
      num_evaluations: evenly spaced.
      targets: accuracies whose time is taken.
      num_train: the first training examples; ``None``: all.
      num_test: likewise.
      max_length: tokens.
      augment: whether images are moved and mirrored.
      noise: scale of alpha-stable noise on every coordinate of every gradient; 0: none.
      rate_factors: what the first learning rates are multiplied with, by kind of step, see
        :mod:`experiments.heavy_tailed.methods`.
      methods: names of those that are run; empty: all.
      num_samples: gradients from which a tail index is estimated.
    """

    task: str
    model: dict[str, Any]
    batch_size: int
    max_time: float
    num_evaluations: int
    targets: tuple[float, ...]
    num_train: int | None = None
    num_test: int | None = None
    max_length: int = 16
    augment: bool = False
    noise: float = 0.0
    rate_factors: Mapping[str, float] = dataclasses.field(default_factory=dict)
    methods: tuple[str, ...] = ()
    num_samples: int = 1000

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.task}, noise added" if self.noise else self.task


@dataclasses.dataclass(frozen=True)
class Preset:
    """How much is computed.

    Attributes:
      tasks: what is trained.
      num_workers: of which half are ``SLOW_FACTOR`` times slower.
      buffer: arrivals per commit of the buffered protocols.
      seeds: of initialisation, batches and times, on which learning rates are chosen; other numbers
        of the methods are, on the first.
      fresh: seeds on which what was chosen is judged.
      scan: exponents of 2 of the learning rates that are tried first.
      furthest: exponents beyond which no learning rate is tried.
      lanes: width of a wave.
    """

    tasks: tuple[TaskSetting, ...]
    num_workers: int = 8
    buffer: int = 4
    seeds: tuple[int, ...] = (0, 1, 2)
    fresh: tuple[int, ...] = tuple(range(100, 106))
    scan: tuple[int, ...] = (-4, -2, 0, 2, 4)
    furthest: int = 8
    lanes: int = 1


_HEADLINE = (
    "SGD",
    "Adam",
    "asynchronous SGD",
    "clipped asynchronous SGD",
    "FedBuff",
    "FADAS",
    "asynchronous Adam",
    "ours, BiClip",
    "ours, BiClip, Adam",
    "ours, adaptive clip, Adam",
)
_DIGITS = TaskSetting(
    "digits",
    {"patch_size": 2, "width": 32, "num_layers": 2, "num_heads": 2},
    8,
    200.0,
    25,
    (0.6, 0.7, 0.75, 0.8),
)
_SENTIMENT = TaskSetting(
    "sentiment",
    {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 16,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
    8,
    200.0,
    25,
    (0.6, 0.7, 0.8, 0.9),
    num_train=8000,
    num_test=300,
)
_CIFAR10 = TaskSetting(
    "cifar10",
    {"checkpoint": "vit-base-patch16-224-in21k"},
    32,
    400.0,
    40,
    (0.9, 0.95, 0.97, 0.98),
    augment=True,
    rate_factors={"sign": 0.03, "adam": 0.03, "norm": 0.3, "plain": 0.3},
)
_BERT = TaskSetting(
    "glue/sst2",
    {"checkpoint": "bert-base-uncased"},
    32,
    200.0,
    40,
    (0.85, 0.88, 0.9, 0.91),
    max_length=64,
    rate_factors={"sign": 0.02, "adam": 0.02, "norm": 0.3, "plain": 0.3},
)
PRESETS: Mapping[str, Preset] = {
    "smoke": Preset(
        (
            dataclasses.replace(
                _DIGITS,
                model={"patch_size": 4, "width": 8, "num_layers": 1, "num_heads": 2},
                max_time=8.0,
                num_evaluations=2,
                methods=("Adam", "ours, adaptive clip, Adam"),
                num_samples=300,
            ),
            dataclasses.replace(
                _SENTIMENT,
                model=_SENTIMENT.model | {"hidden_size": 8, "num_hidden_layers": 1},
                max_time=8.0,
                num_evaluations=2,
                num_train=200,
                num_test=50,
                methods=("ours, adaptive clip, Adam",),
                num_samples=0,
            ),
        ),
        num_workers=4,
        buffer=2,
        seeds=(0,),
        fresh=(100, 101),
        scan=(0,),
        furthest=0,
    ),
    "cpu": Preset(
        (
            _DIGITS,
            _SENTIMENT,
            dataclasses.replace(
                _DIGITS,
                noise=0.01,
                targets=(0.4, 0.5, 0.6, 0.7),
                methods=tuple(
                    name for name in _HEADLINE if name not in ("SGD", "ours, BiClip, Adam")
                ),
            ),
        )
    ),
    "cpu-real": Preset(
        (
            dataclasses.replace(
                _CIFAR10,
                model={"patch_size": 8, "width": 64, "num_layers": 3, "num_heads": 4},
                batch_size=16,
                max_time=150.0,
                num_evaluations=15,
                targets=(0.2, 0.25, 0.3),
                num_train=20_000,
                num_test=500,
                augment=False,
                rate_factors={},
                methods=(
                    "Adam",
                    "clipped asynchronous SGD",
                    "FADAS",
                    "asynchronous Adam",
                    "ours, adaptive clip, Adam",
                ),
                num_samples=0,
            ),
        ),
        seeds=(0,),
        fresh=(100, 101),
        scan=(-2, 0, 2),
    ),
    "cpu-real-text": Preset(
        (
            dataclasses.replace(
                _BERT,
                model={"checkpoint": "minilm-l6"},
                batch_size=8,
                max_time=60.0,
                num_evaluations=15,
                targets=(0.7, 0.75, 0.8),
                num_test=128,
                max_length=24,
                methods=(
                    "Adam",
                    "clipped asynchronous SGD",
                    "asynchronous Adam",
                    "ours, adaptive clip, Adam",
                ),
                num_samples=0,
            ),
        ),
        seeds=(0,),
        fresh=(100,),
        furthest=4,
        scan=(-2, 0, 2),
    ),
    "gpu": Preset(
        (
            _CIFAR10,
            _BERT,
            dataclasses.replace(_BERT, task="glue/cola", targets=(0.72, 0.76, 0.8, 0.82)),
            dataclasses.replace(
                _BERT, task="glue/mrpc", targets=(0.72, 0.76, 0.8, 0.84), max_length=128
            ),
        ),
        fresh=(100, 101, 102),
        lanes=8,
    ),
}


def described(preset: Preset, setting: TaskSetting) -> dict[str, Any]:
    """Returns what decides a task's runs, apart from the methods and their numbers."""
    task = dataclasses.asdict(setting)
    for name in ("targets", "rate_factors", "methods", "num_samples"):
        del task[name]
    return task | {"num_workers": preset.num_workers, "buffer": preset.buffer}


def with_task(preset: Preset, name: str) -> TaskSetting:
    """Returns the preset's setting for a task, or for another one of GLUE, with the sizes of one.

    Raises:
      ValueError: if there is none.
    """
    own = {setting.task: setting for setting in reversed(preset.tasks)}
    glue = next((setting for setting in preset.tasks if setting.task.startswith("glue/")), None)
    if glue is not None:
        others = (f"glue/{task}" for task in GLUE)
        own |= {task: dataclasses.replace(glue, task=task) for task in others if task not in own}
    require_choice("task", name, tuple(own))
    return own[name]
