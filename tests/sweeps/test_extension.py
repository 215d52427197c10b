"""Extending a sweep along every dimension: nothing is run twice, nothing is mixed up."""

import functools
import os

import jax.numpy as jnp
import numpy as np
import pytest
import xarray

import async_optax as ao
from async_optax.sweeps import load, save
from tests.engine.problems import make_timeline, quadratic_problem
from tests.sweeps.settings import PROBLEM, asynchronous, counted, noisy, small_sweep


@pytest.fixture(scope="module")
def base():
    """Optimizer sgd, two seeds, two rates, on one timeline."""
    return small_sweep(strategy="threads", timelines={"a": asynchronous})


EXTENSIONS = {
    "optimizer": ({"optimizers": {"sgd": "sgd", "clipped": "clipped_sgd"}}, 4, 8),
    "another optimizer only": ({"optimizers": {"clipped": "clipped_sgd"}}, 4, 8),
    "seed": ({"seeds": [1, 2]}, 2, 6),
    "grid": ({"grid": {"learning_rate": [0.2, 0.1]}}, 2, 6),
    "timeline": ({"timelines": {"b": make_timeline(20)}}, 4, 8),
    "nothing": ({}, 0, 4),
}


@pytest.mark.parametrize("case", EXTENSIONS)
def test_only_what_is_new_is_run(case, base, monkeypatch):
    changes, num_runs, num_cells = EXTENSIONS[case]
    arguments = {"timelines": {"a": asynchronous}, "strategy": "threads"} | changes
    calls = counted(monkeypatch)
    extended = small_sweep(extend=base, **arguments)
    assert len(calls) == num_runs
    assert extended["status"].size == num_cells
    assert (extended["status"] == "done").all()
    assert set(extended["status"].values.flat) == {"done"}
    alone = small_sweep(**arguments)
    both = (base, alone)
    for part in both:
        found = extended.sel({dim: part[dim].values for dim in part["status"].dims})
        count = part.sizes["evaluation"]
        for name in ("distance", "version", "time"):
            np.testing.assert_array_equal(found[name][..., :count], part[name])
            assert (found[name][..., count:].isnull() | (found[name][..., count:] == -1)).all()


def test_combinations_that_nobody_asked_for_are_missing(base, monkeypatch):
    calls = counted(monkeypatch)
    extended = small_sweep(
        timelines={"a": asynchronous}, seeds=[5], grid={"learning_rate": [0.7]}, extend=base
    )
    assert len(calls) == 1
    assert extended["seed"].values.tolist() == [0, 1, 5]
    assert extended["learning_rate"].values.tolist() == [0.05, 0.2, 0.7]
    status = extended["status"].squeeze().transpose("seed", "learning_rate").values.tolist()
    assert status == [
        ["done", "done", "missing"],
        ["done", "done", "missing"],
        ["missing", "missing", "done"],
    ]
    missing = extended["status"] == "missing"
    assert extended["distance"].where(missing).isnull().all()
    assert (extended["diverged_version"] == -1).all()
    again = small_sweep(
        timelines={"a": asynchronous},
        seeds=[0, 5],
        grid={"learning_rate": [0.05, 0.7]},
        extend=extended,
    )
    assert len(calls) == 3
    assert int((again["status"] == "missing").sum()) == 2


def test_failed_cells_are_run_again_and_diverged_ones_are_not(monkeypatch):
    working = [False]

    def flaky(learning_rate):
        if not working[0] and learning_rate < 0.1:
            raise ValueError("not yet")
        return ao.optimizers.sgd(learning_rate)

    arguments = {
        "optimizers": flaky,
        "timelines": make_timeline(600),
        "grid": {"learning_rate": [0.05, 50.0]},
    }
    first = small_sweep(**arguments)
    assert first["status"].values.ravel().tolist() == ["failed", "diverged"] * 2
    working[0] = True
    calls = counted(monkeypatch)
    second = small_sweep(**arguments, extend=first)
    assert len(calls) == 2
    assert second["status"].values.ravel().tolist() == ["done", "diverged"] * 2
    assert second["message"].values.ravel().tolist()[0] == ""


def test_a_path_may_be_extended_in_place(tmp_path, monkeypatch):
    path = os.fspath(tmp_path / "sweep.nc")
    calls = counted(monkeypatch)
    for seeds in ([0], [0, 1], [0, 1]):  # the first time, there is no file yet
        small_sweep(seeds=seeds, extend=path, path=path, strategy="threads")
    assert len(calls) == 4
    assert load(path).identical(small_sweep(extend=path))


def test_the_order_of_dimensions_does_not_matter(base):
    turned = base.transpose("evaluation", "learning_rate", ...)
    extended = small_sweep(timelines={"a": asynchronous}, extend=turned, seeds=[2])
    assert extended["status"].values.size == 6
    assert (extended["status"] == "done").all()


def test_one_evaluation_more_elsewhere_pads_the_old(base):
    longer = small_sweep(timelines={"b": make_timeline(100)}, extend=base)
    assert longer.sizes["evaluation"] == 11
    old = longer["distance"].sel(timeline="a")
    assert old.isel(evaluation=slice(4, None)).isnull().all()
    np.testing.assert_array_equal(old.isel(evaluation=slice(4)), base["distance"].sel(timeline="a"))


def _shifted(seed):
    timeline = asynchronous(seed)
    return ao.Timeline.from_trace(
        {
            "worker": timeline.worker,
            "start": timeline.start_time + 1.0 * (timeline.start_time > 0),
            "finish": timeline.time + 1.0,
        }
    )


