"""Texts to model by character: one that a grammar writes, or tiny_shakespeare."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from async_optax.validation import require_choice, require_count
from experiments.datasets.grammar import Grammar
from experiments.datasets.prepared import open_prepared


class Text(NamedTuple):
    """A text in two parts.

    Attributes:
      train: uint8 ``[num_characters]``, positions in the alphabet.
      validation: likewise.
      alphabet: the characters.
    """

    train: np.ndarray
    validation: np.ndarray
    alphabet: str


def grammar_text(num_characters: int) -> Text:
    """Returns a text that the grammar writes, and a tenth as much for validation."""
    require_count("num_characters", num_characters, at_least=10)
    grammar = Grammar()
    train, validation = (
        grammar.write(length, seed)
        for seed, length in enumerate((num_characters, num_characters // 10))
    )
    return _encoded(train, validation)


def shakespeare(data_dir: str | Path | None = None) -> Text:
    """Returns ``tiny_shakespeare``: 1 003 854 characters, and 55 769 for validation.

    Args:
      data_dir: see :func:`experiments.datasets.data_folder`.

    Raises:
      ImportError: if tensorflow-datasets is not installed.
      ValueError: if the text cannot be had.
    """
    parts = []
    for split in ("train", "validation"):
        source = open_prepared("tiny_shakespeare", split, data_dir)
        parts.append(source[0]["text"].decode())
    return _encoded(*parts)


TEXTS: Mapping[str, Callable[..., Text]] = {"grammar": grammar_text, "shakespeare": shakespeare}


def load_text(name: str, **arguments: Any) -> Text:
    """Returns a text by name, with the arguments of its function.

    Raises:
      ValueError: if the name is unknown.

    Example:
      >>> len(load_text("grammar", num_characters=500).train)
      500
    """
    require_choice("name", name, tuple(TEXTS))
    return TEXTS[name](**arguments)


def _encoded(train: str, validation: str) -> Text:
    alphabet = "".join(sorted(set(train) | set(validation)))
    number = {character: i for i, character in enumerate(alphabet)}
    arrays = (np.array([number[c] for c in part], np.uint8) for part in (train, validation))
    return Text(*arrays, alphabet)
