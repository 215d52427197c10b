"""Folders of prepared data: found, read, or refused in one line."""

import io
import sys

import numpy as np
import pytest

from experiments.datasets import data_folder, fashion_mnist, glue, mnist, open_prepared
from tests.experiments_datasets.stub import stub


@pytest.fixture(autouse=True)
def _no_folder(monkeypatch):
    monkeypatch.delenv("ASYNC_OPTAX_DATA", raising=False)


def images(number, seed):
    rng = np.random.default_rng(seed)
    return [
        {
            "image": rng.integers(0, 256, (4, 4, 1), np.uint8),
            "label": np.int64(rng.integers(10)),
            "id": b"left out",
        }
        for _ in range(number)
    ]


def test_an_argument_goes_before_the_environment(monkeypatch, tmp_path):
    assert data_folder() is None
    (tmp_path / "a").mkdir()
    monkeypatch.setenv("ASYNC_OPTAX_DATA", str(tmp_path / "a"))
    assert data_folder() == tmp_path / "a"
    assert data_folder(tmp_path) == tmp_path
    monkeypatch.setenv("ASYNC_OPTAX_DATA", str(tmp_path / "b"))
    with pytest.raises(ValueError, match=r"^ASYNC_OPTAX_DATA must name a folder .*, got '.*b'$"):
        data_folder()
    with pytest.raises(ValueError, match=r"^data_dir must name a folder .*, got '/no/where'$"):
        data_folder("/no/where")


def test_images_from_a_named_folder(monkeypatch, tmp_path):
    rows = {("mnist", "train"): images(9, 0), ("mnist", "test"): images(5, 1)}
    calls = stub(monkeypatch, rows)
    (tmp_path / "tfds" / "mnist").mkdir(parents=True)
    loaded = mnist(num_test=3, data_dir=tmp_path)
    assert calls == [("source", "mnist", split, tmp_path / "tfds") for split in ("train", "test")]
    assert (loaded.train.dtype, loaded.train.shape) == (np.uint8, (9, 4, 4, 1))
    assert (loaded.test_labels.dtype, loaded.test_labels.shape) == (np.int32, (3,))
    for got, split in ((loaded.train, "train"), (loaded.test, "test")):
        expected = [row["image"] for row in rows["mnist", split]][: len(got)]
        np.testing.assert_array_equal(got, expected)
    labels = [row["label"] for row in rows["mnist", "train"]]
    np.testing.assert_array_equal(loaded.train_labels, labels)
    for number, message in ((10, "at most the 9 of mnist, got 10"), (0, ">= 1, got 0")):
        with pytest.raises(ValueError, match=f"num_train must be .*{message}"):
            mnist(num_train=number, data_dir=tmp_path)
    with pytest.raises(ValueError, match="fashion_mnist is not prepared in .*tfds: prepare it"):
        fashion_mnist(data_dir=tmp_path)
    assert not any(call[0] == "builder" for call in calls)  # nothing is put into others' folders


def test_without_a_folder_it_is_downloaded(monkeypatch):
    calls = stub(monkeypatch, {("mnist", "test"): images(2, 0)})
    assert len(open_prepared("mnist", "test")) == 2
    assert calls == [
        ("builder", "mnist", None, "array_record"),
        ("prepared", "mnist"),
        ("source", "mnist", "test", None),
    ]


def test_why_it_cannot_be_had_is_said_in_one_line(monkeypatch, tmp_path):
    stub(monkeypatch, {}, failing=OSError("no route to host\n\nmore"))
    with pytest.raises(
        ValueError, match=r"^glue/rte could not be downloaded and prepared: OSE.*"
    ) as e:
        glue("rte")
    assert "\n" not in str(e.value)
    (tmp_path / "tfds" / "glue" / "rte").mkdir(parents=True)
    with pytest.raises(
        ValueError, match=r"^split 'train' of glue/rte cannot be read from .*KeyError"
    ):
        glue("rte", data_dir=tmp_path)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"mnist needs .*pip install 'async_optax\[datasets\]'"):
        mnist()


@pytest.mark.filterwarnings("ignore")  # those of other packages
def test_a_folder_that_the_package_itself_prepared(tmp_path):
    pillow = pytest.importorskip("PIL.Image", reason="needs async_optax[datasets]")
    tfds = pytest.importorskip("tensorflow_datasets", reason="needs async_optax[datasets]")
    pytest.importorskip("array_record", reason="needs async_optax[datasets]")
    rows = {"train": images(5, 0), "test": images(2, 1)}

    def as_file(image):
        file = io.BytesIO()
        pillow.fromarray(image[..., 0]).save(file, "png")
        file.seek(0)
        return file

    class Mnist(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """A small one; images are stored plainly: to encode them takes TensorFlow."""

        VERSION = tfds.core.Version("3.0.1")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(4, 4, 1)),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in rows}

        def _generate_examples(self, split):
            for i, row in enumerate(rows[split]):
                yield i, {"image": as_file(row["image"]), "label": int(row["label"])}

    Mnist(data_dir=tmp_path / "tfds", file_format="array_record").download_and_prepare()
    loaded = mnist(data_dir=tmp_path)
    assert sorted(loaded.test_labels) == sorted(row["label"] for row in rows["test"])
    stored = {image.tobytes() for image in loaded.train}
    assert stored == {row["image"].tobytes() for row in rows["train"]}
    with pytest.raises(ValueError, match="split 'dev' of mnist cannot be read from"):
        open_prepared("mnist", "dev", tmp_path)