CONFLICTS = {
    "evaluate_every": (
        {"evaluate_every": 5},
        r"extend has 4 evaluations on timeline 'a' at seed 0, this sweep has \d+; use the "
        "evaluate_every or evaluate_at of the file, or another path$",
    ),
    "other versions": (
        {"evaluate_every": None, "evaluate_at": [1.0, 2.0]},
        "extend has evaluations at other versions or times on timeline 'a' at seed 0",
    ),
    "other times": ({"timelines": {"a": _shifted}}, "at other versions or times on timeline 'a'"),
    "problem": (
        {"problem": quadratic_problem(4)},
        "extend has another problem at every cell: it computes something else",
    ),
    "data": (
        {"problem": PROBLEM.with_noise(ao.noise.gaussian(0.1))},
        "extend has another problem at every cell",
    ),
    "worker": (
        {"worker": lambda problem, x, worker, key: (2 * x, jnp.sum(x))},
        "extend has another problem at every cell",
    ),
    "optimizer": (
        {"optimizers": {"sgd": "clipped_sgd"}},
        "extend has another optimizer at optimizer='sgd', learning_rate=0.05",
    ),
    "grid names": (
        {"optimizers": {"sgd": "clipped_sgd"}, "grid": {"learning_rate": [0.1], "max_norm": [1.0]}},
        r"extend has the grid names \['learning_rate'\], this sweep has \['learning_rate', 'max",
    ),
    "numbers of the problem": (
        {"problem": lambda learning_rate: PROBLEM},
        r"extend has the numbers of the problem \[\], this sweep has \['learning_rate'\]",
    ),
}


@pytest.mark.parametrize("case", CONFLICTS)
def test_another_setting_is_refused_before_anything_runs(case, base, monkeypatch):
    changes, message = CONFLICTS[case]
    calls = counted(monkeypatch)
    with pytest.raises(ValueError, match=message) as raised:
        small_sweep(**{"timelines": {"a": asynchronous}, "extend": base} | changes)
    assert not calls
    assert "\n" not in str(raised.value)


def test_another_precision_is_refused(base, x64):
    with pytest.raises(ValueError, match="extend has the precision float32, this sweep has fl"):
        small_sweep(timelines={"a": asynchronous}, extend=base)


def test_a_number_that_a_method_fixes_is_part_of_it():
    def run(max_norm, **changes):
        optimizer = functools.partial(ao.optimizers.clipped_sgd, max_norm=max_norm)
        return small_sweep(optimizers={"clipped": optimizer}, **changes)

    first = run(1.0)
    assert (run(1.0, extend=first)["status"] == "done").all()
    with pytest.raises(ValueError, match="extend has another optimizer at optimizer='clipped'"):
        run(2.0, extend=first)
    without = first.drop_vars("optimizer_digest")
    assert (run(2.0, extend=without)["status"] == "done").all()


def test_problems_are_compared_at_shared_numbers_only():
    def run(scales, factor=1.0, **changes):
        return small_sweep(
            problem=lambda noise_scale: noisy(factor * noise_scale),
            grid={"learning_rate": [0.1], "noise_scale": scales},
            seeds=[0],
            **changes,
        )

    first = run([0.1])
    extended = run([0.1, 0.2], extend=first)
    assert (extended["status"] == "done").all()
    with pytest.raises(ValueError, match=r"another problem at noise_scale=0\.1"):
        run([0.1, 0.2], factor=2.0, extend=first)


def test_other_datasets_are_refused(base, tmp_path):
    with pytest.raises(ValueError, match=r"extend must be a dataset of schema async_optax\.sweep"):
        small_sweep(extend=xarray.Dataset({"status": ("seed", ["done"])}))
    with pytest.raises(TypeError, match="extend must be a dataset or a path, got int"):
        small_sweep(extend=3)
    with pytest.raises(ValueError, match="extend must be a whole dataset .* it has no 'message'"):
        small_sweep(extend=base.drop_vars("message"))
    with pytest.raises(ValueError, match="a whole dataset of a sweep: it has no dimension 'seed'"):
        small_sweep(extend=base.isel(seed=0))
    save(base, tmp_path / "sweep.nc")
    (tmp_path / "sweep.nc").write_bytes((tmp_path / "sweep.nc").read_bytes()[:1000])
    with pytest.raises(ValueError, match="is damaged"):
        small_sweep(extend=tmp_path / "sweep.nc")


@pytest.mark.parametrize("transposed", [False, True])
def test_the_order_of_the_grid_does_not_matter(transposed):
    options = {"problem": noisy, "seeds": [0], "strategy": "threads"}
    rates, scales = [0.05, 0.2], [0.1, 1.0]
    first = small_sweep(**options, grid={"learning_rate": rates, "noise_scale": scales})
    if transposed:
        first = first.transpose("noise_scale", ...)
    grid = {"noise_scale": [*scales, 0.5], "learning_rate": [0.1, *rates]}
    extended = small_sweep(**options, grid=grid, extend=first)
    alone = small_sweep(**options, grid=grid)
    assert (extended["status"] == "done").all()
    for name in ("distance", "optimizer_digest", "problem_digest"):
        xarray.testing.assert_equal(extended[name].reindex_like(alone[name]), alone[name])
    # And once more, from what was extended.
    again = small_sweep(
        **options, grid={"learning_rate": [0.4], "noise_scale": [0.5]}, extend=extended
    )
    assert (again["status"] == "missing").sum() == 2
