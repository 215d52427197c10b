"""Every method on parameters sharded over eight devices, in an explicit mesh."""

import json
import pathlib
import subprocess
import sys

import pytest

import async_optax as ao
from tests.conformance import sharded

ROOT = pathlib.Path(__file__).parents[2]
CASES = [*ao.optimizers.names(), "track_staleness"]

# One process of its own for all cases, so all cases belong to one worker.
pytestmark = pytest.mark.xdist_group("sharding")


@pytest.fixture(scope="module")
def results():
    """What ``sharded.py`` prints: one process for all methods, JAX starts slowly."""
    command = [sys.executable, "-W", "error", "-m", "tests.conformance.sharded"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    output = json.loads(process.stdout)
    assert output["num_devices"] == sharded.NUM_DEVICES
    return output["results"]


@pytest.mark.parametrize("name", CASES)
def test_types_and_results_on_a_mesh(results, name):
    result = results[name]
    assert "error" not in result, result["error"]
    # Shapes, dtypes and shardings of the state do not change, updates are sharded like gradients.
    assert result["drift"] == []
    assert result["moved_while_waiting"] == 0
    assert result["difference"] < 2e-6
    assert result["moved"] > 0
