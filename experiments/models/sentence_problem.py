"""Sentences to classify, as a problem."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from async_optax.data import in_memory
from async_optax.data.sampling import Rows
from async_optax.engine import Problem
from experiments.datasets import TokenTask
from experiments.models.bert import BertClassifier
from experiments.models.evaluation import in_batches, sum_over
from experiments.models.initialisation import initialiser
from experiments.models.metrics import confusion, confusion_metrics


def sentence_problem(
    module: BertClassifier,
    task: TokenTask,
    rows: Rows,
    *,
    pretrained: Mapping[str, Any] | None = None,
    evaluation_batch: int = 128,
) -> Problem:
    """Classifies sentences, or pairs of them, with BERT. The loss is the mean cross-entropy.

    Args:
      module: the model.
      task: the data, held on the device.
      rows: which training examples a job draws: ``uniform_rows`` or ``partition_rows`` of
        :mod:`async_optax.data`.
      pretrained: the parameters of a checkpoint, see :func:`experiments.models.load_bert`.
      evaluation_batch: examples that are computed at a time.

    Returns:
      A problem; ``evaluate`` returns ``accuracy`` and ``test_loss``, and for two classes ``f1`` and
      ``matthews_correlation``.

    Raises:
      ValueError: if the task does not fit the model.
    """
    length, config = task.train["ids"].shape[1], module.config
    for name, value, limit in (
        ("max_length", length, config.max_position_embeddings),
        ("vocabulary_size", task.vocabulary_size, config.vocab_size),
        ("num_classes", task.num_classes, module.num_classes),
    ):
        if value > limit:
            raise ValueError(f"{name} of the task must be at most the model's {limit}, got {value}")
    example = [jax.ShapeDtypeStruct((1, length), dtype) for dtype in (jnp.int32, jnp.uint8, bool)]
    return Problem(
        init=initialiser(module, tuple(example), pretrained),
        loss=Partial(_Loss(module)),
        batch=in_memory(task.train, rows),
        evaluate=Partial(_Evaluate(module), *in_batches(task.validation, evaluation_batch)),
    )


def _logits(
    module: BertClassifier, params: Any, batch: Mapping[str, jax.Array], key: jax.Array | None
) -> jax.Array:
    inputs = batch["ids"], batch["types"], batch["mask"]
    rngs = None if key is None else {"dropout": key}
    return module.apply({"params": params}, *inputs, deterministic=key is None, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class _Loss:
    module: BertClassifier

    def __call__(self, params: Any, batch: Any, key: jax.Array) -> jax.Array:
        logits = _logits(self.module, params, batch, key)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()


@dataclasses.dataclass(frozen=True)
class _Evaluate:
    module: BertClassifier

    def __call__(self, batches: Any, counts: jax.Array, params: Any) -> dict[str, jax.Array]:
        def sums(batch: Any, count: jax.Array) -> tuple[jax.Array, jax.Array]:
            logits, labels = _logits(self.module, params, batch, None), batch["label"]
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return confusion(logits, labels, count), jnp.sum(losses * count)

        matrix, loss = sum_over(sums, batches, counts)
        return confusion_metrics(matrix) | {"test_loss": loss / jnp.sum(counts)}
