"""The width of waves: measured once, chosen for the waves that a timeline has."""

import jax
import numpy as np
import pytest

import async_optax as ao
from async_optax.engine import lanes as lanes_module
from async_optax.engine.lanes import check_lanes, choose_lanes
from async_optax.engine.program import run_chunk
from tests.engine.problems import make_timeline, quadratic_problem, run_quadratic


@pytest.fixture(autouse=True)
def _nothing_measured_yet(monkeypatch):
    monkeypatch.setattr(lanes_module, "_COSTS", {})


class Machine:
    """A machine whose waves cost what we say; counts what is measured."""

    def __init__(self, per_wave, per_arrival=0.0):
        self.per_wave, self.per_arrival = per_wave, per_arrival
        self.widths = []

    def __call__(self, width, num_arrivals, arrivals_per_wave):
        if width not in self.widths:
            self.widths.append(width)
        return self.per_wave[width] + self.per_arrival * arrivals_per_wave


def choose(machine, mean_wave=lambda width: width, num_arrivals=10_000, **options):
    return choose_lanes(
        "auto",
        num_arrivals,
        mean_wave,
        machine,
        **{"max_lanes": 1024, "setting": "some problem"} | options,
    )


@pytest.mark.parametrize(
    ("per_wave", "expected"),
    [({1: 1.0, 2: 1.6, 4: 2.4, 8: 5.6, 16: 1.6}, 4), ({1: 1.0, 2: 3.0, 4: 0.4}, 1)],
)
def test_the_search_ends_where_wider_is_slower(per_wave, expected):
    choice = choose(Machine(per_wave))
    assert choice.lanes == expected
    assert max(choice.seconds_per_arrival) == 2 * expected
    for width, seconds in choice.seconds_per_arrival.items():
        assert seconds == pytest.approx(per_wave[width] / width)


def test_empty_lanes_are_paid_for():
    machine = Machine({1: 1.0, 2: 1.5, 4: 2.5, 8: 4.5}, per_arrival=0.2)
    filled = choose(machine, max_lanes=8)
    assert filled.lanes == 8
    assert filled.seconds_per_arrival[8] == pytest.approx(4.5 / 8 + 0.2)
    # A timeline whose waves hold 2.2 arrivals at most: 4 lanes are mostly empty.
    ragged = choose(machine, lambda width: min(width, 2.2))
    assert ragged.lanes == 2
    assert ragged.seconds_per_arrival[4] == pytest.approx(2.5 / 2.2 + 0.2)


def test_a_setting_is_measured_once():
    machine = Machine({1: 1.0, 2: 1.6, 4: 4.0})
    first, again = choose(machine), choose(Machine({}), lambda width: width)
    assert machine.widths == [1, 2, 4]
    assert again == first
    other = Machine({1: 1.0, 2: 3.0})
    assert choose(other, setting="another problem").lanes == 1
    assert other.widths == [1, 2]


def test_short_runs_are_not_worth_measuring():
    choice = choose(Machine({1: 1e-4}))
    assert choice.lanes == 1
    assert "shorter than measuring" in choice.reason
    # What is known already costs nothing to use.
    choose(Machine({1: 1e-4, 2: 1e-4, 4: 9e-4}), num_arrivals=10**6)
    assert choose(Machine({}), num_arrivals=20).lanes == 2


def test_a_short_run_again_measures_nothing_more():
    machine = Machine({1: 1e-4})
    choices = [choose(machine) for _ in range(3)]
    assert machine.widths == [1]
    assert choices[1] == choices[2] == choices[0]


def test_nothing_is_measured_where_nothing_is_concurrent():
    choice = choose(Machine({}), lambda width: 1.0)
    assert choice.lanes == 1
    assert "reads what the one before" in choice.reason


def test_widths_on_a_mesh_are_multiples_of_its_devices():
    machine = Machine({4: 1.0, 8: 1.5, 16: 4.0})
    assert choose(machine, multiple=4).lanes == 8
    for lanes, most, proposed in [(6, 1024, 8), (6, 7, 4)]:
        message = f"multiple of the 4 devices of the mesh, got 6; use a multiple such as {proposed}"
        with pytest.raises(ValueError, match=message):
            check_lanes(lanes, most, multiple=4)


def test_a_run_says_what_was_chosen_and_why_and_again_compiles_nothing():
    problem = quadratic_problem()
    result = run_quadratic(problem, lanes="auto")
    assert result.lanes.lanes == 1
    assert "shorter than measuring" in result.lanes.reason
    assert result.lanes.seconds_per_arrival[1] > 0
    before = run_chunk._cache_size()
    for _ in range(2):
        assert run_quadratic(problem, lanes="auto").lanes == result.lanes
    for lanes in (np.int64(1), np.int32(1)):
        given = run_quadratic(problem, lanes=lanes).lanes
        assert (given.lanes, type(given.lanes), given.reason) == (1, int, "given")
    assert run_chunk._cache_size() == before


def test_a_second_run_measures_nothing_and_compiles_nothing(monkeypatch):
    monkeypatch.setattr(lanes_module, "_MIN_WORTHWHILE", 0.0)  # however short the run
    problem = quadratic_problem()
    first = run_quadratic(problem, lanes="auto")
    assert len(first.lanes.seconds_per_arrival) > 1
    before = run_chunk._cache_size()
    again = run_quadratic(problem, ao.optimizers.sgd(0.2), make_timeline(seed=1), lanes="auto")
    assert run_chunk._cache_size() == before
    assert set(again.lanes.seconds_per_arrival) <= set(first.lanes.seconds_per_arrival)
    assert "measured cost" in again.lanes.reason
    np.testing.assert_allclose(
        first.params, run_quadratic(problem, key=jax.random.key(0)).params, rtol=1e-5
    )
