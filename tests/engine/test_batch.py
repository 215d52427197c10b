"""Batches: each cell is what a single run gives, and none disturbs another."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

import async_optax as ao
from async_optax.engine.batch import Batch, cells_mesh
from async_optax.engine.batch_program import run_batch
from tests.engine.problems import make_timeline, quadratic_problem

PROBLEM = quadratic_problem()
TIMELINE = make_timeline(60)
RATES = (0.1, 0.2, 50.0)


def run(problems=None, optimizers=None, timeline=TIMELINE, keys=None, **options):
    """Three cells that differ in problem, optimizer and key."""
    problems = problems or [PROBLEM.with_noise(ao.noise.gaussian(s)) for s in (0.5, 1.0, 2.0)]
    optimizers = optimizers or [ao.optimizers.sgd(rate) for rate in RATES]
    keys = keys or [jax.random.key(seed) for seed in range(3)]
    options = {"evaluate_every": 7} | options
    report = options.pop("progress", lambda done, total: None)
    return Batch.prepare(problems, optimizers, timeline, keys, **options).execute(report)


@pytest.mark.parametrize(
    ("strategy", "spread", "lanes"),
    [("loop", False, 1), ("vmap", False, 1), ("loop", True, 1), ("vmap", True, 4)],
)
def test_cells_equal_single_runs(strategy, spread, lanes, x64):
    timeline = make_timeline(400)
    mesh = cells_mesh() if spread else None
    record = ["gradient_norm", "gap"]
    options = {"evaluate_every": 7, "record": record, "lanes": lanes}
    results = run(timeline=timeline, strategy=strategy, mesh=mesh, **options)
    assert len(results) == 3
    for seed, (scale, rate) in enumerate(zip((0.5, 1.0, 2.0), RATES, strict=True)):
        problem = PROBLEM.with_noise(ao.noise.gaussian(scale))
        single = ao.simulate(
            problem, ao.optimizers.sgd(rate), timeline, key=jax.random.key(seed), **options
        )
        cell = results[seed]
        assert cell.diverged == single.diverged
        for table in ("arrivals", "evaluations"):
            found, expected = getattr(cell, table), getattr(single, table)
            assert found.keys() == expected.keys()
            for name in expected:
                np.testing.assert_allclose(found[name], expected[name], rtol=1e-12)
        if single.diverged is None:
            np.testing.assert_allclose(cell.params, single.params, rtol=1e-12)
            assert jax.tree.structure(cell.opt_state) == jax.tree.structure(single.opt_state)
    assert [cell.diverged is None for cell in results] == [True, True, False]


def test_it_stops_early_when_all_have_diverged():
    seen = []
    results = run(
        optimizers=[ao.optimizers.sgd(50.0)] * 3,
        timeline=make_timeline(5000),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert all(cell.diverged for cell in results)
    assert seen[-1][0] < 3 * 2000
    assert seen[-1][1] == 3 * 5000


def test_the_first_report_is_of_nothing_and_the_last_of_all():
    seen = []
    run(progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 180)
    assert seen[1][0] < 180 or len(seen) == 2
    assert run(optimizers=[ao.optimizers.sgd(0.1)] * 3)[0].diverged is None


def test_what_all_cells_share_is_passed_once():
    data = jnp.arange(6.0)

    def problem(factor, data):
        return dataclasses.replace(PROBLEM, batch=Partial(_pick, data, factor))

    keys = [jax.random.key(3)] * 3
    optimizers = [ao.optimizers.clipped_sgd(0.1, max_norm=c) for c in (1.0, 2.0, 3.0)]

    def layout(problems):
        batch = Batch.prepare(problems, optimizers, TIMELINE, keys)
        return [leaf.shape for leaf in batch._own], len(batch._shared)

    # Data, key and rate (in init and update) are shared, as one object or as equal ones.
    shared = [problem(factor, data) for factor in (1.0, 2.0, 3.0)]
    equal = [problem(factor, data + 0.0) for factor in (1.0, 2.0, 3.0)]
    other = [problem(factor, data + factor) for factor in (1.0, 2.0, 3.0)]
    assert layout(shared) == layout(equal) == ([(3,), (3,), (3,)], 4)
    assert layout(other) == ([(3, 6), (3,), (3,), (3,)], 3)


def _pick(data, factor, key, worker):
    del worker
    return factor * data[jax.random.randint(key, (3,), 0, len(data))]


def test_numbers_stay_weakly_typed():
    half = dataclasses.replace(PROBLEM, init=lambda key: jnp.full(3, 4.0, jnp.bfloat16))
    cells = run(problems=[half] * 2, optimizers=[optax.sgd(0.1)] * 2, keys=_keys(2))
    sweepable = [ao.optimizers.sgd(rate) for rate in (0.1, 0.2)]
    cells += run(problems=[half] * 2, optimizers=sweepable, keys=_keys(2))
    assert {cell.params.dtype for cell in cells} == {jnp.dtype("bfloat16")}


def _keys(number):
    return [jax.random.key(seed) for seed in range(number)]


def test_another_batch_of_the_same_structure_compiles_nothing():
    run()
    before = run_batch._cache_size()
    run(
        timeline=make_timeline(90, seed=3),
        optimizers=[ao.optimizers.sgd(rate) for rate in (0.3, 0.4, 0.5)],
        keys=[jax.random.key(seed) for seed in (7, 8, 9)],
    )
    assert run_batch._cache_size() == before


@pytest.mark.parametrize("spread", [False, True])
def test_predicting_memory_lowers_and_compiles_nothing_twice(spread, caplog):
    mesh = cells_mesh() if spread else None
    problem = quadratic_problem(7)  # a shape that no other test has compiled

    def count(seed):
        caplog.clear()
        with jax.log_compiles(), caplog.at_level("WARNING"):
            timeline = make_timeline(60, seed=seed)
            optimizers = [ao.optimizers.sgd(rate) for rate in (0.1, 0.2)]
            Batch.prepare([problem] * 2, optimizers, timeline, _keys(2), mesh=mesh).execute()
        messages = [record.getMessage() for record in caplog.records]
        return [
            sum(text.startswith(f"Finished {what} jit(run_batch)") for text in messages)
            for what in ("jaxpr to MLIR module conversion", "XLA compilation of")
        ]

    assert count(seed=0) == [1, 1]
    assert count(seed=1) == [0, 0]


def test_timing_a_call():
    batch = Batch.prepare([PROBLEM], [ao.optimizers.sgd(0.1)], TIMELINE, _keys(1))
    batch.seconds(1)
    assert 0 < batch.seconds(16) < 1


def test_memory_is_that_of_the_batch():
    def memory(cells):
        optimizers = [ao.optimizers.sgd(0.1)] * cells
        return run(problems=[PROBLEM] * cells, optimizers=optimizers, keys=_keys(cells))[0].memory

    one, four = memory(1), memory(4)
    assert four.slots == 4 * one.slots > 0
    assert four.params == 4 * one.params > 0


BAD_INPUT = {
    "no cells": (
        lambda: Batch.prepare([], [], TIMELINE, []),
        ValueError,
        "problems must not be empty",
    ),
    "numbers of cells": (
        lambda: run(keys=_keys(2)),
        ValueError,
        "problems, optimizers and keys must be as many, got 3, 3 and 2",
    ),
    "structures": (
        lambda: run(
            optimizers=[
                ao.optimizers.sgd(0.1),
                ao.optimizers.sgd(0.1),
                ao.optimizers.clipped_sgd(0.1),
            ]
        ),
        ValueError,
        "cell 2 has another structure or other shapes than cell 0",
    ),
    "shapes": (
        lambda: run(problems=[PROBLEM, quadratic_problem(4)], optimizers=[optax.sgd(0.1)] * 2),
        ValueError,
        "problems, optimizers and keys",
    ),
    "strategy": (lambda: run(strategy="fast"), ValueError, "strategy must be one of loop, vmap"),
    "lanes": (lambda: run(lanes=10**6), ValueError, "lanes must be a finite number <= 2048"),
    "mesh": (
        lambda: run(mesh=jax.make_mesh((1,), ("lanes",))),
        ValueError,
        "mesh must be a mesh with one axis 'cells'",
    ),
    "problem": (lambda: run(problems=[1, 2, 3]), TypeError, "problems must be of async_optax.Prob"),
    "timeline": (lambda: run(timeline=3), TypeError, "timeline must be an async_optax.Timeline"),
    "rbg": (
        lambda: run(keys=[jax.random.key(0, impl="rbg")] * 3, strategy="vmap"),
        ValueError,
        "keys of rbg draw other numbers under vmap: use strategy='loop'",
    ),
    "optimizer that cannot gather": (
        lambda: run(
            optimizers=[optax.sgd(0.1)] * 3, timeline=make_timeline(5, ao.protocols.buffered(3))
        ),
        ValueError,
        "accumulate_until_commit",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_raises_before_anything_is_compiled(case):
    call, error, message = BAD_INPUT[case]
    before = run_batch._cache_size()
    with pytest.raises(error, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)
    assert run_batch._cache_size() == before
