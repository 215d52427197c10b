"""A language that a probabilistic grammar makes: text to model where no data is at hand."""

from collections.abc import Sequence

import numpy as np

_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"
_SINGULAR, _PLURAL = "wet", "wen"  # ends of verbs; no other word has a w


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

    def write_clauses(self, number: int, seed: int) -> list[str]:
        """Returns clauses without marks, each about a topic of its own; all verbs agree."""
        rng = np.random.Generator(np.random.PCG64([seed, 2]))
        return [self._clause(rng, self._topic(rng)).replace(",", "") for _ in range(number)]

    def _syllable(self, rng: np.random.Generator) -> str:
        ending = "" if rng.random() < 0.6 else rng.choice(list("nrsl"))
        return str(rng.choice(list(_CONSONANTS)) + rng.choice(list(_VOWELS)) + ending)

    def _paragraph(self, rng: np.random.Generator) -> str:
        topic = self._topic(rng)
        sentences = [self._sentence(rng, topic) for _ in range(rng.integers(4, 9))]
        return " ".join(sentences) + "\n"

    def _topic(self, rng: np.random.Generator) -> dict[str, list[str]]:
        return {
            "nouns": self._few(rng, self._nouns, 6),
            "verbs": self._few(rng, self._verbs, 4),
            "adjectives": self._few(rng, self._adjectives, 3),
            "names": self._few(rng, self._names, 2),
        }

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
        return stem + (_PLURAL if plural else _SINGULAR)


def disagree(clause: str, rng: np.random.Generator) -> str:
    """Returns the clause with the number of one of its verbs, at random, turned round."""
    words = clause.split(" ")
    verbs = [i for i, word in enumerate(words) if word.endswith((_SINGULAR, _PLURAL))]
    at = verbs[int(rng.integers(len(verbs)))]
    stem, ending = words[at][:-3], words[at][-3:]
    words[at] = stem + (_PLURAL if ending == _SINGULAR else _SINGULAR)
    return " ".join(words)
