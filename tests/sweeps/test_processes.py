"""Several processes: an error on one ends them all, and what comes after works."""

import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from async_optax.sweeps import load
from tests.sweeps.settings import small_sweep

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def seen(folder):
    """What each of two processes got: datasets, or names and messages of errors."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    for i in range(2):
        (folder / f"{i}").mkdir()
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.sweeps.one_process", address, "2", f"{i}", folder],
            cwd=ROOT,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=200)
            assert process.returncode == 0, errors[-3000:]
    finally:
        for process in processes:
            process.kill()
    return [pickle.loads((folder / f"{i}.pickle").read_bytes()) for i in range(2)]


def test_all_must_be_asked_for_the_same(seen):
    for process in seen:
        kind, message = process["seeds"]
        assert kind == "ValueError"
        assert message.endswith("the same data and files: processes [1] differ from process 0")


FAILURES = {
    # Where it fails there, and the error.
    "argument": (1, "ValueError", "seed must be an integer >= 0, got -1"),
    "file of one": (1, "FileNotFoundError", "there is no file"),
    "stopped 0": (0, "ZeroDivisionError", "stopped"),
    "stopped 1": (1, "ZeroDivisionError", "stopped"),
    "stopped alone": (0, "ZeroDivisionError", "stopped"),
    "full disk": (0, "OSError", "[Errno 28] No space left on device"),
    "no folder for the first": (0, "FileNotFoundError", "there is no folder"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_an_error_on_one_ends_them_all(case, seen):
    where, kind, message = FAILURES[case]
    found = seen[where][case]
    assert found[0] == kind
    assert found[1].startswith(message)
    other = seen[1 - where][case]
    assert other[0] == "OSError"
    assert other[1].startswith(f"[Errno 5] the sweep failed on processes [{where}]")


def test_what_comes_after_works(seen, folder):
    expected = small_sweep(seeds=[0, 1, 2], strategy="threads")["distance"]
    for process in seen:
        np.testing.assert_allclose(process["whole"]["distance"], expected, rtol=1e-5)
        assert process["whole"].attrs["strategy"] == "devices"
        assert process["extended"]["seed"].values.tolist() == [0, 1, 2, 3]
        assert (process["extended"]["status"] == "done").all()
    assert seen[0]["whole"].identical(seen[1]["whole"])
    assert load(folder / "0" / "whole.nc").identical(seen[0]["extended"])
    assert sorted(os.listdir(folder / "0")) == ["whole.nc"]
