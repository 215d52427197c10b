"""What a pipeline must equal: ordinary training without delays, itself however it is executed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import async_optax as ao
from async_optax import transforms
from async_optax.engine import execution
from async_optax.engine.program import run_chunk
from async_optax.optimizers import pipelines
from tests.engine.pipeline.oracle import NUM_STAGES, network_problem

KEY, RATE = jax.random.key(1), 0.05
NO_DELAYS = (0,) * NUM_STAGES
STASH = pipelines.nesterov_pipeline(RATE)
NO_STASH = pipelines.nesterov_pipeline_no_stash(RATE, annealing_steps=10)


def run(optimizer, problem=None, num_updates=20, timeline=None, **options):
    return ao.simulate(
        network_problem() if problem is None else problem,
        optimizer,
        timeline or ao.pipeline.timeline(NUM_STAGES, num_updates),
        key=KEY,
        **({"worker": ao.pipeline.gradient(), "lanes": 1} | options),
    )


def assert_identical(result, expected):
    for table in ("arrivals", "evaluations"):
        columns = getattr(expected, table)
        assert set(getattr(result, table)) == set(columns)
        for name, column in columns.items():
            np.testing.assert_array_equal(getattr(result, table)[name], column)
    jax.tree.map(np.testing.assert_array_equal, result.params, expected.params)


WITHOUT_DELAYS = {
    "pipedream": pipelines.pipedream(RATE, delays=NO_DELAYS),
    "pipemare": pipelines.pipemare(RATE, 10, delays=NO_DELAYS),
    "weight_prediction": pipelines.weight_prediction(RATE, delays=NO_DELAYS),
    "weight_prediction, no stash": pipelines.weight_prediction(RATE, stash=False, delays=NO_DELAYS),
    "stage_momentum, Adam": pipelines.stage_momentum(RATE, nesterov=False, delays=NO_DELAYS),
    "stage_momentum": pipelines.stage_momentum(RATE, delays=NO_DELAYS),
    "nesterov_pipeline": pipelines.nesterov_pipeline(RATE, b1=0.9, delays=NO_DELAYS),
    "nesterov_pipeline_no_stash": pipelines.nesterov_pipeline_no_stash(RATE, 10, delays=NO_DELAYS),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", WITHOUT_DELAYS)
def test_without_delays_it_is_ordinary_training(case):
    nesterov = "nesterov" in case or case == "stage_momentum"
    ordinary = ao.optimizers.nadam_delayed(RATE, b1=0.9) if nesterov else pipelines.gpipe(RATE)
    one_worker = ao.simulate_timeline(
        ao.protocols.asynchronous(), ao.runtimes.deterministic(), 1, num_commits=20
    )
    expected = run(ordinary, timeline=one_worker, worker=ao.gradient())
    result = run(WITHOUT_DELAYS[case])
    np.testing.assert_allclose(
        result.arrivals["loss"], expected.arrivals["loss"], rtol=0, atol=1e-13
    )
    for ours, theirs in zip(result.params, expected.params, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-13)


@pytest.mark.usefixtures("x64")
def test_gpipe_is_adamw_by_hand():
    problem, tx = network_problem(), optax.adamw(RATE, weight_decay=0.01)
    init_key, job_key = jax.random.split(KEY)
    params = problem.init(init_key)

    @jax.jit
    def step(params, state, job):
        g, _ = ao.gradient()(problem, params, 0, jax.random.fold_in(job_key, job))
        updates, state = tx.update(g, state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for job in range(20):
        params, state = step(params, state, job)
    timeline = ao.pipeline.timeline(NUM_STAGES, 20, synchronous=True)
    result = run(pipelines.gpipe(RATE), timeline=timeline)
    for ours, theirs in zip(result.params, params, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-13)


@pytest.mark.usefixtures("x64")
def test_one_stage_has_no_delay():
    whole = ao.pipeline.problem(
        [ao.pipeline.Stage(lambda key: jnp.ones(3), lambda w, x, key: w * x)],
        lambda y, batch: jnp.sum((y - 2) ** 2),
        lambda key, worker: jax.random.normal(key, (3,)),
    )
    timeline = ao.pipeline.timeline(1, 20)
    np.testing.assert_array_equal(timeline.commit_times, np.arange(1.0, 21.0))
    results = [
        run(optimizer, whole, timeline=timeline)
        for optimizer in (pipelines.gpipe(RATE), pipelines.pipedream(RATE))
    ]
    np.testing.assert_allclose(results[1].params[0], results[0].params[0], rtol=0, atol=1e-14)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("optimizer", [STASH, NO_STASH])
def test_the_engine_equals_a_loop_by_hand(optimizer):
    problem, program = network_problem(), ao.pipeline.gradient()
    init_key, job_key = jax.random.split(KEY)
    params = problem.init(init_key)

    @jax.jit
    def step(params, state, job):
        served = transforms.served_params(params, state)
        g, loss = program(problem, served, 0, jax.random.fold_in(job_key, job))
        updates, state = optimizer.update(g, state, params)
        return optax.apply_updates(params, updates), state, loss

    state, losses = optimizer.init(params), []
    for job in range(20):
        params, state, loss = step(params, state, job)
        losses.append(loss)
    result = run(optimizer)
    np.testing.assert_allclose(result.arrivals["loss"], losses, rtol=0, atol=1e-13)
    for ours, theirs in zip(result.params, params, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-13)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("optimizer", "synchronous"), [(NO_STASH, False), (pipelines.gpipe(RATE), True)]
)
def test_lanes_do_not_matter(optimizer, synchronous):
    timeline = ao.pipeline.timeline(NUM_STAGES, 8, num_micro_batches=4, synchronous=synchronous)
    narrow, wide = (run(optimizer, timeline=timeline, lanes=lanes) for lanes in (1, 4))
    assert narrow.num_slots == wide.num_slots == 1
    np.testing.assert_allclose(wide.arrivals["loss"], narrow.arrivals["loss"], rtol=0, atol=1e-12)
    for ours, theirs in zip(wide.params, narrow.params, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_micro_batches_are_the_batch_in_parts():
    """GPipe's mean over micro-batches is the mean over the whole batch."""
    features = jnp.asarray(np.random.default_rng(0).normal(size=(12, 3)))

    def problem(num_parts):
        size = len(features) // num_parts
        return ao.pipeline.problem(
            [ao.pipeline.Stage(lambda key: jnp.ones(3), lambda w, x, key: jnp.tanh(x * w[None]))],
            lambda y, batch: jnp.mean(y**2),
            lambda key, worker: features[:size] if num_parts == 1 else next_part(key, size),
        )

    def next_part(key, size):
        # Each job of an update takes the part of its number.
        _, job_key = jax.random.split(KEY)
        jobs = jnp.stack(
            [
                jax.random.key_data(jax.random.split(jax.random.fold_in(job_key, j), 3)[0])
                for j in range(3)
            ]
        )
        part = jnp.argmax(jnp.all(jobs == jax.random.key_data(key)[None], axis=1))
        return jax.lax.dynamic_slice_in_dim(features, part * size, size)

    sizes = {"num_stages": 1, "num_updates": 1, "num_micro_batches": 3, "synchronous": True}
    tx = transforms.accumulate_until_commit(optax.sgd(0.1))
    whole = run(tx, problem(1), timeline=ao.pipeline.timeline(**sizes, whole_batches=True))
    parts = run(tx, problem(3), timeline=ao.pipeline.timeline(**sizes))
    np.testing.assert_allclose(parts.params[0], whole.params[0], rtol=0, atol=1e-15)
    assert len(parts.arrivals["loss"]) == 3
    assert np.ptp(parts.arrivals["loss"]) > 1e-3


