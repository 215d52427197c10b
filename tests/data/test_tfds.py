"""Streaming from TensorFlow Datasets, where it and its data are at hand."""

import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from async_optax.data import equal_partition, in_memory, partition_rows, streamed
from async_optax.engine.feed import Feed

DATA = os.environ.get("ASYNC_OPTAX_DATA")
pytestmark = [
    pytest.mark.skipif(DATA is None, reason="ASYNC_OPTAX_DATA is not set"),
    pytest.mark.filterwarnings("ignore"),  # those of other packages
]


@pytest.fixture(scope="module")
def source():
    tfds = pytest.importorskip(
        "tensorflow_datasets", reason="needs tensorflow_datasets: async_optax[datasets]"
    )
    pytest.importorskip("array_record", reason="needs array_record: async_optax[datasets]")
    return tfds.data_source("cifar10", split="test", data_dir=pathlib.Path(DATA) / "tfds")


def numbers(example):
    return {"image": example["image"], "label": example["label"]}


def test_a_stream_equals_the_arrays(source):
    first = [numbers(source[row]) for row in range(200)]
    arrays = jax.tree.map(lambda *leaves: np.stack(leaves), *first)
    assert arrays["image"].shape == (200, 32, 32, 3)
    assert set(arrays["label"]) == set(range(10))
    rows = partition_rows(equal_partition(200, 4, seed=0), batch_size=16)
    batch, expected = streamed(source, rows, transform=numbers), in_memory(arrays, rows)
    job_key, workers = jax.random.key(0), np.array([0, 1, 2, 3, 1])
    with Feed(batch, lambda key: key[None], job_key, capacity=5) as feed:
        feed.request(np.arange(5), workers)
        fed = feed.collect()
    for job, worker in enumerate(workers):
        want = expected(jax.random.fold_in(job_key, job), jnp.int32(worker))
        for name in ("image", "label"):
            np.testing.assert_array_equal(fed[name][job, 0], want[name])


def test_what_is_no_number_must_go(source):
    rows = partition_rows(equal_partition(200, 4, seed=0), batch_size=16)
    with pytest.raises(TypeError, match=r"example\['id'\] must be numbers or booleans"):
        streamed(source, rows)
