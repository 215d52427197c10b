"""Images to classify, as a problem."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from async_optax.data import in_memory
from async_optax.data.sampling import Rows
from async_optax.engine import Problem
from async_optax.validation import require_number
from experiments.datasets import Images
from experiments.datasets.augmentation import Augment
from experiments.models.evaluation import in_batches, sum_over
from experiments.models.initialisation import initialiser
from experiments.models.linen import nn
from experiments.models.metrics import confusion, confusion_metrics


def image_problem(
    module: nn.Module,
    images: Images,
    rows: Rows,
    *,
    augment: Augment | None = None,
    mean: float | Sequence[float] = 0.5,
    deviation: float | Sequence[float] = 0.5,
    image_size: int | None = None,
    pretrained: Mapping[str, Any] | None = None,
    evaluation_batch: int = 500,
) -> Problem:
    """Classifies images with a model.

    Pixels become ``(pixel / 255 - mean) / deviation``. The loss is the mean cross-entropy of a
    batch, augmented by a part of the loss's key; the other part is for dropout.

    Args:
      module: a ViT, CNN, ResNet, or any module ``(images, deterministic) -> logits``.
      images: the data, held on the device.
      rows: which training images a job draws: ``uniform_rows`` or ``partition_rows`` of
        :mod:`async_optax.data`.
      augment: of :mod:`experiments.datasets.augmentation`, or ``None``.
      mean: of pixels in [0, 1], one number or one for each channel.
      deviation: likewise.
      image_size: sides that images are brought to after augmentation, bilinearly; ``None``: their
        own.
      pretrained: see :func:`experiments.models.initialisation.initialiser`.
      evaluation_batch: test images that are computed at a time.

    Returns:
      A problem; ``evaluate`` returns ``accuracy`` and ``test_loss``.

    Raises:
      ValueError: if an argument is out of range, or a label is no class of the module.
    """
    for name, value, bound in (("mean", mean, {}), ("deviation", deviation, {"above": 0})):
        require_number(name, np.asarray(value, np.float32), scalar=False, **bound)
    num_classes = module.num_classes
    highest = int(max(images.train_labels.max(), images.test_labels.max()))
    if highest >= num_classes:
        raise ValueError(f"num_classes={num_classes} of the module leaves out label {highest}")
    _, height, width, channels = images.train.shape
    size = (height, width) if image_size is None else (image_size, image_size)
    example = jax.ShapeDtypeStruct((1, *size, channels), jnp.float32)
    scale = tuple(
        jnp.broadcast_to(jnp.asarray(x, jnp.float32), (channels,)) for x in (mean, deviation)
    )
    logits = _Logits(module, size)
    test = {"image": images.test, "label": images.test_labels}
    return Problem(
        init=initialiser(module, (example,), pretrained),
        loss=Partial(_Loss(logits), scale, augment),
        batch=in_memory({"image": images.train, "label": images.train_labels}, rows),
        evaluate=Partial(_Evaluate(logits), scale, *in_batches(test, evaluation_batch)),
    )


@dataclasses.dataclass(frozen=True)
class _Logits:
    module: nn.Module
    size: tuple[int, int]

    def __call__(self, params: Any, images: jax.Array, key: jax.Array | None) -> jax.Array:
        if images.shape[1:3] != self.size:
            shape = (len(images), *self.size, images.shape[-1])
            images = jax.image.resize(images, shape, "bilinear")
        rngs = None if key is None else {"dropout": key}
        return self.module.apply({"params": params}, images, deterministic=key is None, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class _Loss:
    logits: _Logits

    def __call__(
        self, scale: Any, augment: Augment | None, params: Any, batch: Any, key: jax.Array
    ) -> jax.Array:
        augment_key, dropout_key = jax.random.split(key)
        images = _normalised(scale, batch["image"])
        if augment is None:
            logits = self.logits(params, images, dropout_key)
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()
        shares = jax.nn.one_hot(batch["label"], self.logits.module.num_classes)
        augmented = augment(augment_key, {"image": images, "label": shares})
        logits = self.logits(params, augmented["image"], dropout_key)
        return optax.softmax_cross_entropy(logits, augmented["label"]).mean()


@dataclasses.dataclass(frozen=True)
class _Evaluate:
    logits: _Logits

    def __call__(
        self, scale: Any, batches: Any, counts: jax.Array, params: Any
    ) -> dict[str, jax.Array]:
        def sums(batch: Any, count: jax.Array) -> tuple[jax.Array, jax.Array]:
            logits = self.logits(params, _normalised(scale, batch["image"]), None)
            labels = batch["label"]
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return confusion(logits, labels, count), jnp.sum(losses * count)

        matrix, loss = sum_over(sums, batches, counts)
        accuracy = confusion_metrics(matrix)["accuracy"]
        return {"accuracy": accuracy, "test_loss": loss / jnp.sum(counts)}


def _normalised(scale: tuple[jax.Array, jax.Array], images: jax.Array) -> jax.Array:
    mean, deviation = (x.reshape(1, 1, 1, -1) for x in scale)
    return (images.astype(jnp.float32) / 255 - mean) / deviation
