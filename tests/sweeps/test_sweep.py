"""Sweeps: every cell is what a single run gives, whatever the strategy."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import async_optax as ao
from async_optax.engine.batch_program import run_batch
from async_optax.engine.program import run_chunk
from async_optax.sweeps import choice, measuring, parts, time_to
from async_optax.sweeps.setting import read_setting
from tests.engine.problems import make_timeline
from tests.sweeps.settings import (
    FIXED,
    GRID,
    PROBLEM,
    asynchronous,
    run_sweep,
    single_runs,
    small_sweep,
)

STRATEGIES = ("threads", "loop", "vmap", "devices")


@pytest.mark.parametrize(
    ("strategy", "lanes"), [("threads", 1), ("loop", 1), ("vmap", 1), ("devices", 1), ("loop", 3)]
)
def test_every_cell_equals_its_single_run(strategy, lanes, x64):
    dataset = run_sweep(strategy=strategy, lanes=lanes)
    assert dataset["distance"].dims == (
        *("optimizer", "timeline", "seed", "learning_rate", "noise_scale", "evaluation"),
    )
    assert dataset["distance"].dtype == np.float64
    assert (dataset["status"] == "done").all()
    assert (dataset["message"] == "").all()
    assert (dataset["diverged_version"] == -1).all()
    assert dataset["diverged_time"].isnull().all()
    assert dataset.attrs["strategy"] == strategy
    seen = 0
    for place, result in single_runs(dataset):
        for name in ("distance", "version", "time"):
            values = dataset[name].values[place if name == "distance" else place[1:3]]
            np.testing.assert_allclose(values, result.evaluations[name], rtol=1e-12)
        seen += 1
    assert seen == 2 * 1 * 2 * 2 * 2


def test_a_timeline_with_fewer_evaluations_is_padded():
    timelines = {"asynchronous": asynchronous, "synchronous": FIXED}
    dataset = small_sweep(timelines=timelines, evaluate_every=4, strategy="threads")
    numbers = (dataset["version"] >= 0).sum("evaluation").sel(seed=0)
    assert numbers.values.tolist() == [9, 8]
    assert dataset.sizes["evaluation"] == 9
    short = dataset.sel(timeline="synchronous")
    assert short["distance"].isel(evaluation=8).isnull().all()
    assert short["distance"].isel(evaluation=7).notnull().all()
    assert short["version"].isel(seed=1).values.tolist() == [*range(0, 25, 4), 25, -1]
    assert short["time"].isel(evaluation=8).isnull().all()


@pytest.fixture
def compilations(caplog):
    """Returns a function that counts what has been compiled since it was called last."""
    before = jax.config.jax_log_compiles
    jax.config.update("jax_log_compiles", True)  # in all threads, unlike jax.log_compiles()

    def count(program):
        begins = f"Finished XLA compilation of jit({program.__name__})"
        number = sum(record.getMessage().startswith(begins) for record in caplog.records)
        caplog.clear()
        return number

    with caplog.at_level("WARNING"):
        yield count
    jax.config.update("jax_log_compiles", before)


@pytest.mark.parametrize(("strategy", "program"), [("threads", run_chunk), ("loop", run_batch)])
def test_one_compilation_per_structure(strategy, program, compilations):
    def run(seeds, rates):
        run_sweep(
            # One worker more than elsewhere: shapes that no other test has compiled.
            timelines=lambda seed: make_timeline(30, num_workers=5, seed=seed),
            seeds=seeds,
            grid=GRID | {"learning_rate": rates},
            strategy=strategy,
        )
        return compilations(program)

    assert run([0, 1], [0.1, 0.2]) == 2  # sgd and clipped sgd
    assert run([2, 3, 4], [0.3, 0.4]) == 0


def test_plain_optax_compiles_once_per_value_not_per_seed():
    before = run_chunk._cache_size()
    small_sweep(optimizers=optax.adam, seeds=range(4), strategy="threads")
    assert run_chunk._cache_size() == before + 2


def test_a_problem_alone_has_no_grid():
    dataset = small_sweep(
        optimizers={"a": functools.partial(ao.optimizers.sgd, 0.1)}, grid=None, timelines=FIXED
    )
    assert dataset["distance"].dims == ("optimizer", "timeline", "seed", "evaluation")
    assert dataset["timeline"].values.tolist() == ["timeline"]
    assert (dataset["status"] == "done").all()


def test_labels_are_the_names_of_factories():
    dataset = small_sweep(optimizers=ao.optimizers.clipped_sgd)
    assert dataset["optimizer"].values.tolist() == ["clipped_sgd"]
    assert dataset["timeline"].values.tolist() == ["asynchronous"]


def test_integers_of_the_grid_stay_integers():
    def problem(size):
        assert isinstance(size, int)
        return ao.Problem(
            init=lambda key: jnp.full(size, 4.0),
            loss=lambda x, batch, key: jnp.sum(x**2),
            batch=lambda key, worker: jnp.zeros(()),
            evaluate=lambda x: {"length": jnp.float32(x.size)},
        )

    dataset = small_sweep(
        problem=problem, seeds=[0], grid={"learning_rate": [0.1, 1], "size": [2, np.int32(3)]}
    )
    assert dataset["size"].dtype == np.int64
    assert dataset["learning_rate"].dtype == np.float64
    np.testing.assert_array_equal(dataset["length"].isel(evaluation=-1).squeeze()[0], [2, 3])


@pytest.mark.parametrize("array", [np.array, jnp.array])
def test_arrays_of_the_grid_are_read_by_their_dtype(array):
    def read(rates, sizes):
        def factory(learning_rate, size):
            return ao.optimizers.sgd(learning_rate)

        grid = {"learning_rate": rates, "size": sizes}
        return read_setting(PROBLEM, factory, FIXED, array([2, 0]), grid, None, None, None)

    setting = read(array([0.5, 1.5]), array([2, 3]))
    assert setting.grid == {"learning_rate": (0.5, 1.5), "size": (2, 3)}
    assert setting.seeds == (2, 0)
    kinds = {name: {type(value) for value in values} for name, values in setting.grid.items()}
    assert kinds == {"learning_rate": {float}, "size": {int}}
    mixed = read([array(0.5), 1], [array(2), 3.0])
    assert mixed.grid == {"learning_rate": (0.5, 1.0), "size": (2.0, 3.0)}
    with pytest.raises(TypeError, match="seed must be an integer >= 0, got "):
        read_setting(PROBLEM, "sgd", FIXED, array([0.5]), {"learning_rate": [1]}, None, None, None)


def picky(learning_rate):
    if learning_rate > 0.1:
        raise ValueError(f"learning_rate must be at most 0.1, got {learning_rate}")
    return ao.optimizers.sgd(learning_rate)


@pytest.mark.parametrize("strategy", ["threads", "loop"])
def test_failures_stay_in_their_own_cell(strategy):
    def timelines(seed):
        if seed == 1:
            raise ValueError("no timeline for seed 1")
        return make_timeline(30, ao.protocols.buffered(3), seed=seed)

    dataset = small_sweep(
        optimizers={"sgd": "sgd", "picky": picky, "bare": lambda learning_rate: optax.sgd(0.1)},
        timelines=timelines,
        seeds=[0, 1, 2],
        strategy=strategy,
    )
    status = dataset["status"].sel(timeline="timelines")
    assert (status.sel(seed=1) == "failed").all()
    assert (dataset["message"].sel(seed=1, optimizer="sgd") == "no timeline for seed 1").all()
    assert (status.sel(optimizer="bare") == "failed").all()
    bare = dataset["message"].sel(optimizer="bare", seed=2).values.flat[0]
    assert "accumulate_until_commit" in bare
    assert status.sel(optimizer="picky", seed=0).values.tolist() == ["done", "failed"]
    assert (status.sel(optimizer="sgd", seed=[0, 2]) == "done").all()
    failed = dataset["status"] == "failed"
    assert dataset["distance"].where(failed).isnull().all()
    assert dataset["distance"].where(~failed, 0.0).isel(evaluation=0).notnull().all()
    assert (dataset["version"].sel(seed=1) == -1).all()


def test_the_first_error_is_raised_if_every_cell_fails(tmp_path):
    def fail(learning_rate):
        raise TypeError(f"no {learning_rate}")

    with pytest.raises(TypeError, match=r"^no 0.05$"):
        small_sweep(optimizers=fail, path=tmp_path / "sweep.nc")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="accumulate_until_commit"):
        small_sweep(optimizers=optax.sgd, timelines=make_timeline(9, ao.protocols.buffered(3)))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_divergence_ends_its_own_cell_only(strategy):
    dataset = small_sweep(
        timelines=make_timeline(600),
        grid={"learning_rate": [0.05, 50.0]},
        strategy=strategy,
    )
    status = dataset["status"].squeeze(["optimizer", "timeline"])
    assert (status.sel(learning_rate=0.05) == "done").all()
    assert (status.sel(learning_rate=50.0) == "diverged").all()
    for seed in (0, 1):
        cell = dataset.sel(learning_rate=50.0, seed=seed).squeeze()
        result = ao.simulate(
            PROBLEM,
            ao.optimizers.sgd(50.0),
            make_timeline(600),
            key=jax.random.key(seed),
            lanes=1,
            evaluate_every=10,
        )
        assert cell["diverged_version"] == result.diverged.version
        assert cell["diverged_time"] == result.diverged.time
        assert cell["message"] == str(result.diverged)
        late = cell["time"] >= result.diverged.time
        assert cell["distance"].where(late).isnull().all()
        assert cell["distance"].where(~late, 0.0).notnull().all()


def dividing(learning_rate):
    return ao.optimizers.sgd(1 / (learning_rate - 0.05))


def asserting(scale):
    if scale == 2:
        raise AssertionError
    return PROBLEM


def test_whatever_a_users_function_raises_fails_its_cells(monkeypatch):
    def timelines(seed):
        return {0: FIXED}[seed]

    dataset = small_sweep(
        problem=asserting,
        optimizers={"sgd": "sgd", "dividing": dividing},
        timelines={"fixed": FIXED, "picky": timelines},
        grid={"learning_rate": [0.05], "scale": [1.0, 2.0]},
        strategy="threads",
    )
    failed = {
        "the problem function raises AssertionError": {"scale": 2.0},
        "optimizer 'dividing' raises ZeroDivisionError: float division by zero": {
            "optimizer": "dividing",
            "scale": 1.0,
        },
        "timeline 'picky' at seed 1 raises KeyError: 1": {
            "optimizer": "sgd",
            "timeline": "picky",
            "seed": 1,
            "scale": 1.0,
        },
    }
    for message, place in failed.items():
        cells = dataset.sel(place)
        assert (cells["status"] == "failed").all()
        assert (cells["message"] == message).all()
    assert int((dataset["status"] == "done").sum()) == 3
    # Nothing else is taken for a failed cell: neither an interrupt nor a bug of ours.
    with pytest.raises(KeyboardInterrupt):
        small_sweep(timelines={"fixed": FIXED, "stopped": stopped})
    monkeypatch.setattr(parts, "compile_timeline", lambda timeline: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        small_sweep()


def stopped(seed):
    raise KeyboardInterrupt


@pytest.mark.parametrize("strategy", ["threads", "loop"])
def test_progress_counts_arrivals_of_all_cells(strategy):
    seen = []
    small_sweep(progress=lambda done, total: seen.append((done, total)), strategy=strategy)
    assert seen[0] == (0, 120)
    assert seen[-1] == (120, 120)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_an_error_in_progress_is_no_failed_cell():
    def progress(done, total):
        if done:
            raise ValueError("from progress")

    with pytest.raises(ValueError, match="from progress"):
        small_sweep(progress=progress)


def test_a_short_sweep_is_not_measured():
    dataset = small_sweep()
    chosen = json.loads(dataset.attrs["strategy_choice"])
    assert dataset.attrs["strategy"] == chosen["strategy"] == "threads"
    assert "shorter than measuring" in chosen["reason"]
    assert json.loads(dataset.attrs["versions"])["jax"] == jax.__version__


def test_a_long_sweep_is_measured_once(monkeypatch):
    monkeypatch.setattr(choice, "_MIN_WORTHWHILE", 0.0)
    monkeypatch.setattr(choice, "_MIN_WAVES", 0)
    monkeypatch.setattr(choice, "_COSTS", {})
    dataset = small_sweep(seeds=[0])
    chosen = json.loads(dataset.attrs["strategy_choice"])
    measured = chosen["seconds_per_run"]
    assert measured.keys() == {"threads", "devices, loop", "devices, vmap"}  # 8 devices here
    assert min(measured.values()) > 0
    assert min(measured, key=measured.get) in (
        chosen["strategy"],
        f"{chosen['strategy']}, {chosen['inside']}",
    )
    assert (dataset["status"] == "done").all()
    # Another seed, as long: measured before. Another number of cells: not.
    (kind,) = choice._COSTS
    again = small_sweep(seeds=[1])
    assert again.attrs["strategy_choice"] == dataset.attrs["strategy_choice"]
    assert list(choice._COSTS) == [kind]
    monkeypatch.setattr(choice, "seconds_in_a_batch", lambda batch, lanes: 1e-9)
    small_sweep(grid={"learning_rate": [0.1, 0.2, 0.3]})
    assert len(choice._COSTS) == 2


@pytest.mark.parametrize(("vmap", "expected"), [(1e-9, "vmap"), (9.0, "threads")])
def test_one_device_has_threads_or_vmap(vmap, expected, monkeypatch):
    monkeypatch.setattr(choice, "_MIN_WORTHWHILE", 0.0)
    monkeypatch.setattr(choice, "_MIN_WAVES", 0)
    monkeypatch.setattr(choice, "_COSTS", {})
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(choice, "seconds_in_threads", lambda run, lanes, num_threads: 1.0)
    monkeypatch.setattr(choice, "seconds_in_a_batch", lambda batch, lanes: vmap)
    dataset = small_sweep(seeds=[0])
    chosen = json.loads(dataset.attrs["strategy_choice"])
    assert chosen["strategy"] == dataset.attrs["strategy"] == expected
    assert chosen["reason"] == "least measured time per run"
    assert chosen["seconds_per_run"].keys() == {"threads", "vmap"}


@pytest.mark.parametrize(("own_cost", "noise"), [(0.0, 0.0), (0.3, 0.0), (0.3, 0.01)])
def test_what_a_call_costs_itself_is_not_taken_for_its_arrivals(own_cost, noise):
    calls = []

    def seconds(num_arrivals):
        calls.append(num_arrivals)
        return own_cost + 1e-3 * num_arrivals + noise * (len(calls) % 2)

    assert measuring._per_arrival(seconds, lanes=1) == pytest.approx(1e-3, rel=0.1)
    assert max(calls) <= 512


def test_other_worker_programs():
    dataset = small_sweep(worker=ao.engine.local_steps(2, optax.sgd(0.1), 0.1), strategy="loop")
    plain = small_sweep()
    assert (dataset["status"] == "done").all()
    assert not np.allclose(dataset["distance"][..., -1], plain["distance"][..., -1])


def test_time_to():
    dataset = small_sweep(grid={"learning_rate": [0.05, 0.2, 50.0]}, timelines=make_timeline(600))
    times = time_to(dataset, "distance", 2.0, below=True)
    assert times.dims == ("optimizer", "timeline", "seed", "learning_rate")
    for rate in (0.05, 0.2, 50.0):
        result = ao.simulate(
            PROBLEM,
            ao.optimizers.sgd(rate),
            make_timeline(600),
            key=jax.random.key(1),
            lanes=1,
            evaluate_every=10,
        )
        expected = result.time_to("distance", 2.0, below=True)
        expected = np.nan if expected is None else expected
        np.testing.assert_equal(times.sel(seed=1, learning_rate=rate).item(), expected)
    assert times.sel(learning_rate=50.0).isnull().all()
    with pytest.raises(ValueError, match="metric must be one of distance; got 'accuracy'"):
        time_to(dataset, "accuracy", 0.5)
