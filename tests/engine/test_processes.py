"""Steps of several processes, with the others played by a table of what they tell."""

import numpy as np
import pytest

from async_optax.engine import processes
from async_optax.engine.processes import Together


@pytest.fixture
def told(monkeypatch):
    """Two processes: a list of what this one told, and of what the other will tell."""
    mine, others = [], []

    def allgather(value):
        mine.append(bool(value))
        return np.array([value, others.pop(0) if others else 1])

    monkeypatch.setattr(processes.jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes.multihost_utils, "process_allgather", allgather)
    return mine, others


def fail():
    raise ZeroDivisionError


def test_a_step_returns_what_this_process_did(told):
    together = Together("the sweep")
    assert together(lambda: 3) == 3
    assert together(lambda: together(lambda: 4)) == 4
    assert told[0] == [True] * 3


def test_an_error_is_told_once_however_deep_it_was(told):
    together = Together("the sweep")
    with pytest.raises(ZeroDivisionError):
        together(lambda: together(fail))
    assert told[0] == [False]


def test_after_an_error_elsewhere_no_step_is_taken(told):
    mine, others = told
    together, taken = Together("the sweep"), []
    others += [1, 0]
    together(lambda: taken.append(1))
    with pytest.raises(OSError, match=r"the sweep failed on processes \[1\]: see there"):
        together(lambda: taken.append(2))
    # Another job of a pool may start before the pool hears of the first one's error.
    with pytest.raises(OSError, match="the sweep has failed at a step before"):
        together(lambda: taken.append(3))
    assert taken == [1, 2]
    assert mine == [True, True]


def test_one_process_tells_nobody(told, monkeypatch):
    monkeypatch.setattr(processes.jax, "process_count", lambda: 1)
    together = Together("the sweep")
    with pytest.raises(ZeroDivisionError):
        together(fail)
    assert together(lambda: 5) == 5
    assert told[0] == []
