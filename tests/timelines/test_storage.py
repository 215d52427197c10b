"""Timelines in files: equal to the bit, refused if damaged, whole or not at all."""

import dataclasses
import errno
import os
import sys

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from async_optax import Timeline, protocols, runtimes
from async_optax.timelines import MadeFor, open_arrivals, simulate_timeline, storage
from async_optax.timelines.pipelines import pipeline_timeline

SUFFIXES = (".npz", ".parquet")
GAMMA = runtimes.gamma(cv=0.5, machine_cv=0.6)
STAGED = GAMMA.with_transfers(download=runtimes.exponential(0.1)).with_server(
    runtimes.deterministic(0.01)
)
FAILING = GAMMA.with_failures(runtimes.exponential(5.0), runtimes.exponential(1.0))


def simulated(protocol, model):
    return simulate_timeline(protocol, model, 5, num_commits=30, seed=2)


TIMELINES = {
    "plain": simulated(protocols.asynchronous(), GAMMA),
    "phases": simulated(protocols.asynchronous(), STAGED),
    "queues": simulated(protocols.asynchronous("uniform"), GAMMA),
    "tokens": simulated(protocols.token_control(4, 1), GAMMA),
    "absences": simulated(protocols.asynchronous(), FAILING),
    "visitors": open_arrivals(3.0, GAMMA, max_time=20.0),
    "drained": pipeline_timeline(3, 2, num_micro_batches=2, synchronous=True),
    "nothing_lost": Timeline.from_staleness([0, 1, 2, 0]),
    "no_commit": simulate_timeline(
        protocols.buffered(3), runtimes.deterministic(), num_workers=2, max_time=1.0
    ),
}
any_timeline = pytest.mark.parametrize("name", TIMELINES)
any_suffix = pytest.mark.parametrize("suffix", SUFFIXES)


def assert_equal(one, other):
    """Equal to the bit, in all that either holds."""
    assert type(one) is type(other)
    for field in dataclasses.fields(one):
        ours, theirs = getattr(one, field.name), getattr(other, field.name)
        if dataclasses.is_dataclass(ours):
            assert_equal(ours, theirs)
        elif isinstance(ours, np.ndarray):
            assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), field.name
            assert ours.tobytes() == theirs.tobytes(), field.name
        else:
            assert ours == theirs, field.name


def test_the_timelines_differ_in_what_they_hold():
    held = {
        name: (t.phases is not None, t.token is not None, t.absences is not None)
        for name, t in TIMELINES.items()
    }
    assert held["plain"] == (False, False, False)
    assert held["phases"] == held["queues"] == (True, False, False)
    assert held["tokens"] == (False, True, False)
    assert held["absences"] == held["visitors"] == (False, False, True)
    assert TIMELINES["absences"].lost.aborted.any()
    assert not len(TIMELINES["nothing_lost"].lost.worker)
    assert TIMELINES["drained"].made_for == MadeFor(MadeFor.SYNCHRONOUS_PIPELINE, 3)
    assert TIMELINES["plain"].made_for is None


@any_timeline
@any_suffix
def test_round_trip(tmp_path, name, suffix):
    path = tmp_path / f"timeline{suffix}"
    for target in (path, str(path)):  # the second time, over the first
        TIMELINES[name].save(target)
        assert_equal(Timeline.load(target), TIMELINES[name])
    assert os.listdir(tmp_path) == [path.name]


def test_parquet_has_a_row_per_arrival(tmp_path):
    timeline, path = TIMELINES["absences"], tmp_path / "timeline.parquet"
    timeline.save(path)
    table = pyarrow.parquet.read_table(path)
    assert table.num_rows == timeline.num_arrivals
    np.testing.assert_array_equal(table["time"].to_numpy(), timeline.time)
    assert table.schema.metadata[b"schema"] == b"async_optax.timeline"
    assert table.schema.metadata[b"schema_version"] == b"1"


@any_suffix
def test_truncated_files_are_refused(tmp_path, suffix):
    path = tmp_path / f"timeline{suffix}"
    TIMELINES["tokens"].save(path)
    whole = path.read_bytes()
    for length in [0, 1, 4, 100, *np.linspace(200, len(whole) - 1, 10).astype(int)]:
        path.write_bytes(whole[:length])
        with pytest.raises(
            ValueError, match=f"timeline{suffix} is damaged, or not a {suffix} file"
        ):
            Timeline.load(path)


@any_suffix
def test_damaged_files_are_refused_or_read_as_they_were(tmp_path, suffix):
    path = tmp_path / f"timeline{suffix}"
    TIMELINES["phases"].save(path)
    whole = path.read_bytes()
    refusals = []
    for position in np.linspace(0, len(whole) - 1, 150).astype(int):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        try:
            loaded = Timeline.load(path)
        except ValueError as error:
            refusals.append(str(error))
        else:  # a byte that says nothing about the timeline, such as a date
            assert_equal(loaded, TIMELINES["phases"])
    assert len(refusals) > 75
    assert all(str(path) in refusal for refusal in refusals)


