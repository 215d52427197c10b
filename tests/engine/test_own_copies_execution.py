"""Runs whose workers keep copies of their own: however executed, in any dtype, at what cost."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import async_optax as ao
from async_optax.engine import execution
from async_optax.engine.program import run_chunk
from tests.engine.problems import make_timeline, quadratic_problem, softmax_problem
from tests.oracles.replay import SoftmaxRegression

NUM_WORKERS, KEY = 4, jax.random.key(5)
TIMELINE = make_timeline(80, num_workers=NUM_WORKERS)
RING = ao.topologies.ring(NUM_WORKERS)


def simulate(method, **options):
    """One run of a method by its name, in double precision if that is on."""
    problem = softmax_problem(SoftmaxRegression(), ao.noise.gaussian(0.1))
    if method.startswith("ad_psgd"):
        problem = ao.gossip.problem(problem, NUM_WORKERS)
        momentum = 0.8 if method == "ad_psgd momentum" else None
        optimizer = ao.optimizers.ad_psgd(0.4, RING, momentum, seed=3)
        worker, record = ao.gossip.agent_gradient(), {"distance": ao.gossip.consensus_distance}
    else:
        order = "step_first" if method.endswith("step_first") else "exchange_first"
        if method.startswith("easgd"):
            optimizer = ao.optimizers.easgd(0.3, 0.2, order=order)
        else:
            optimizer = ao.optimizers.eamsgd(0.1, 0.2, momentum=0.8, order=order)
        worker, record = ao.gossip.elastic_steps(3), {"distance": ao.gossip.distance_to_centre}
    options = {"lanes": 1, "evaluate_every": 1, "record": record} | options
    return ao.simulate(problem, optimizer, TIMELINE, key=KEY, worker=worker, **options)


METHODS = ("ad_psgd momentum", "easgd", "eamsgd step_first")


class _Stopped(Exception):
    pass


def _stop_halfway(done, total):
    if done > total // 2:
        raise _Stopped


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("method", METHODS)
def test_execution_changes_nothing(method, tmp_path, monkeypatch):
    expected = simulate(method)
    columns = expected.arrivals | expected.evaluations
    mesh = jax.make_mesh((2,), ("lanes",), devices=jax.devices()[:2])
    for options in ({"lanes": 3}, {"lanes": 4, "mesh": mesh}):
        result = simulate(method, **options)
        np.testing.assert_allclose(result.params, expected.params, rtol=0, atol=1e-12)
        for name, column in (result.arrivals | result.evaluations).items():
            np.testing.assert_allclose(column, columns[name], rtol=0, atol=1e-12, err_msg=name)
    monkeypatch.setattr(execution, "_FIRST_CHUNK", 16)
    monkeypatch.setattr(execution, "_CHUNK_SECONDS", 0.0)  # never doubles
    checkpoint = ao.Checkpointing(tmp_path, every=0)
    with pytest.raises(_Stopped):
        simulate(method, checkpoint=checkpoint, progress=_stop_halfway)
    started_at = []
    resumed = simulate(
        method, checkpoint=checkpoint, progress=lambda done, total: started_at.append(done)
    )
    assert 0 < started_at[0] < started_at[-1]
    trees = [(r.params, r.opt_state) for r in (resumed, expected)]
    jax.tree.map(np.testing.assert_array_equal, *trees)
    for name, column in (resumed.arrivals | resumed.evaluations).items():
        np.testing.assert_array_equal(column, columns[name], err_msg=name)


def test_dtypes_of_parameters_are_kept():
    dtype = "bfloat16"
    problem = ao.Problem(
        init=lambda key: {"w": jnp.full(3, 4.0, dtype), "b": jnp.zeros((), jnp.float32)},
        loss=lambda x, batch, key: (
            jnp.sum((x["w"].astype(jnp.float32) - batch) ** 2) / 2 + (x["b"] - 1) ** 2
        ),
        batch=lambda key, worker: 1 + 0.1 * jax.random.normal(key, (3,)),
    )
    runs = [
        (problem, ao.optimizers.eamsgd(0.1, 0.2, 0.5, "step_first"), ao.gossip.elastic_steps(2)),
        (
            ao.gossip.problem(problem, 4),
            ao.optimizers.ad_psgd(0.1, RING, 0.5),
            ao.gossip.agent_gradient(),
        ),
    ]
    for given, optimizer, worker in runs:
        result = ao.simulate(given, optimizer, TIMELINE, key=KEY, worker=worker, lanes=1)
        assert result.params["w"].dtype == dtype
        assert result.params["b"].dtype == jnp.float32
        assert jnp.abs(result.params["w"].astype(jnp.float32) - 1).max() < 0.7
        before = jax.eval_shape(optimizer.init, result.params)
        assert jax.tree.map(jnp.result_type, before) == jax.tree.map(
            jnp.result_type, result.opt_state
        )


def test_sweeps_compile_once():
    problem = ao.gossip.problem(quadratic_problem(), NUM_WORKERS)
    before = run_chunk._cache_size()
    dataset = ao.sweep(
        problem,
        {"ad_psgd": lambda learning_rate: ao.optimizers.ad_psgd(learning_rate, RING)},
        lambda seed: make_timeline(60, num_workers=NUM_WORKERS, seed=seed),
        seeds=range(2),
        grid={"learning_rate": [0.02, 0.1, 0.2]},
        worker=ao.gossip.agent_gradient(),
        evaluate_every=20,
        strategy="threads",
    )
    assert (dataset["status"] == "done").all()
    assert run_chunk._cache_size() - before == 1
    distance = dataset["distance"].isel(evaluation=-1).mean("seed")
    assert float(distance.sel(learning_rate=0.1)[0, 0]) < 0.5 * float(
        distance.sel(learning_rate=0.02)[0, 0]
    )
    assert float(dataset["consensus_distance"].isel(evaluation=-1).min()) > 0
    before = run_chunk._cache_size()
    dataset = ao.sweep(
        quadratic_problem(),
        {"easgd": ao.optimizers.easgd, "eamsgd": ao.optimizers.eamsgd},
        TIMELINE,
        seeds=range(2),
        grid={"learning_rate": [0.05, 0.1], "moving_rate": [0.1, 0.3]},
        worker=ao.gossip.elastic_steps(2),
        strategy="threads",
    )
    assert (dataset["status"] == "done").all()
    assert run_chunk._cache_size() - before == 2  # one program for each method
    final = dataset["distance"].isel(evaluation=-1)
    assert len(np.unique(final)) == final.size


def test_seeds_and_graphs_of_one_degree_share_a_program():
    problem = ao.gossip.problem(quadratic_problem(), NUM_WORKERS)
    options = {"key": KEY, "worker": ao.gossip.agent_gradient(), "lanes": 1}
    other_ring = np.roll(np.eye(4), 1, axis=0)[[0, 2, 1, 3]][:, [0, 2, 1, 3]]
    ends = []
    before = run_chunk._cache_size()
    for graph, seed in ((RING, 0), (RING, 1), (other_ring, 0)):
        optimizer = ao.optimizers.ad_psgd(0.1, graph, seed=seed)
        ends.append(ao.simulate(problem, optimizer, TIMELINE, **options).params)
    assert run_chunk._cache_size() - before == 1
    assert not np.array_equal(ends[0], ends[1])
    assert not np.array_equal(ends[0], ends[2])


def _first_entry(evaluate, params):
    return {"first": params[0, 0]}


@pytest.mark.parametrize(("momentum", "lanes"), [(0.5, 1), (None, 4)])
def test_an_arrival_costs_two_rows_however_many_agents(momentum, lanes):
    """No copy of the stacks: what the program holds beside them does not grow with them."""
    size = 10_000
    temporaries = {}
    for num_agents in (30, 300):
        problem = ao.gossip.problem(quadratic_problem(size), num_agents)
        evaluate = Partial(_first_entry, problem.evaluate.args[-1])  # a mean would see all agents
        result = ao.simulate(
            dataclasses.replace(problem, evaluate=evaluate),
            ao.optimizers.ad_psgd(0.1, ao.topologies.ring(num_agents), momentum),
            make_timeline(400, num_workers=num_agents),
            key=KEY,
            worker=ao.gossip.agent_gradient(),
            lanes=lanes,
        )
        use = result.memory
        stacks = 1 if momentum is None else 2
        assert use.params == pytest.approx(stacks * num_agents * 4 * size, rel=0.01)
        temporaries[num_agents] = use.temporaries
    assert temporaries[300] < 0.1 * use.params
    assert temporaries[300] == pytest.approx(temporaries[30], rel=0.05)


def test_slots_may_be_narrow():
    for dtype in (None, jnp.bfloat16):
        result = ao.simulate(
            quadratic_problem(),
            ao.optimizers.eamsgd(0.1, 0.2, momentum=0.5),
            TIMELINE,
            key=KEY,
            worker=ao.gossip.elastic_steps(2),
            lanes=1,
            slot_dtype=dtype,
        )
        assert jnp.linalg.norm(result.params - 1) < 1.5
