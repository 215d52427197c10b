"""A generated task of sentiment: text for which no data is needed."""

import collections

import numpy as np

from async_optax.validation import require_count
from experiments.datasets import Sentences, SentenceTask
from experiments.datasets.grammar import Grammar

_FUNCTION_WORDS = ("o", "da", "ke")  # singular, plural, relative
_WRITTEN = 2  # clauses written for one that is kept: some come again, or are neither


def sentiment(num_train: int = 8000, num_validation: int = 500) -> SentenceTask:
    """Returns a generated task: is there more good than bad in a clause?

    Every word but articles and pronouns is good or bad, in turns by frequency, and a clause is what
    most of its words are; clauses with as many of one as of the other are left out. Clauses are
    those of :class:`experiments.datasets.grammar.Grammar`, whose words are few that come often and
    many that come rarely, as in languages, so that most rows of the embedding's gradient are zero
    and some are large. Clauses of the training set are left out of the validation set.

    Args:
      num_train: clauses for training, >= 2.
      num_validation: likewise.

    Example:
      >>> task = sentiment(200, 20)
      >>> task.train.first[2], int(task.train.labels[2])
      ('o kome viwet o ner', 0)
    """
    require_count("num_train", num_train, at_least=2)
    require_count("num_validation", num_validation, at_least=2)
    grammar = Grammar()
    lot = " ".join(grammar.write_clauses(1000, seed=2)).split(" ")
    frequencies = collections.Counter(word for word in lot if word not in _FUNCTION_WORDS)
    ranked = sorted(frequencies, key=lambda word: (-frequencies[word], word))
    valence = {word: 1 - 2 * (rank % 2) for rank, word in enumerate(ranked)}
    train = _judged(grammar.write_clauses(_WRITTEN * num_train, seed=0), valence, num_train, set())
    seen = set(train.first)
    more = grammar.write_clauses(_WRITTEN * num_validation + 200, seed=1)
    return SentenceTask(train, _judged(more, valence, num_validation, seen), 2, "accuracy")


def _judged(
    clauses: list[str], valence: dict[str, int], number: int, without: set[str]
) -> Sentences:
    sums = [sum(valence.get(word, 0) for word in clause.split(" ")) for clause in clauses]
    kept = [i for i, total in enumerate(sums) if total and clauses[i] not in without][:number]
    labels = np.array([sums[i] > 0 for i in kept], np.int32)
    return Sentences([clauses[i] for i in kept], None, labels)
