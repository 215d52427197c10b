"""The text: one that a grammar makes, or tiny_shakespeare, as arrays of character numbers."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"


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


class Grammar:
    """A language with words of its own, by a probabilistic grammar with long-range structure.

    What a character depends on lies far back in three ways: subject and verb agree in number
    across relative clauses, which nest; brackets and quotation marks are closed; and each paragraph
    has its own few words and two names, so that what came once comes again.

    Args:
      seed: of the lexicon. Texts of one lexicon differ by the seed of :meth:`write`.
    """

    def __init__(self, seed: int = 0):
        rng = np.random.Generator(np.random.PCG64(seed))
        words: set[str] = set()
        while len(words) < 240:
            words.add("".join(self._syllable(rng) for _ in range(rng.integers(1, 4))))
        shuffled = list(rng.permutation(sorted(words)))
        self._nouns, self._verbs = shuffled[:110], shuffled[110:170]
        self._adjectives, self._names = shuffled[170:205], shuffled[205:]

    def write(self, num_characters: int, seed: int) -> str:
        """Returns a text of that length."""
        rng = np.random.Generator(np.random.PCG64([seed, 1]))
        parts, length = [], 0
        while length < num_characters:
            paragraph = self._paragraph(rng)
            parts.append(paragraph)
            length += len(paragraph)
        return "".join(parts)[:num_characters]

    def _syllable(self, rng: np.random.Generator) -> str:
        ending = "" if rng.random() < 0.6 else rng.choice(list("nrsl"))
        return str(rng.choice(list(_CONSONANTS)) + rng.choice(list(_VOWELS)) + ending)

    def _paragraph(self, rng: np.random.Generator) -> str:
        topic = {
            "nouns": self._few(rng, self._nouns, 6),
            "verbs": self._few(rng, self._verbs, 4),
            "adjectives": self._few(rng, self._adjectives, 3),
            "names": self._few(rng, self._names, 2),
        }
        sentences = [self._sentence(rng, topic) for _ in range(rng.integers(4, 9))]
        return " ".join(sentences) + "\n"

    def _few(self, rng: np.random.Generator, words: Sequence[str], number: int) -> list[str]:
        frequency = 1 / np.arange(1, len(words) + 1)
        return list(rng.choice(words, number, replace=False, p=frequency / frequency.sum()))

    def _sentence(self, rng: np.random.Generator, topic: dict[str, list[str]]) -> str:
        clause = self._clause(rng, topic)
        if rng.random() < 0.25:
            clause += f" ({self._clause(rng, topic)})"
        if rng.random() < 0.3:
            return f'{self._name(rng, topic)} lu "{clause}".'
        return f"{clause}."

    def _name(self, rng: np.random.Generator, topic: dict[str, list[str]]) -> str:
        name = topic["names"][int(rng.random() < 0.35)]
        return name[0].upper() + name[1:]

    def _clause(self, rng: np.random.Generator, topic: dict[str, list[str]]) -> str:
        subject, plural = self._phrase(rng, topic, depth=0)
        if rng.random() < 0.6:
            object_ = self._phrase(rng, topic, depth=1)[0].rstrip(",")
            return f"{subject} {self._verb(rng, topic, plural)} {object_}"
        return f"{subject} {self._verb(rng, topic, plural)}"

    def _phrase(
        self, rng: np.random.Generator, topic: dict[str, list[str]], depth: int
    ) -> tuple[str, bool]:
        """A noun phrase, and whether it is plural."""
        if rng.random() < 0.25:
            return self._name(rng, topic), False
        plural = bool(rng.random() < 0.4)
        noun = topic["nouns"][min(int(rng.geometric(0.35)) - 1, 5)]
        words = ["da" if plural else "o"]
        if rng.random() < 0.4:
            words.append(topic["adjectives"][rng.integers(3)] + ("im" if plural else "u"))
        words.append(noun + ("im" if plural else ""))
        if depth < 2 and rng.random() < 0.35:
            inner = self._phrase(rng, topic, depth + 1)[0].rstrip(",")
            words += ["ke", inner, self._verb(rng, topic, plural) + ","]
        return " ".join(words), plural

    def _verb(self, rng: np.random.Generator, topic: dict[str, list[str]], plural: bool) -> str:
        stem = topic["verbs"][min(int(rng.geometric(0.45)) - 1, 3)]
        return stem + ("wen" if plural else "wet")


def grammar_text(num_characters: int) -> Text:
    """Returns a text that the grammar writes, and a tenth as much for validation."""
    grammar = Grammar()
    train, validation = (
        grammar.write(length, seed)
        for seed, length in enumerate((num_characters, num_characters // 10))
    )
    return _encoded(train, validation)


def shakespeare() -> Text:
    """Returns ``tiny_shakespeare`` of TensorFlow Datasets.

    It lies in ``$ASYNC_OPTAX_DATA/tfds`` if that is set, else it is downloaded.

    Raises:
      ImportError: if tensorflow_datasets is not installed.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            "tiny_shakespeare needs tensorflow_datasets: pip install 'async_optax[datasets]'"
        ) from error
    folder = os.environ.get("ASYNC_OPTAX_DATA")
    where = None if folder is None else str(Path(folder) / "tfds")
    parts = []
    for split in ("train", "validation"):
        source = tfds.data_source("tiny_shakespeare", split=split, data_dir=where)
        parts.append(source[0]["text"].decode())
    return _encoded(*parts)


def _encoded(train: str, validation: str) -> Text:
    alphabet = "".join(sorted(set(train) | set(validation)))
    number = {character: i for i, character in enumerate(alphabet)}
    arrays = (np.array([number[c] for c in part], np.uint8) for part in (train, validation))
    return Text(*arrays, alphabet)
