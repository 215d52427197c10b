"""Sentences as arrays of token numbers, by a checkpoint's tokenizer or by the words themselves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from async_optax.validation import require_count
from experiments.datasets.sentences import Sentences, SentenceTask

_PADDING, _START, _END, _UNKNOWN = 0, 1, 2, 3  # of word_tokens
_SPECIAL = 4
_MARKS = {1: 2, 2: 3}  # tokens that a tokenizer adds to one sentence, and to a pair: [CLS], [SEP]


class TokenTask(NamedTuple):
    """A task of classification in numbers.

    Attributes:
      train: ``ids`` int32 ``[num_examples, max_length]``, ``types`` uint8 likewise (1 in the second
        sentence of a pair), ``mask`` bool likewise (``False``: padding, at the end), and ``label``
        int32 ``[num_examples]``.
      validation: likewise.
      num_classes: labels are below it.
      vocabulary_size: ids are below it.
      metric: what the task is judged by.
    """

    train: dict[str, np.ndarray]
    validation: dict[str, np.ndarray]
    num_classes: int
    vocabulary_size: int
    metric: str


def checkpoint_tokens(task: SentenceTask, folder: str | Path, max_length: int) -> TokenTask:
    """Splits sentences as a checkpoint's ``tokenizer.json`` does.

    What is longer than ``max_length`` is cut, the longer sentence of a pair first.

    Args:
      task: the sentences.
      folder: of the checkpoint, in the layout of Hugging Face.
      max_length: tokens per example, the marks at its ends included.

    Raises:
      ImportError: if tokenizers is not installed.
      ValueError: if there is no such file, or it cannot be read.
    """
    require_count("max_length", max_length, at_least=_MARKS[2] + 2)
    tokenizer = _tokenizer(Path(folder) / "tokenizer.json")
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    tokenizer.enable_padding(length=max_length)
    train, validation = (_encoded(tokenizer, part) for part in (task.train, task.validation))
    size = tokenizer.get_vocab_size()
    return TokenTask(train, validation, task.num_classes, size, task.metric)


def word_tokens(task: SentenceTask, max_length: int) -> TokenTask:
    """Numbers the words of the training sentences, in the order of the alphabet from 4 on.

    Padding is 0, 1 begins a sentence, 2 ends it, 3 is a word that is not in the training set. What
    is longer than ``max_length`` is cut.

    Args:
      task: single sentences, whose words are divided by spaces.
      max_length: tokens per example, the marks at its ends included.

    Raises:
      ValueError: if the sentences come in pairs.

    Example:
      >>> task = SentenceTask(Sentences(["b a"], None, [1]), Sentences(["a c"], None, [0]), 2, "f1")
      >>> word_tokens(task, 5).validation["ids"]
      array([[1, 4, 3, 2, 0]], dtype=int32)
    """
    require_count("max_length", max_length, at_least=_MARKS[1] + 1)
    if task.train.second is not None:
        raise ValueError("task must be one of single sentences, got one of pairs")
    words = sorted({word for sentence in task.train.first for word in sentence.split(" ")})
    number = {word: _SPECIAL + i for i, word in enumerate(words)}
    train, validation = (
        _numbered(part, number, max_length) for part in (task.train, task.validation)
    )
    return TokenTask(train, validation, task.num_classes, _SPECIAL + len(words), task.metric)


def _numbered(part: Sentences, number: dict[str, int], max_length: int) -> dict[str, np.ndarray]:
    ids = np.full((len(part.first), max_length), _PADDING, np.int32)
    for row, sentence in zip(ids, part.first, strict=True):
        inner = [number.get(word, _UNKNOWN) for word in sentence.split(" ")][: max_length - 2]
        row[: len(inner) + 2] = [_START, *inner, _END]
    return _arrays(ids, np.zeros_like(ids), ids != _PADDING, part.labels)


def _tokenizer(path: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ImportError(
            "a checkpoint's tokenizer needs tokenizers: pip install 'async_optax[models]'"
        ) from error
    if not path.is_file():
        raise ValueError(f"the checkpoint has no tokenizer: {path} is not a file")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises plain exceptions
        raise ValueError(f"{path} is not a tokenizer: {error}") from error


def _encoded(tokenizer: Any, part: Sentences) -> dict[str, np.ndarray]:
    texts: Sequence[Any] = part.first
    if part.second is not None:
        texts = list(zip(part.first, part.second, strict=True))
    encodings = tokenizer.encode_batch(texts)
    ids = np.array([encoding.ids for encoding in encodings])
    types = np.array([encoding.type_ids for encoding in encodings])
    mask = np.array([encoding.attention_mask for encoding in encodings])
    return _arrays(ids, types, mask, part.labels)


def _arrays(
    ids: np.ndarray, types: np.ndarray, mask: np.ndarray, labels: np.ndarray
) -> dict[str, np.ndarray]:
    return {
        "ids": ids.astype(np.int32),
        "types": types.astype(np.uint8),
        "mask": mask.astype(bool),
        "label": np.asarray(labels, np.int32),
    }
