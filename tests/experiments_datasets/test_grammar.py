"""The text that a grammar writes: by its own rules, and as numbers of its alphabet."""

import numpy as np

from experiments.datasets import grammar_text
from experiments.datasets.grammar import Grammar


def test_the_grammar_keeps_its_own_rules():
    written = Grammar().write(30_000, seed=3)
    assert written == Grammar().write(30_000, seed=3)
    assert written != Grammar().write(30_000, seed=4)
    assert len(written) == 30_000
    sentences = written.rsplit("\n", 1)[0].replace("\n", " ").split(". ")
    assert all(s.count("(") == s.count(")") and s.count('"') in (0, 2) for s in sentences)
    words = written.replace(".", " ").replace(",", " ").split()
    assert any(w.endswith("wen") for w in words)
    assert any(w.endswith("wet") for w in words)
    assert ",." not in written
    # What came in a paragraph comes again: its names are few.
    for paragraph in written.split("\n")[:-1]:
        assert len({w.strip('().,"') for w in paragraph.split() if w[:1].isupper()}) <= 2


def test_the_text_is_numbers_of_its_alphabet():
    made = grammar_text(5_000)
    assert (len(made.train), len(made.validation)) == (5_000, 500)
    assert max(made.train.max(), made.validation.max()) < len(made.alphabet)
    assert made.train.dtype == np.uint8
