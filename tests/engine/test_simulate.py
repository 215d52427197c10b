"""The simulator's contract: compilations, evaluations, chunks, divergence, errors."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

import async_optax as ao
from async_optax.engine import execution
from async_optax.engine import run as run_module
from async_optax.engine.program import run_chunk
from tests.engine.problems import make_timeline, quadratic_problem, run_quadratic

PROBLEM = quadratic_problem()
KEY = jax.random.key(0)


def test_a_second_call_compiles_nothing(caplog):
    def run(seed, lr, threshold, num_commits, protocol):
        return ao.simulate(
            PROBLEM.with_noise(ao.noise.alpha_stable(1.0 + lr, lr)),
            ao.optimizers.async_heavy_tailed(
                lr, threshold=threshold, weight_fn=ao.weights.polynomial(lr)
            ),
            make_timeline(num_commits, protocol, seed=seed),
            key=jax.random.key(seed),
            lanes=1,
            evaluate_every=5 + seed,
        )

    for protocol in (
        ao.protocols.asynchronous(),
        ao.protocols.synchronous(),
        ao.protocols.buffered(2, wait=True),
        ao.protocols.buffered(3),
    ):
        run(0, 0.1, 1.0, 40, protocol)
        with jax.log_compiles(), caplog.at_level("WARNING"):
            caplog.clear()
            for seed, lr, threshold, num_commits in ((1, 0.2, 0.5, 40), (2, 0.3, 2, 57)):
                run(seed, lr, threshold, num_commits, protocol)
            compiled = [r.getMessage() for r in caplog.records if "ompil" in r.getMessage()]
        assert compiled == []


def test_compilations_are_seen_by_that_log(caplog):
    with jax.log_compiles(), caplog.at_level("WARNING"):
        jax.jit(lambda x: x * 3.21)(1.0)
    assert any("ompil" in record.getMessage() for record in caplog.records)


def test_the_first_run_compiles_its_program_once_however_many_chunks():
    before = run_chunk._cache_size()
    weakly_typed = dataclasses.replace(PROBLEM, init=lambda key: jnp.full(3, 4.0))
    ao.simulate(weakly_typed, ao.optimizers.sgd(0.1), make_timeline(300), key=KEY, lanes=1)
    assert run_chunk._cache_size() == before + 1


def test_slots_are_few_where_memory_is_dear(monkeypatch):
    timeline = make_timeline(40, ao.protocols.buffered(6), num_workers=8)
    seen = []
    execute = run_module.Run.__call__

    def spy(run, lanes, server, chunk):
        seen.append(server.slots.shape[0])
        return execute(run, lanes, server, chunk)

    monkeypatch.setattr(run_module.Run, "__call__", spy)
    num_slots = run_quadratic(timeline=timeline).num_slots
    monkeypatch.setattr(run_module, "_SPARE_BYTES", 0)
    run_quadratic(timeline=timeline)
    assert num_slots < 8
    assert seen[0] == 9  # one per worker: every seed has the same shape
    assert seen[-1] == ao.engine.compile_timeline(timeline).num_rows < 8


@pytest.mark.parametrize("lanes", [1, 3])
def test_parameters_that_are_never_stale_need_no_slot(lanes):
    synchronous = make_timeline(12, ao.protocols.synchronous(), num_workers=4)
    arguments = {"timeline": synchronous, "lanes": lanes}
    without = run_quadratic(**arguments)
    held = run_quadratic(**arguments, slot_dtype=jnp.float32)  # asks for copies of that dtype
    assert without.memory.slots == 0 < held.memory.slots
    np.testing.assert_array_equal(without.params, held.params)
    predicting = ao.transforms.look_ahead(optax.sgd(0.1), num_steps=1)
    gathering = ao.transforms.accumulate_until_commit(predicting)
    served = run_quadratic(optimizer=gathering, **arguments)
    assert served.memory.slots > 0  # not the parameters themselves


def test_integers_of_a_problem_stay_integers():
    whole = dataclasses.replace(
        PROBLEM,
        init=Partial(lambda size, key: jnp.full(size, 4.0), 3),
        batch=Partial(lambda key, worker, *, size: jax.random.normal(key, (size,)), size=3),
    )
    assert run_quadratic(whole).params.shape == (3,)


def test_plain_optax_optimizers_run_and_compile_once_per_object():
    optimizer = optax.chain(ao.transforms.clip_by_global_norm(1.0), optax.adam(0.1))
    before = run_chunk._cache_size()
    for seed in range(3):
        result = ao.simulate(PROBLEM, optimizer, make_timeline(seed=seed), key=KEY, lanes=1)
    assert run_chunk._cache_size() == before + 1
    assert np.isfinite(result.params).all()


def _one_per_class(labels, key):
    return jnp.zeros(int(labels.max()) + 1)


def test_data_may_decide_the_shapes():
    for num_classes in (3, 5, 3):
        labels = np.array([0, num_classes - 1])
        problem = dataclasses.replace(
            PROBLEM, init=Partial(_one_per_class, labels), batch=_fixed, loss=_squares
        )
        result = run_quadratic(problem)
        assert result.params.shape == (num_classes,)
        assert result.memory.slots == 5 * 4 * num_classes


def _fixed(key, worker):
    return jnp.ones(())


def _squares(x, batch, key):
    return jnp.sum((x - batch) ** 2)


def test_what_equal_structures_have_in_common_is_traced_once():
    traced, sgd = [], optax.sgd(0.1)

    def init(params):
        traced.append(isinstance(params, jax.core.Tracer))
        return sgd.init(params)

    optimizer = optax.GradientTransformationExtraArgs(init, sgd.update)
    run_quadratic(PROBLEM, optimizer)
    assert any(traced)
    traced.clear()
    run_quadratic(PROBLEM, optimizer, make_timeline(seed=1), jax.random.key(1))
    assert traced == [False]  # what the run begins with


def test_data_in_partial_nodes_is_an_argument_not_a_constant():
    def problem(offset):
        data = offset + jnp.arange(6.0)
        return dataclasses.replace(PROBLEM, batch=Partial(_pick, data))

    timeline = make_timeline()
    first = ao.simulate(problem(0.0), ao.optimizers.sgd(0.1), timeline, key=KEY, lanes=1)
    before = run_chunk._cache_size()
    second = ao.simulate(problem(5.0), ao.optimizers.sgd(0.1), timeline, key=KEY, lanes=1)
    assert run_chunk._cache_size() == before
    assert not np.allclose(first.params, second.params)


def _pick(data, key, worker):
    del worker
    return data[jax.random.randint(key, (3,), 0, len(data))]


def test_one_seed_gives_identical_results_whatever_the_chunks(monkeypatch):
    def run():
        return ao.simulate(
            PROBLEM.with_noise(ao.noise.student_t(1.5, 0.1)),
            ao.optimizers.clipped_sgd(0.1),
            make_timeline(3000),
            key=KEY,
            lanes=1,
            evaluate_every=100,
        )

    first, again = run(), run()
    monkeypatch.setattr(execution, "_FIRST_CHUNK", 1)
    monkeypatch.setattr(execution, "_CHUNK_SECONDS", 0.0)  # never doubles
    chopped = run()
    for other in (again, chopped):
        np.testing.assert_array_equal(first.params, other.params)
        np.testing.assert_array_equal(first.arrivals["loss"], other.arrivals["loss"])
        np.testing.assert_array_equal(first.evaluations["distance"], other.evaluations["distance"])
    assert len(first.arrivals["loss"]) == 3000


def test_methods_share_batches_and_noise():
    losses = [
        ao.simulate(
            PROBLEM.with_noise(ao.noise.alpha_stable(1.2, 0.1)),
            ao.optimizers.make(name, learning_rate=1e-30),
            make_timeline(),
            key=KEY,
            lanes=1,
            record=["gradient_norm"],
        ).arrivals
        for name in ("sgd", "clipped_sgd", "dc_asgd")
    ]
    for column in ("loss", "gradient_norm"):
        np.testing.assert_array_equal(losses[0][column], losses[1][column])
        np.testing.assert_array_equal(losses[0][column], losses[2][column])


@pytest.mark.parametrize("protocol", [ao.protocols.asynchronous(), ao.protocols.buffered(3)])
def test_evaluations_on_both_axes(protocol):
    timeline = make_timeline(20, protocol)

    def run(**evaluate):
        return ao.simulate(
            PROBLEM, ao.optimizers.sgd(0.1), timeline, key=KEY, lanes=1, **evaluate
        ).evaluations

    every = run(evaluate_every=1)
    np.testing.assert_array_equal(every["version"], np.arange(21))
    np.testing.assert_array_equal(every["time"], np.append(0, timeline.commit_times))
    sevenths = run(evaluate_every=7)
    np.testing.assert_array_equal(sevenths["version"], [0, 7, 14, 20])
    np.testing.assert_allclose(sevenths["distance"], every["distance"][[0, 7, 14, 20]], rtol=1e-6)
    np.testing.assert_array_equal(run()["version"], [0, 20])

    halfway = float(np.mean(timeline.commit_times[9:11]))
    at = run(evaluate_at=[halfway, halfway / 1e6])
    np.testing.assert_array_equal(at["version"], [0, 0, 10, 20])
    np.testing.assert_allclose(at["time"], [0, halfway / 1e6, halfway, timeline.end_time])
    np.testing.assert_allclose(at["distance"], every["distance"][[0, 0, 10, 20]], rtol=1e-6)


def test_many_evaluations_at_one_moment_fit():
    timeline = make_timeline(3, ao.protocols.synchronous())
    times = np.linspace(0, timeline.end_time, 500)
    result = ao.simulate(
        PROBLEM, ao.optimizers.sgd(0.1), timeline, key=KEY, lanes=1, evaluate_at=times
    )
    assert len(result.evaluations["time"]) == 500
    expected = np.searchsorted(timeline.commit_times, times, side="right")
    np.testing.assert_array_equal(result.evaluations["version"], expected)


def test_records():
    timeline = make_timeline(10)
    result = ao.simulate(
        PROBLEM,
        ao.optimizers.sgd(0.1),
        timeline,
        key=KEY,
        lanes=1,
        record={"first": lambda info: info.update[0], "stale": lambda info: info.staleness},
    )
    np.testing.assert_array_equal(result.arrivals["stale"], timeline.staleness)
    np.testing.assert_array_equal(result.arrivals["staleness"], timeline.staleness)
    np.testing.assert_array_equal(result.arrivals["worker"], timeline.worker)
    np.testing.assert_allclose(4.0 + result.arrivals["first"].sum(), result.params[0], rtol=1e-6)
    assert result.arrivals["loss"].shape == (10,)


def test_time_to_target():
    result = ao.simulate(
        PROBLEM, ao.optimizers.sgd(0.3), make_timeline(), key=KEY, lanes=1, evaluate_every=1
    )
    distance, time = result.evaluations["distance"], result.evaluations["time"]
    expected = time[np.flatnonzero(distance <= 3.0)[0]]
    assert result.time_to("distance", 3.0, below=True) == expected
    assert result.time_to("distance", 1e9) is None
    with pytest.raises(ValueError, match="metric must be one of distance; got 'accuracy'"):
        result.time_to("accuracy", 0.5)


@pytest.mark.parametrize("lanes", [1, 4])
def test_divergence_is_located_and_leaves_finite_tables(lanes):
    result = ao.simulate(
        PROBLEM,
        ao.optimizers.sgd(50.0),
        make_timeline(5000),
        key=KEY,
        lanes=lanes,
        evaluate_every=10,
    )
    diverged = result.diverged
    assert diverged is not None
    assert 0 < diverged.version < 500
    assert np.isfinite(result.arrivals["loss"]).all()
    assert np.isfinite(result.evaluations["distance"]).all()
    assert result.arrivals["time"][-1] < diverged.time
    assert len(result.arrivals["loss"]) < 500
    assert re.match(r"diverged at version \d+, time [\d.e+]+ \((loss|distance) not", str(diverged))


def test_divergence_is_located_whatever_the_chunks(monkeypatch):
    def located():
        result = ao.simulate(
            PROBLEM,
            ao.optimizers.sgd(lambda step: jnp.where(step == 185, jnp.inf, 0.01)),
            make_timeline(600, num_workers=16),
            key=KEY,
            lanes=1,
        )
        return result.diverged

    first = located()
    assert first is not None
    assert 185 < first.version < 260
    for size in (1, 7, 186):
        monkeypatch.setattr(execution, "_FIRST_CHUNK", size)
        monkeypatch.setattr(execution, "_CHUNK_SECONDS", 0.0)
        assert located() == first


def test_other_generators_run_one_by_one():
    key = jax.random.key(0, impl="rbg")
    assert np.isfinite(run_quadratic(key=key, lanes=1).params).all()


def test_parameters_that_break_last_are_noticed():
    # The step overflows at the very last arrival, after every loss was finite; the evaluation
    # cannot tell.
    result = ao.simulate(
        dataclasses.replace(PROBLEM, evaluate=lambda x: {"accuracy": jnp.float32(0.5)}),
        ao.optimizers.sgd(lambda step: jnp.where(step == 39, jnp.inf, 0.01)),
        make_timeline(40),
        key=KEY,
        lanes=1,
    )
    assert result.diverged is not None
    assert (result.diverged.version, result.diverged.sign) == (40, "parameters")
    assert result.evaluations["version"].tolist() == [0]


def test_a_metric_that_is_undefined_ends_no_run():
    def evaluate(x):
        return {"area": jnp.where(x[0] > 2.5, jnp.nan, 1.0), "best": jnp.inf}

    problem = dataclasses.replace(PROBLEM, evaluate=evaluate)
    result = run_quadratic(problem, evaluate_every=5)
    assert result.diverged is None
    assert len(result.evaluations["time"]) == 9
    area = result.evaluations["area"]
    assert np.isnan(area[0])
    assert area[-1] == 1.0
    assert np.isposinf(result.evaluations["best"]).all()


def test_progress_is_called_until_the_end():
    seen = []
    ao.simulate(
        PROBLEM,
        ao.optimizers.sgd(0.1),
        make_timeline(500),
        key=KEY,
        lanes=1,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (500, 500)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len(seen) > 2


def test_a_progress_bar_is_drawn(capsys):
    ao.simulate(PROBLEM, ao.optimizers.sgd(0.1), make_timeline(), key=KEY, lanes=1, progress=True)
    output, drawn = capsys.readouterr()
    assert "40/40" in drawn
    assert output == ""
