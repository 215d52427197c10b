"""Sentences, and pairs of sentences, to classify: the tasks of GLUE, or a generated one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from async_optax.validation import require_choice, require_count
from experiments.datasets.grammar import Grammar, disagree
from experiments.datasets.prepared import open_prepared

_AT_ONCE = 1024  # rows read in one call


class Sentences(NamedTuple):
    """Examples of a task.

    Attributes:
      first: the sentences, or the first of each pair.
      second: the second of each pair, or ``None``.
      labels: int32 ``[num_examples]``.
    """

    first: Sequence[str]
    second: Sequence[str] | None
    labels: np.ndarray


class SentenceTask(NamedTuple):
    """A task of classification.

    Attributes:
      train: for training.
      validation: for testing: what GLUE calls test has no labels.
      num_classes: labels are below it.
      metric: what the task is judged by, a name of
        :func:`experiments.models.metrics.confusion_metrics`.
    """

    train: Sentences
    validation: Sentences
    num_classes: int
    metric: str


class _Glue(NamedTuple):
    columns: tuple[str, ...]
    metric: str
    num_classes: int = 2
    validation: str = "validation"


GLUE: Mapping[str, _Glue] = {
    "sst2": _Glue(("sentence",), "accuracy"),
    "cola": _Glue(("sentence",), "matthews_correlation"),
    "mrpc": _Glue(("sentence1", "sentence2"), "f1"),
    "qqp": _Glue(("question1", "question2"), "f1"),
    "qnli": _Glue(("question", "sentence"), "accuracy"),
    "rte": _Glue(("sentence1", "sentence2"), "accuracy"),
    "wnli": _Glue(("sentence1", "sentence2"), "accuracy"),
    "mnli": _Glue(("premise", "hypothesis"), "accuracy", 3, "validation_matched"),
}


def glue(
    task: str, num_train: int | None = None, data_dir: str | Path | None = None
) -> SentenceTask:
    """Returns a task of GLUE, all of them but ``stsb``, which is a regression.

    Args:
      task: a key of ``GLUE``.
      num_train: the first training examples; ``None``: all.
      data_dir: see :func:`experiments.datasets.data_folder`.

    Raises:
      ImportError: if tensorflow-datasets is not installed.
      ValueError: if the task is unknown, cannot be had, or has fewer examples.

    References:
      Wang et al., `GLUE <https://arxiv.org/abs/1804.07461>`_, 2018.
    """
    require_choice("task", task, tuple(GLUE))
    entry = GLUE[task]
    train, validation = (
        open_prepared(f"glue/{task}", split, data_dir) for split in ("train", entry.validation)
    )
    if num_train is not None:
        require_count("num_train", num_train)
        if num_train > len(train):
            raise ValueError(
                f"num_train must be at most the {len(train)} of glue/{task}, got {num_train}"
            )
    return SentenceTask(
        _read(train, entry.columns, len(train) if num_train is None else num_train),
        _read(validation, entry.columns, len(validation)),
        entry.num_classes,
        entry.metric,
    )


def agreement(num_train: int = 4000, num_validation: int = 500) -> SentenceTask:
    """Returns a generated task: do all verbs of a clause agree with their subjects?

    Clauses are those of :class:`experiments.datasets.grammar.Grammar`; in half of them the number
    of one verb is turned round (label 0). Subject and verb may be far apart, as relative clauses
    nest. Clauses of the training set are left out of the validation set.

    Args:
      num_train: clauses for training, >= 2.
      num_validation: likewise.

    Example:
      >>> task = agreement(200, 20)
      >>> task.train.first[0], int(task.train.labels[0])
      ('da komeim ke Sospe vedalwen fuwen Dis', 1)
    """
    require_count("num_train", num_train, at_least=2)
    require_count("num_validation", num_validation, at_least=2)
    grammar = Grammar()
    train = _judged(grammar.write_clauses(num_train, seed=0), seed=0)
    # Short clauses come again: enough are written for those that are left.
    more = _judged(grammar.write_clauses(4 * num_validation, seed=1), seed=1)
    seen = set(train.first)
    fresh = [i for i, clause in enumerate(more.first) if clause not in seen][:num_validation]
    validation = Sentences([more.first[i] for i in fresh], None, more.labels[fresh])
    return SentenceTask(train, validation, 2, "accuracy")


def _judged(clauses: Sequence[str], seed: int) -> Sentences:
    rng = np.random.Generator(np.random.PCG64([seed, 3]))
    labels = rng.permutation(np.arange(len(clauses)) % 2).astype(np.int32)
    judged = [
        clause if label else disagree(clause, rng)
        for clause, label in zip(clauses, labels, strict=True)
    ]
    return Sentences(judged, None, labels)


def _read(source: Any, columns: tuple[str, ...], number: int) -> Sentences:
    examples: list[dict[str, Any]] = []
    for start in range(0, number, _AT_ONCE):
        examples += source.__getitems__(range(start, min(start + _AT_ONCE, number)))
    texts = [[example[column].decode() for example in examples] for column in columns]
    labels = np.array([example["label"] for example in examples], np.int32)
    return Sentences(texts[0], texts[1] if len(texts) == 2 else None, labels)
