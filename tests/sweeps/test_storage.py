"""Datasets in files: equal to the bit, whole or not at all, saved when a sweep breaks."""

import os
import resource
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import xarray

from async_optax.sweeps import load, save, saving, strategies
from tests.engine.problems import make_timeline
from tests.sweeps.settings import asynchronous, jobs_module, small_sweep


@pytest.fixture(scope="module")
def dataset():
    """A sweep with every kind of cell but missing ones."""
    return small_sweep(
        timelines=make_timeline(600),
        grid={"learning_rate": [-1.0, 0.1, 50.0]},
        strategy="threads",
    )


def test_a_round_trip_is_equal_to_the_bit(dataset, tmp_path):
    assert {"failed", "done", "diverged"} == set(dataset["status"].values.flat)
    save(dataset, tmp_path / "sweep.nc")
    loaded = load(tmp_path / "sweep.nc")
    assert loaded.identical(dataset)
    assert os.listdir(tmp_path) == ["sweep.nc"]
    for name in dataset.variables:
        if dataset[name].dtype.kind in "if":
            assert loaded[name].dtype == dataset[name].dtype
            assert loaded[name].values.tobytes() == dataset[name].values.tobytes()


def test_other_programs_can_read_it(dataset, tmp_path):
    save(dataset, tmp_path / "sweep.nc")
    with xarray.open_dataset(tmp_path / "sweep.nc", engine="h5netcdf") as opened:
        assert opened["distance"].sizes == dataset["distance"].sizes


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failing_write_leaves_the_old_file(dataset, tmp_path, monkeypatch, broken):
    path = tmp_path / "sweep.nc"
    path.write_bytes(b"old")

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match=r"cannot write the sweep: No space left.*sweep\.nc"):
        save(dataset, path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["sweep.nc"]


def test_a_full_disk_leaves_the_old_file(dataset, tmp_path):
    path = tmp_path / "sweep.nc"
    save(dataset.isel(seed=[0]), path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match=r"cannot write the sweep: File too large.*sweep\.nc"):
            save(dataset, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["sweep.nc"]


def test_bad_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*sweep\.nc"):
        load(tmp_path / "sweep.nc")
    with pytest.raises(FileNotFoundError, match="there is no folder .*nowhere for sweep"):
        save(xarray.Dataset(), tmp_path / "nowhere" / "sweep.nc")
    (tmp_path / "sweep.nc").write_bytes(b"\x89HDF\r\n\x1a\n and nothing else")
    with pytest.raises(ValueError, match=r"sweep\.nc is damaged, or no netCDF file") as raised:
        load(tmp_path / "sweep.nc")
    assert "\n" not in str(raised.value)


def test_missing_libraries_are_named(tmp_path):
    code = """
    import sys
    sys.modules["h5py"] = None
    import async_optax.sweeps
    try:
        async_optax.sweeps.load("sweep.nc")
    except ImportError as error:
        print(error)
    print("xarray" in sys.modules)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "pip install 'async_optax[sweep]'" in printed


def test_importing_the_room_imports_no_extra():
    code = "import sys, async_optax.sweeps; print({'xarray', 'h5py'} & sys.modules.keys())"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "set()\n"


def _breaking(monkeypatch, error, after):
    """Makes ``simulate`` raise in one run, once so many others are done."""
    simulate, calls = jobs_module.simulate, []

    def break_once(*args, **kwargs):
        calls.append(None)
        if len(calls) > after:
            raise error
        return simulate(*args, **kwargs)

    monkeypatch.setattr(jobs_module, "simulate", break_once)
    monkeypatch.setattr(strategies, "available_cores", lambda: 1)


@pytest.mark.parametrize("error", [MemoryError("too much"), ZeroDivisionError("a bug")])
def test_what_is_done_is_saved_when_a_sweep_breaks(error, tmp_path, monkeypatch):
    path = tmp_path / "sweep.nc"
    _breaking(monkeypatch, error, after=3)
    with pytest.raises(type(error)):
        small_sweep(path=path, strategy="threads")
    monkeypatch.undo()
    found = load(path)["status"].values.ravel().tolist()
    assert sorted(found) == ["done", "done", "done", "missing"]
    whole = small_sweep(path=path, extend=path, strategy="threads")
    assert (whole["status"] == "done").all()


def test_an_interrupt_saves_and_ends(tmp_path):
    path = tmp_path / "sweep.nc"
    seen = []

    def interrupt(done, total):
        seen.append(done)
        if done >= 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small_sweep(path=path, seeds=range(20), strategy="threads", progress=interrupt)
    found = load(path)["status"].values.ravel().tolist()
    assert 1 <= found.count("done") < 40
    assert found.count("done") + found.count("missing") == 40


def test_nothing_is_saved_over_a_file_that_is_not_extended(tmp_path):
    path = tmp_path / "sweep.nc"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"pass extend=.* to keep its cells"):
        small_sweep(path=path)
    assert path.read_bytes() == b"mine"
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        small_sweep(path=tmp_path / "nowhere" / "sweep.nc")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        small_sweep(extend=tmp_path / "other.nc")


def test_a_sweep_is_saved_now_and_then(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(saving, "_SAVE_SECONDS", -1.0)
    monkeypatch.setattr(
        saving,
        "save",
        lambda dataset, path: saved.append(int((dataset["status"] == "done").sum())),
    )
    small_sweep(path=tmp_path / "sweep.nc", strategy="threads")
    assert saved == [1, 2, 3, 4, 4]


def test_the_file_holds_what_was_returned(tmp_path):
    dataset = small_sweep(path=tmp_path / "sweep.nc", timelines=asynchronous)
    assert load(tmp_path / "sweep.nc").identical(dataset)
    assert isinstance(dataset, xarray.Dataset)
    assert np.isfinite(dataset["distance"]).all()