@pytest.mark.parametrize("optimizer", [STASH, NO_STASH])
def test_dtypes_are_kept(optimizer):
    losses = {}
    for dtype in ("float32", "bfloat16"):
        result = run(optimizer, network_problem(dtype=dtype), record={"gap": ao.pipeline.gap})
        assert {x.dtype for x in result.params} == {jnp.dtype(dtype)}
        expected = jax.eval_shape(optimizer.init, result.params)
        jax.tree.map(lambda x, y: assert_same_type(x, y), result.opt_state, expected)
        losses[dtype] = result.arrivals["loss"]
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.15)
    assert not np.allclose(losses["bfloat16"], losses["float32"], rtol=1e-4)


def assert_same_type(x, y):
    assert (x.shape, x.dtype) == (y.shape, y.dtype)


class _Stopped(Exception):
    pass


@pytest.mark.parametrize("optimizer", [STASH, NO_STASH])
def test_a_run_that_stopped_goes_on_bit_for_bit(optimizer, tmp_path, monkeypatch):
    monkeypatch.setattr(execution, "_FIRST_CHUNK", 32)
    monkeypatch.setattr(execution, "_CHUNK_SECONDS", 0.0)  # never doubles
    options = {"num_updates": 130, "evaluate_every": 7, "record": {"gap": ao.pipeline.gap}}
    expected = run(optimizer, **options)
    checkpoint = ao.Checkpointing(tmp_path, every=0)

    def stop(done, total):
        if done >= 64:
            raise _Stopped

    with pytest.raises(_Stopped):
        run(optimizer, checkpoint=checkpoint, progress=stop, **options)
    reports = []
    resumed = run(
        optimizer, checkpoint=checkpoint, progress=lambda done, _: reports.append(done), **options
    )
    assert reports[0] > 0
    assert_identical(resumed, expected)
    jax.tree.map(np.testing.assert_array_equal, resumed.opt_state, expected.opt_state)


