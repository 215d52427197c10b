"""Workers that keep a state between their jobs: right, never copied, and wherever a run goes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import async_optax as ao
from async_optax.engine import execution, memory
from async_optax.engine import run as run_module
from async_optax.engine.batch import Batch, cells_mesh
from async_optax.engine.program import run_chunk
from tests.engine import protocols
from tests.engine.keeping_momentum import KeepingMomentum
from tests.engine.problems import (
    make_timeline,
    quadratic_problem,
    run_quadratic,
    softmax_problem,
)
from tests.oracles.replay import SoftmaxRegression

PROBLEM = quadratic_problem()
NOISY = PROBLEM.with_noise(ao.noise.gaussian(0.1))
PROGRAM = KeepingMomentum()
GATHERING = make_timeline(60, ao.protocols.buffered(6))  # workers deliver more than once a commit


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("protocol", "lanes"),
    [
        ("asynchronous", 1),
        ("uniform", 3),
        ("buffered_no_wait", 3),
        ("ringmaster", 1),
        ("token_control", 3),
    ],
)
def test_momentum_at_the_workers_is_momentum_per_worker_at_the_server(protocol, lanes):
    timeline = protocols.make_timeline(protocols.PROTOCOLS[protocol])
    key, problem = jax.random.key(4), softmax_problem(SoftmaxRegression())
    options = {"key": key, "lanes": lanes, "evaluate_every": 5}
    at_server = ao.optimizers.multi_momentum(0.1, num_workers=5, momentum=0.7)
    expected = ao.simulate(problem, at_server, timeline, **options)
    result = ao.simulate(problem, ao.optimizers.sgd(0.1), timeline, worker=PROGRAM, **options)
    np.testing.assert_allclose(result.params, expected.params, rtol=1e-12)
    np.testing.assert_allclose(result.arrivals["loss"], expected.arrivals["loss"], rtol=1e-12)
    np.testing.assert_allclose(
        result.worker_states["velocity"], expected.opt_state[0].trace, rtol=0, atol=1e-12
    )
    # What is not accepted is not computed, and leaves no trace at its worker.
    assert timeline.accepted.all() == (protocol not in ("ringmaster", "token_control"))
    jobs = np.bincount(timeline.worker[timeline.accepted], minlength=5)
    np.testing.assert_array_equal(result.worker_states["jobs"], jobs)
    assert jobs.max() > 3


def test_programs_without_a_state_keep_none():
    result = run_quadratic()
    assert result.worker_states == ()
    assert result.memory.workers == 0
    assert "workers" not in str(result.memory)


def test_a_job_of_no_lane_leaves_its_worker_alone():
    """Waves are cut short by commits: what their other lanes compute must not be kept."""
    timeline = make_timeline(30, num_workers=3)
    assert np.all(timeline.commit)
    one, wide = (run_quadratic(timeline=timeline, worker=PROGRAM, lanes=k) for k in (1, 16))
    np.testing.assert_array_equal(one.worker_states["jobs"], wide.worker_states["jobs"])
    for name, kept in one.worker_states.items():
        np.testing.assert_allclose(kept, wide.worker_states[name], rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("lanes", [1, 3])
def test_gradient_fn_has_the_state_before_the_job(lanes):
    """At the stale parameters it is the update itself, momentum included."""

    def update(updates, state, params=None, *, stale_params, gradient_fn, **extra_args):
        again = gradient_fn(stale_params)
        return jax.tree.map(lambda g, a: -0.1 * g + 1e6 * (g - a), updates, again), state

    same = optax.GradientTransformationExtraArgs(optax.init_empty_state, update)
    options = {"timeline": make_timeline(40), "worker": PROGRAM, "lanes": lanes}
    plain = run_quadratic(NOISY, ao.optimizers.sgd(0.1), **options)
    result = run_quadratic(NOISY, same, **options)
    np.testing.assert_allclose(result.params, plain.params, rtol=1e-8)
    for name, kept in plain.worker_states.items():  # computing it again has changed nothing
        np.testing.assert_allclose(result.worker_states[name], kept, rtol=1e-8, atol=1e-8)


SIZE, MANY = 10_000, 300


@pytest.mark.parametrize(
    ("method", "protocol", "lanes"),
    [
        ("sgd", ao.protocols.asynchronous(), 1),
        ("sgd", ao.protocols.buffered(5), 4),
        ("exact", ao.protocols.asynchronous(), 4),
        ("exact", ao.protocols.buffered(5), 1),
    ],
)
def test_states_are_predicted_and_never_copied(method, protocol, lanes, monkeypatch):
    consumed = []
    execute = run_module.Run.__call__

    def spy(run, lanes, server, chunk):
        after = execute(run, lanes, server, chunk)
        consumed.append(server.workers["velocity"].is_deleted())
        return after

    monkeypatch.setattr(run_module.Run, "__call__", spy)
    optimizer = ao.optimizers.sgd(0.001)
    if method == "exact":  # asks for the job's gradient again, at other parameters
        optimizer = optax.chain(ao.transforms.compensate_delay_exact(), optimizer)
    use = run_quadratic(
        quadratic_problem(SIZE),
        optimizer,
        make_timeline(100, protocol, num_workers=MANY),
        worker=PROGRAM,
        lanes=lanes,
    ).memory
    assert use.workers == MANY * (4 * SIZE + 4)
    assert use.temporaries < 0.15 * use.workers
    assert use.total == use.data + use.params + use.slots + use.temporaries + use.workers
    assert "workers 11.4 MiB" in str(use)
    assert consumed
    assert all(consumed)


def test_states_that_cannot_fit_are_refused(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda device: 10**6)
    with pytest.raises(ValueError, match=r"the run needs .*workers 11.4 MiB.* use fewer workers"):
        run_quadratic(
            quadratic_problem(SIZE),
            timeline=make_timeline(20, ao.protocols.synchronous(), num_workers=MANY),
            worker=PROGRAM,
        )


class _Killed(Exception):
    pass


def _kill_halfway(done, total):
    if done > total // 2:
        raise _Killed


def test_a_run_that_is_killed_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(execution, "_FIRST_CHUNK", 32)
    monkeypatch.setattr(execution, "_CHUNK_SECONDS", 0.0)  # never doubles
    worker = ao.local_steps(2, optax.adam(0.01), 0.01, keep_state=True)
    options = {"problem": NOISY, "timeline": GATHERING, "worker": worker, "lanes": 3}
    expected = run_quadratic(**options)
    checkpoint = ao.Checkpointing(tmp_path, every=0)
    with pytest.raises(_Killed):
        run_quadratic(checkpoint=checkpoint, progress=_kill_halfway, **options)
    afresh = ao.local_steps(2, optax.adam(0.01), 0.01)
    with pytest.raises(ValueError, match="LocalStepsKeepingState there and .*LocalSteps here"):
        run_quadratic(checkpoint=checkpoint, **options | {"worker": afresh})
    started_at = []
    resumed = run_quadratic(
        checkpoint=checkpoint, progress=lambda done, total: started_at.append(done), **options
    )
    assert 0 < started_at[0] < started_at[-1]
    trees = [(r.params, r.opt_state, r.worker_states, r.arrivals) for r in (resumed, expected)]
    jax.tree.map(np.testing.assert_array_equal, *trees)
    assert (resumed.worker_states[0].count == 2 * np.bincount(GATHERING.worker)).all()


@pytest.mark.usefixtures("x64")
def test_devices_share_the_lanes():
    mesh = jax.make_mesh((2,), ("lanes",), devices=jax.devices()[:2])
    options = {"problem": NOISY, "timeline": GATHERING, "worker": PROGRAM}
    alone, shared = run_quadratic(**options), run_quadratic(lanes=4, mesh=mesh, **options)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12),
        (shared.params, shared.worker_states),
        (alone.params, alone.worker_states),
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("strategy", "lanes"), [("loop", 1), ("vmap", 1), ("vmap", 3)])
def test_cells_of_a_batch_equal_single_runs(strategy, lanes):
    rates, keys = (0.05, 0.1, 0.2), [jax.random.key(seed) for seed in range(3)]
    optimizers = [ao.optimizers.sgd(rate) for rate in rates]
    batch = Batch.prepare(
        [NOISY] * 3,
        optimizers,
        GATHERING,
        keys,
        worker=PROGRAM,
        lanes=lanes,
        strategy=strategy,
        mesh=cells_mesh(jax.devices()[:2]) if lanes == 3 else None,
    )
    for optimizer, key, cell in zip(optimizers, keys, batch.execute(), strict=True):
        single = run_quadratic(NOISY, optimizer, GATHERING, key, worker=PROGRAM)
        np.testing.assert_allclose(cell.params, single.params, rtol=1e-12)
        np.testing.assert_allclose(cell.arrivals["loss"], single.arrivals["loss"], rtol=1e-12)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12),
            cell.worker_states,
            single.worker_states,
        )
    devices = 2 if lanes == 3 else 1
    assert cell.memory.workers == (4 // devices if lanes == 3 else 3) * single.memory.workers


def test_a_sweep_has_them_too():
    dataset = ao.sweep(
        NOISY,
        "sgd",
        {"gathering": GATHERING},
        seeds=[0],
        grid={"learning_rate": [0.05, 0.2]},
        worker=PROGRAM,
        evaluate_every=20,
        strategy="loop",
    )
    assert (dataset["status"] == "done").all()
    for rate in (0.05, 0.2):
        single = run_quadratic(
            NOISY, ao.optimizers.sgd(rate), GATHERING, worker=PROGRAM, evaluate_every=20
        )
        cell = dataset["distance"].sel(learning_rate=rate).squeeze()
        np.testing.assert_allclose(cell, single.evaluations["distance"], rtol=1e-5)


@pytest.mark.usefixtures("x64")
def test_streamed_data_change_nothing():
    examples, rows = np.random.default_rng(0).normal(size=(40, 3)), ao.data.uniform_rows(40, 4)
    worker = ao.local_steps(2, optax.adam(0.05), 0.05, keep_state=True)

    def run(batch):
        problem = ao.Problem(lambda key: jnp.zeros(3), _mean_distance, batch)
        return run_quadratic(problem, timeline=GATHERING, worker=worker, lanes=3)

    streamed = run(ao.data.streamed(list(examples), rows, num_threads=1))
    in_memory = run(ao.data.in_memory(jnp.asarray(examples), rows))
    np.testing.assert_allclose(streamed.params, in_memory.params, rtol=1e-10)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12),
        streamed.worker_states,
        in_memory.worker_states,
    )


def _mean_distance(x, batch, key):
    return jnp.mean((batch - x[jnp.newaxis]) ** 2)


def test_numbers_of_a_program_compile_nothing():
    first = run_quadratic(PROBLEM, worker=KeepingMomentum(0.5))
    before = run_chunk._cache_size()
    second = run_quadratic(PROBLEM, worker=KeepingMomentum(0.6))
    assert run_chunk._cache_size() == before
    assert not np.allclose(first.params, second.params)


def test_optimizers_without_a_state_may_be_asked_to_keep_it():
    afresh, kept = (
        run_quadratic(worker=ao.local_steps(2, optax.sgd(0.1), 0.1, keep_state=keep))
        for keep in (False, True)
    )
    np.testing.assert_allclose(kept.params, afresh.params, rtol=1e-6)
    assert jax.tree.leaves(kept.worker_states) == []


@dataclasses.dataclass(frozen=True)
class Program:
    """Any functions as a program that keeps a state."""

    init: object
    call: object

    def __call__(self, problem, params, worker, key, state):
        return self.call(params, state)


def constant(state):
    return lambda problem, params: state


def returning(change):
    return lambda x, state: (x, jnp.float32(0), change(state))


BAD_INPUT = {
    "init fails": (
        Program(lambda problem: 0, returning(lambda s: s)),
        "the worker program's init fails: .*takes 1 positional argument but 2 were given",
    ),
    "no state": (
        Program(constant(0.0), lambda x, state: (x, jnp.float32(0))),
        r"the worker program fails: not enough values to unpack \(expected 3, got 2\)",
    ),
    "shape": (
        Program(lambda problem, x: {"v": jnp.zeros(2)}, returning(lambda s: {"v": jnp.zeros(3)})),
        r"must return state\['v'\] as its init does, float32\[2\], got float32\[3\]",
    ),
    "dtype": (
        Program(lambda problem, x: jnp.int32(0), returning(lambda s: s + 0.5)),
        r"must return state as its init does, int32\[\], got float32\[\]",
    ),
    "structure": (
        Program(lambda problem, x: (x, x), returning(lambda s: s[0])),
        "must return a state of the structure that its init returns, .*, got ",
    ),
    "strings": (
        Program(constant("fast"), returning(lambda s: s)),
        "the worker program's init fails",
    ),
    "keys": (
        Program(lambda problem, x: jax.random.key(0), returning(lambda s: s)),
        "init must return numbers or booleans, got key<fry> at state",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_raises_before_anything_is_compiled(case):
    program, message = BAD_INPUT[case]
    before = run_chunk._cache_size()
    with pytest.raises(ValueError, match=message) as raised:
        run_quadratic(worker=program)
    assert "\n" not in str(raised.value)
    assert run_chunk._cache_size() == before
