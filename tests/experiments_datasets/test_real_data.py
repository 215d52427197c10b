"""The real data, where it is at hand: sizes, and what the first examples are."""

import os

import numpy as np
import pytest

from experiments.datasets import agreement, checkpoint_tokens, cifar10, glue, shakespeare
from experiments.models import find_checkpoint

pytestmark = [
    pytest.mark.skipif("ASYNC_OPTAX_DATA" not in os.environ, reason="ASYNC_OPTAX_DATA is not set"),
    pytest.mark.filterwarnings("ignore"),  # those of other packages
]


@pytest.fixture(autouse=True)
def _package():
    pytest.importorskip("tensorflow_datasets", reason="needs async_optax[datasets]")
    pytest.importorskip("array_record", reason="needs async_optax[datasets]")


def test_cifar10():
    images = cifar10(num_train=200, num_test=100)
    assert [x.shape for x in images] == [(200, 32, 32, 3), (200,), (100, 32, 32, 3), (100,)]
    assert images.train.dtype == np.uint8
    assert set(images.train_labels) == set(range(10))
    with pytest.raises(ValueError, match="num_test must be at most the 10000 of cifar10"):
        cifar10(num_train=1, num_test=10_001)


def test_shakespeare():
    text = shakespeare()
    assert (len(text.train), len(text.validation)) == (1_003_854, 55_769)
    assert "".join(text.alphabet[i] for i in text.train[:14]) == "First Citizen:"


@pytest.mark.parametrize(
    ("name", "sizes"), [("sst2", (300, 872)), ("cola", (300, 1043)), ("mrpc", (300, 408))]
)
def test_glue(name, sizes):
    task = glue(name, num_train=300)
    assert (len(task.train.labels), len(task.validation.labels)) == sizes
    assert set(task.validation.labels) == {0, 1}
    pytest.importorskip("tokenizers", reason="needs async_optax[models]")
    tokens = checkpoint_tokens(task, find_checkpoint("minilm-l6"), 48)
    assert tokens.train["ids"].shape == (300, 48)
    assert tokens.vocabulary_size == 30_522
    ids, types, mask = (tokens.train[key] for key in ("ids", "types", "mask"))
    lengths = mask.sum(1)
    assert set(ids[:, 0]) == {101}  # [CLS]
    assert set(ids[np.arange(300), lengths - 1]) == {102}  # [SEP]
    np.testing.assert_array_equal(ids == 0, ~mask)
    assert bool(types.any()) == (task.train.second is not None)


def test_wrong_folders():
    with pytest.raises(ValueError, match=r"checkpoint 'nothing' has no config.json in .*models/n"):
        find_checkpoint("nothing")
    with pytest.raises(ValueError, match="the checkpoint has no tokenizer: .* is not a file"):
        checkpoint_tokens(agreement(10, 10), find_checkpoint("minilm-l6").parent, 48)