def test_a_sweep_over_methods_and_rates_is_their_runs():
    problem = network_problem()
    methods = {
        "pipedream": pipelines.pipedream,
        "nesterov": pipelines.nesterov_pipeline,
        "no stash": lambda learning_rate: pipelines.nesterov_pipeline_no_stash(learning_rate, 10),
    }
    rates = [0.01, 0.05]
    dataset = ao.sweep(
        problem,
        methods,
        ao.pipeline.timeline(NUM_STAGES, 30),
        seeds=range(2),
        grid={"learning_rate": rates},
        worker=ao.pipeline.gradient(),
        evaluate_every=10,
    )
    assert (dataset["status"] == "done").all()
    for name, make in methods.items():
        for rate in rates:
            single = ao.simulate(
                problem,
                make(rate),
                ao.pipeline.timeline(NUM_STAGES, 30),
                key=jax.random.key(1),
                worker=ao.pipeline.gradient(),
                lanes=1,
                evaluate_every=10,
            )
            cell = dataset.sel(optimizer=name, learning_rate=rate, seed=1)
            np.testing.assert_allclose(
                cell["norm0"].values.ravel(), single.evaluations["norm0"], rtol=1e-5
            )


def test_numbers_compile_nothing():
    run(pipelines.pipemare(0.1, annealing_steps=10))
    before = run_chunk._cache_size()
    run(pipelines.pipemare(0.01, annealing_steps=1000, weight_decay=0.1), num_updates=31)
    assert run_chunk._cache_size() == before
    run(pipelines.pipemare(0.01, annealing_steps=1000, stash=True))
    assert run_chunk._cache_size() == before + 1


def test_records_of_the_server_engine():
    result = run(STASH, record=("gap", "gradient_norm", "update_norm"))
    gap = result.arrivals["gap"]
    assert gap[0] == 0
    assert (gap[1:] > 0).all()
    np.testing.assert_array_equal(gap, run(STASH, record={"g": ao.pipeline.gap}).arrivals["g"])
    np.testing.assert_array_equal(result.arrivals["staleness"], 0)


def test_narrow_slots_round_what_is_served():
    narrow = run(STASH, slot_dtype=jnp.bfloat16).arrivals["loss"]
    wide = run(STASH).arrivals["loss"]
    np.testing.assert_allclose(narrow, wide, rtol=0.1)
    assert not np.allclose(narrow, wide, rtol=1e-5)
