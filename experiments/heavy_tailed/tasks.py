"""A task as a problem: its data and its model."""

import dataclasses
from typing import Any

import jax
from jax.tree_util import Partial

from async_optax import noise
from async_optax.data import uniform_rows
from async_optax.engine import Problem
from async_optax.validation import require_choice
from experiments.datasets import (
    GLUE,
    checkpoint_tokens,
    flip,
    glue,
    in_turn,
    load_images,
    pad_crop,
    word_tokens,
)
from experiments.heavy_tailed.config import ALPHA, TaskSetting
from experiments.heavy_tailed.sentiment import sentiment
from experiments.models import (
    BertClassifier,
    BertConfig,
    ViT,
    find_checkpoint,
    image_problem,
    load_bert,
    load_vit,
    sentence_problem,
)

_IMAGES = ("digits", "cifar10")


def load_problem(setting: TaskSetting, data_dir: str | None = None) -> Problem:
    """Returns the problem of a task.

    Args:
      setting: the task.
      data_dir: see :func:`experiments.datasets.data_folder`.

    Raises:
      ImportError: if a package for the data is missing.
      ValueError: if the task is unknown, or its data or checkpoint cannot be had.
    """
    require_choice("task", setting.task, (*_IMAGES, "sentiment", *(f"glue/{t}" for t in GLUE)))
    make = _of_images if setting.task in _IMAGES else _of_sentences
    problem = make(setting, data_dir)
    if setting.noise:
        problem = problem.with_noise(noise.alpha_stable(ALPHA, setting.noise))
    return problem


def _of_images(setting: TaskSetting, data_dir: str | None) -> Problem:
    model, pretrained, pixels = dict(setting.model), None, {}
    if "checkpoint" in model:  # before the images, which take a while
        loaded, found = load_vit(model["checkpoint"], 10, data_dir=data_dir)
        module, pretrained = loaded.module, loaded.params
        pixels = {"image_size": found.size, "mean": found.mean, "deviation": found.deviation}
    else:
        module = ViT(**model)
    sizes: dict[str, Any] = {"num_train": setting.num_train, "num_test": setting.num_test}
    arguments = {} if setting.task == "digits" else {**sizes, "data_dir": data_dir}
    images = load_images(setting.task, **arguments)
    return image_problem(
        module,
        images,
        uniform_rows(len(images.train_labels), setting.batch_size),
        augment=in_turn(pad_crop(), flip()) if setting.augment else None,
        pretrained=pretrained,
        evaluation_batch=64 if pretrained else 500,
        **pixels,
    )


def _of_sentences(setting: TaskSetting, data_dir: str | None) -> Problem:
    if "checkpoint" in setting.model:
        folder = find_checkpoint(setting.model["checkpoint"], data_dir)
        sentences = glue(setting.task.removeprefix("glue/"), setting.num_train, data_dir)
        task = checkpoint_tokens(sentences, folder, setting.max_length)
        loaded = load_bert(folder, task.num_classes)
        module, pretrained = loaded.module, loaded.params
    else:
        task = word_tokens(
            sentiment(setting.num_train or 8000, setting.num_test or 500), setting.max_length
        )
        config = BertConfig(vocab_size=task.vocabulary_size, **setting.model)
        module, pretrained = BertClassifier(config, task.num_classes), None
    if setting.num_test is not None:
        kept = {name: x[: setting.num_test] for name, x in task.validation.items()}
        task = task._replace(validation=kept)
    rows = uniform_rows(len(task.train["label"]), setting.batch_size)
    problem = sentence_problem(
        module,
        task,
        rows,
        pretrained=pretrained,
        evaluation_batch=250 if pretrained is None else 64,
    )
    if pretrained is None:
        factor = (768 / module.config.hidden_size) ** 0.5
        problem = dataclasses.replace(problem, init=Partial(_Widened(factor), problem.init))
    return problem


@dataclasses.dataclass(frozen=True)
class _Widened:
    """BERT's kernels start with deviation 0.02, for a width of 768: others as large relatively.

    A model of width 32 starts from such kernels on a plateau, which it does not leave in thousands
    of steps.
    """

    factor: float

    def __call__(self, init: Any, key: jax.Array) -> Any:
        def widened(path: Any, x: jax.Array) -> jax.Array:
            return x * self.factor if path[-1].key == "kernel" else x

        return jax.tree_util.tree_map_with_path(widened, init(key))
