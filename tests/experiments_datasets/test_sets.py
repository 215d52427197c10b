"""The data sets themselves: embedded and generated ones, and GLUE's columns."""

import doctest
import hashlib
import importlib
import pathlib

import numpy as np
import pytest

from experiments import datasets
from experiments.datasets import grammar, sentences
from experiments.datasets.sentences import Sentences, SentenceTask
from experiments.nesterov_pipeline import text as pipeline_text
from experiments.pc_asgd import images as gossip_images
from tests.experiments_datasets.stub import stub

FOLDER = pathlib.Path(datasets.__file__).parent


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("[!_]*.py")))
def test_the_examples_in_docstrings(name):
    outcome = doctest.testmod(importlib.import_module(f"experiments.datasets.{name}"))
    assert outcome.failed == 0


def test_the_page_names_every_set():
    page = (FOLDER / "README.md").read_text()
    for name in (*datasets.IMAGES, *datasets.TEXTS, *datasets.GLUE, *datasets.__all__):
        assert f"`{name}`" in page, name


def test_experiments_before_see_what_they_saw():
    digits = gossip_images.SOURCES["digits"]()
    assert [x.shape for x in digits] == [(1437, 8, 8, 1), (1437,), (360, 8, 8, 1), (360,)]
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(x).tobytes() for x in digits))
    assert digest.hexdigest()[:16] == "bdfd39ae16a7387b"
    written = pipeline_text.grammar_text(2000)
    start = "".join(written.alphabet[i] for i in written.train[:60])
    assert start == "Ga nosofulwet o kur. o pidol nosofulwet Monbu (da rurrespoim"
    assert len(written.validation) == 200
    assert gossip_images.Images is datasets.Images


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="name must be one of digits, cifar10, .*; got 'cifar'"):
        datasets.load_images("cifar")
    with pytest.raises(ValueError, match="name must be one of grammar, shakespeare; got 'wiki'"):
        datasets.load_text("wiki")
    with pytest.raises(ValueError, match="task must be one of sst2, cola, .*; got 'stsb'"):
        datasets.glue("stsb")
    with pytest.raises(ValueError, match="num_characters must be an integer >= 10, got 3"):
        datasets.grammar_text(3)


def test_one_verb_is_turned_round():
    rng = np.random.default_rng(0)
    clauses = grammar.Grammar().write_clauses(200, seed=5)
    for clause in clauses:
        words, turned = clause.split(), grammar.disagree(clause, rng).split()
        (changed,) = (
            i for i, pair in enumerate(zip(words, turned, strict=True)) if len({*pair}) == 2
        )
        assert {words[changed][-3:], turned[changed][-3:]} == {"wet", "wen"}
        assert words[changed][:-3] == turned[changed][:-3]
        # A subject of one word, its verb beside it: they agree.
        if words[0] == "da" and words[2].endswith(("wet", "wen")):
            assert words[2].endswith("wen")


def test_agreement_is_balanced_and_its_parts_are_apart():
    task = datasets.agreement(300, 100)
    assert task.train.labels.sum() == 150
    assert 40 <= task.validation.labels.sum() <= 60
    assert len(task.validation.first) == len(task.validation.labels) == 100
    assert not set(task.train.first) & set(task.validation.first)
    assert task.train.first != datasets.agreement(301, 100).train.first[:300]


def test_glue_reads_its_columns(monkeypatch, tmp_path):
    def rows(task, number):
        columns = sentences.GLUE[task].columns
        return [
            {column: f"{column} {i}".encode() for column in columns} | {"idx": i, "label": i % 2}
            for i in range(number)
        ]

    stub(
        monkeypatch,
        {
            ("glue/mrpc", "train"): rows("mrpc", 1030),
            ("glue/mrpc", "validation"): rows("mrpc", 3),
            ("glue/mnli", "train"): rows("mnli", 2),
            ("glue/mnli", "validation_matched"): rows("mnli", 1),
        },
    )
    for task in ("mrpc", "mnli"):
        (tmp_path / "tfds" / "glue" / task).mkdir(parents=True)
    mrpc = datasets.glue("mrpc", data_dir=tmp_path)
    assert mrpc.train.first[1029] == "sentence1 1029"  # read in more than one go
    assert mrpc.train.second[7] == "sentence2 7"
    np.testing.assert_array_equal(mrpc.validation.labels, [0, 1, 0])
    assert (mrpc.num_classes, mrpc.metric) == (2, "f1")
    mnli = datasets.glue("mnli", num_train=1, data_dir=tmp_path)
    assert mnli.train.first == ["premise 0"]
    assert (len(mnli.validation.first), mnli.num_classes) == (1, 3)
    with pytest.raises(ValueError, match="num_train must be at most the 2 of glue/mnli, got 3"):
        datasets.glue("mnli", num_train=3, data_dir=tmp_path)


def test_words_are_numbered():
    parts = [Sentences(["b a c", "a"], None, np.array([1, 0])), Sentences(["a d"], None, [1])]
    task = datasets.word_tokens(SentenceTask(*parts, 2, "accuracy"), 4)
    np.testing.assert_array_equal(task.train["ids"], [[1, 5, 4, 2], [1, 4, 2, 0]])
    np.testing.assert_array_equal(task.validation["ids"], [[1, 4, 3, 2]])
    np.testing.assert_array_equal(task.train["mask"], [[1, 1, 1, 1], [1, 1, 1, 0]])
    assert (task.vocabulary_size, task.metric) == (7, "accuracy")
    pairs = parts[0]._replace(second=["x", "y"])
    with pytest.raises(ValueError, match="task must be one of single sentences"):
        datasets.word_tokens(SentenceTask(pairs, pairs, 2, "f1"), 4)
    with pytest.raises(ValueError, match="max_length must be an integer >= 3, got 2"):
        datasets.word_tokens(SentenceTask(*parts, 2, "f1"), 2)
