"""Every method on parameters sharded over eight devices, in an explicit mesh."""

import pytest

import async_optax as ao
from tests.conformance import sharded


@pytest.mark.parametrize("name", [*ao.optimizers.names(), "track_staleness"])
def test_types_and_results_on_a_mesh(name):
    result = sharded.check_on_mesh(name)
    # Shapes, dtypes and shardings of the state do not change, updates are sharded like gradients.
    assert result["drift"] == []
    assert result["moved_while_waiting"] == 0
    assert result["difference"] < 2e-6
    assert result["moved"] > 0
