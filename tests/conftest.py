"""Strict numerics and fixed seeds for every test."""

import itertools
from pathlib import Path

import hypothesis
import jax
import pytest

from tests.compiling import compile_quickly

compile_quickly()
jax.config.update("jax_traceback_in_locations_limit", 0)  # lowers programs a little faster
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 8)  # for meshes; one device is used unless asked

# Each new shape compiles: a deadline would measure the compiler.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=50)
hypothesis.settings.load_profile("fixed")


@pytest.fixture
def strict_dtypes():
    """No silent promotion of dtypes either; optax's own transformations do not all stand this."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def x64():
    """Runs a test in double precision."""
    with jax.enable_x64(True):
        yield


_MAPS = Path("/proc/self/maps")
_MANY_MAPS = 35_000  # of the 65 530 that Linux allows; beyond, the compiler crashes
_tests = itertools.count(1)


@pytest.fixture(autouse=True)
def _room_for_programs():
    """Drops compiled programs before their memory maps run out: each has many."""
    yield
    if next(_tests) % 10 == 0 and _MAPS.exists():
        with _MAPS.open("rb") as maps:
            many = sum(1 for _ in maps) > _MANY_MAPS
        if many:
            jax.clear_caches()