def test_an_array_that_looks_shorter_is_refused(tmp_path):
    path = tmp_path / "timeline.npz"
    TIMELINES["plain"].save(path)
    damaged = bytearray(path.read_bytes())
    shape = damaged.index(b"(5,)", damaged.index(b"lost.reason.npy"))
    damaged[shape : shape + 4] = b"(4,)"  # no more is read, so nobody misses the rest
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"the checksum of lost.reason.npy is wrong"):
        Timeline.load(path)


@any_suffix
def test_other_formats_under_the_ending_are_refused(tmp_path, suffix):
    path = tmp_path / f"timeline{suffix}"
    path.write_text("worker,start,finish\n" * 50)
    with pytest.raises(ValueError, match=f"is damaged, or not a {suffix} file"):
        Timeline.load(path)
    with pytest.raises(FileNotFoundError, match=f"there is no file .*absent{suffix}"):
        Timeline.load(tmp_path / f"absent{suffix}")


@any_suffix
def test_other_schemas_are_refused(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"timeline{suffix}"
    for name, value, message in [
        ("_VERSION", 2, "is a timeline of schema_version 2; this program reads 1"),
        ("_SCHEMA", "mine", "is not a timeline: it has the schema mine, not async_optax.timeline"),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(storage, name, value)
            TIMELINES["plain"].save(path)
        with pytest.raises(ValueError, match=f"timeline{suffix} {message}"):
            Timeline.load(path)


def test_foreign_files_are_refused(tmp_path):
    message = "is not a timeline: it has no schema, not async_optax.timeline"
    np.savez(tmp_path / "foreign.npz", worker=np.arange(3))
    with pytest.raises(ValueError, match=f"foreign.npz {message}"):
        Timeline.load(tmp_path / "foreign.npz")
    table = pyarrow.table({"worker": [1, None], "name": ["a", "b"]})
    pyarrow.parquet.write_table(table, tmp_path / "foreign.parquet")
    with pytest.raises(ValueError, match=f"foreign.parquet {message}"):
        Timeline.load(tmp_path / "foreign.parquet")
    pickled = np.array([{"a": 1}], object)
    np.savez(tmp_path / "pickled.npz", schema=pickled)
    with pytest.raises(ValueError, match="pickled.npz is damaged.*allow_pickle=False"):
        Timeline.load(tmp_path / "pickled.npz")


def test_incomplete_and_invalid_timelines_are_refused(tmp_path):
    path = tmp_path / "timeline.npz"
    TIMELINES["phases"].save(path)
    with np.load(path) as file:
        arrays = dict(file)
    for changes, message in [
        ({"phases.sent": None}, "nothing is missing, and phases.begin, phases.compute, phases.up"),
        ({"lost.worker": None, "worker": None}, "lost.worker, worker is missing, and nothing"),
        ({"colour": arrays["time"]}, "nothing is missing, and colour is left over"),
        ({"time": arrays["time"][::-1]}, "is not a valid timeline: timeline row 1 breaks the rule"),
        ({"time": arrays["time"][1:]}, "is not a valid timeline: timeline column"),
    ]:
        kept = {name: array for name, array in (arrays | changes).items() if array is not None}
        np.savez(path, **kept)
        with pytest.raises(ValueError, match=f"timeline.npz .*{message}"):
            Timeline.load(path)


@any_suffix
@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
def test_a_failed_write_changes_nothing(tmp_path, monkeypatch, suffix, failing):
    path = tmp_path / f"timeline{suffix}"
    TIMELINES["plain"].save(path)
    before = path.read_bytes()

    def full(*arguments, **keywords):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def half(file, arrays):
        file.write(before[: len(before) // 2])
        full()

    with monkeypatch.context() as patch:
        if failing == "write":
            patch.setitem(storage._FORMATS, suffix, (half, None))
        else:
            patch.setattr(storage.os, failing, full)
        with pytest.raises(OSError, match="No space left on device"):
            TIMELINES["tokens"].save(path)
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_bytes() == before
    assert_equal(Timeline.load(path), TIMELINES["plain"])


def test_full_disk(tmp_path, monkeypatch):
    # The system's own: writing to the device that is always full.
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full on this system")
    arrays = storage._arrays(TIMELINES["plain"])
    for write, _ in storage._FORMATS.values():
        with (
            pytest.raises(OSError, match="No space left on device"),
            open("/dev/full", "wb") as file,
        ):
            write(file, arrays)


def test_endings_and_extras(tmp_path, monkeypatch):
    for name in ("timeline.csv", "timeline"):
        with pytest.raises(ValueError, match=f"path must end in .npz or .parquet, got .*{name}"):
            TIMELINES["plain"].save(tmp_path / name)
    path = tmp_path / "timeline.parquet"
    TIMELINES["plain"].save(path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for attempt in (lambda: Timeline.load(path), lambda: TIMELINES["plain"].save(path)):
        with pytest.raises(ImportError, match=r"pip install 'async_optax\[parquet\]'"):
            attempt()
    assert os.listdir(tmp_path) == [path.name]
