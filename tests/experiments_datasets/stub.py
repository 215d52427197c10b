"""A stand-in for TensorFlow Datasets, whose data sets are lists."""

import sys
import types


class Source(list):
    """Rows that are read one by one or several at a time."""

    def __getitems__(self, rows):
        return [self[row] for row in rows]


def stub(monkeypatch, splits, *, failing=None):
    """Puts the stand-in in place; returns the calls that were made.

    ``splits`` is from (name, split) to rows.
    """
    calls = []

    class Builder:
        def __init__(self, name):
            self.name = name

        def download_and_prepare(self):
            if failing is not None:
                raise failing
            calls.append(("prepared", self.name))

    def builder(name, *, data_dir=None, file_format):
        calls.append(("builder", name, data_dir, file_format))
        return Builder(name)

    def data_source(name, *, split, data_dir):
        calls.append(("source", name, split, data_dir))
        return Source(splits[name, split])

    module = types.ModuleType("tensorflow_datasets")
    module.builder, module.data_source = builder, data_source
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
    for name in ("tensorflow_datasets.text", "tensorflow_datasets.text.glue"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    return calls
