"""The package as a whole: names, import time, dependencies, size of files."""

import importlib
import json
import pathlib
import pkgutil
import subprocess
import sys

import pytest

import async_optax as ao

ROOT = pathlib.Path(__file__).parents[1]
EXTRAS = ("tyro", "rich", "matplotlib", "sklearn", "flax", "tensorflow_datasets", "ray", "pyarrow")
EXTRAS += ("orbax", "xarray", "h5netcdf", "h5py")
MODULES = [m.name for m in pkgutil.walk_packages(ao.__path__, "async_optax.")]


def test_import_is_quick_and_takes_no_extra():
    code = (
        "import json, sys, time; start = time.process_time(); import async_optax; "
        "print(json.dumps([time.process_time() - start, sorted(sys.modules)]))"
    )
    results = [
        json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True).stdout)
        for _ in range(3)
    ]
    assert min(seconds for seconds, _ in results) < 2.0
    assert not {name.split(".")[0] for name in results[0][1]} & set(EXTRAS)


@pytest.mark.parametrize(
    "module", ["async_optax", *(m for m in MODULES if not m.endswith(("cli", "__main__")))]
)
def test_every_name_in_all_exists(module):
    imported = importlib.import_module(module)
    assert imported.__doc__
    names = getattr(imported, "__all__", [])
    assert len(set(names)) == len(names)
    for name in names:
        assert hasattr(imported, name)


def test_names_at_the_top():
    modules = {"transforms", "weights", "optimizers", "protocols", "runtimes", "noise"}
    for name in modules | {"Problem", "simulate", "Timeline", "simulate_timeline"}:
        assert name in ao.__all__
        assert hasattr(ao, name)


def test_files_stay_small():
    for path in ROOT.glob("async_optax/**/*.py"):
        assert len(path.read_text().splitlines()) <= 400, path
