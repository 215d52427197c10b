"""The conformance tests grow with the registry: every method is in every family of tests."""

import collections
import pathlib
import subprocess
import sys

import pytest

import async_optax as ao

ROOT = pathlib.Path(__file__).parents[2]
# What is collected, with the least number of cases per method.
FAMILIES = {
    "conformance/test_methods.py::test_fresh_equals_synchronous_bit_for_bit": 1,
    "conformance/test_methods.py::test_jit_scan_and_loop_agree": 1,
    "conformance/test_methods.py::test_vmap_over_workers_equals_a_loop": 1,
    "conformance/test_methods.py::test_dtypes_are_kept": 4,
    "conformance/test_methods.py": 20,
    "conformance/test_optax_suite.py": 10,
    "conformance/test_sharding.py": 1,
    "conformance/test_wrappers.py": 12,
    "engine/test_replay.py::test_engine_equals_numpy_replay": 2,
}
# Replay needs an oracle per method, which nobody can generate: it fails until there is one.
BY_HAND = {"engine/test_replay.py::test_engine_equals_numpy_replay"}
GUARD = "engine/test_replay.py::test_every_registered_method_has_an_oracle"

# Collects everything as it would be if one more method were registered.
COLLECT = """
import sys
import optax, pytest
from async_optax import optimizers

@optimizers.register
def one_more(learning_rate):
    return optax.sgd(learning_rate)

sys.exit(pytest.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def collected():
    """The ids of all cases below ``tests``, in a registry with one more method."""
    options = ["--collect-only", "-q", "-p", "no:cacheprovider"]
    paths = ["tests/conformance", "tests/engine/test_replay.py"]
    process = subprocess.run(
        [sys.executable, "-c", COLLECT, *options, *paths],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    lines = process.stdout.splitlines()
    return [line.removeprefix("tests/") for line in lines if line.startswith("tests/")]


def method_of(case):
    """The method that a case is about, or None."""
    values = case.partition("[")[2].removesuffix("]").split("-")
    (method, *others) = {*values} & {*ao.optimizers.names(), "one_more"} or {None}
    assert not others, case
    return method


def count(collected, family):
    return collections.Counter(method_of(case) for case in collected if case.startswith(family))


@pytest.mark.parametrize("name", ao.optimizers.names())
def test_every_method_is_in_every_family(collected, name):
    for family, least in FAMILIES.items():
        assert count(collected, family)[name] >= least, family


@pytest.mark.parametrize("family", FAMILIES)
def test_one_more_method_is_more_cases(collected, family):
    counts = count(collected, family)
    if family in BY_HAND:
        assert counts["one_more"] == 0
        assert GUARD in collected
        return
    assert counts["one_more"] >= FAMILIES[family]
    # No method is waved through: what all of them meet, each of them meets as often.
    if "::" in family:
        assert set(counts) == {*ao.optimizers.names(), "one_more"}
        assert len(set(counts.values())) == 1
