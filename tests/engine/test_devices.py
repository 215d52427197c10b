"""Meshes: devices that share a wave or the cells of a batch change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import async_optax as ao
from async_optax.engine import execution
from async_optax.engine.batch import Batch, cells_mesh
from async_optax.engine.program import run_chunk
from tests.data.sources import Numbered
from tests.engine.problems import make_timeline, quadratic_problem, run_quadratic

PROBLEM = quadratic_problem().with_noise(ao.noise.gaussian(0.3))
TIMELINE = make_timeline(60, ao.protocols.buffered(2), num_workers=6)
RECORD = ("gradient_norm", "gap")


pytestmark = pytest.mark.usefixtures("x64")


def make_mesh(shape, axis_type=AxisType.Auto, first=0):
    """Axes "a" and "b"; ``first`` is the number of its first device."""
    devices = jax.devices()[first : first + int(np.prod(shape))]
    names = ("a", "b")[: len(shape)]
    return jax.make_mesh(shape, names, axis_types=(axis_type,) * len(shape), devices=devices)


def run(**options):
    defaults = {"timeline": TIMELINE, "lanes": 4, "record": RECORD, "evaluate_every": 7}
    return run_quadratic(PROBLEM, **(defaults | options))


@pytest.fixture(scope="module")
def expected():
    with jax.enable_x64(True):
        return run()


def assert_agree(result, expected):
    def agree(a, b, name=""):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12, err_msg=name)

    agree(result.params, expected.params)
    for table in ("arrivals", "evaluations"):
        found, columns = getattr(result, table), getattr(expected, table)
        assert found.keys() == columns.keys()
        for name in columns:
            agree(found[name], columns[name], name)
    assert jax.tree.structure(result.opt_state) == jax.tree.structure(expected.opt_state)


MESHES = {
    "one": lambda: make_mesh((1,)),
    "another one": lambda: make_mesh((1,), AxisType.Explicit, first=3),
    "two, auto": lambda: make_mesh((2,)),
    "two, explicit": lambda: make_mesh((2,), AxisType.Explicit, first=5),
    "two axes": lambda: Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("a", "b")),
}


@pytest.mark.parametrize("case", MESHES)
def test_any_mesh(case, expected):
    mesh = MESHES[case]()
    result = run(mesh=mesh)
    assert_agree(result, expected)
    assert result.lanes.lanes == 4
    for leaf in jax.tree.leaves((result.params, result.opt_state)):
        assert leaf.sharding.is_fully_replicated
        assert leaf.sharding.device_set == set(mesh.devices.flat)
        for shard in leaf.addressable_shards:
            np.testing.assert_array_equal(shard.data, np.asarray(leaf))
    before = run_chunk._cache_size()
    run(mesh=MESHES[case](), key=jax.random.key(1))  # an equal mesh, another seed
    assert run_chunk._cache_size() == before


def test_automatic_lanes_are_a_multiple(expected):
    result = run(mesh=make_mesh((8,)), lanes="auto")
    assert result.lanes.lanes % 8 == 0
    assert set(result.lanes.seconds_per_arrival) >= {8}
    assert_agree(result, expected)


ROWS = ao.data.partition_rows(ao.data.equal_partition(50, 6, seed=0), 4)


def _fitted(x, batch, key):
    return jnp.mean((batch["x"] @ x - batch["y"]) ** 2) / 5000


def test_streams_on_a_mesh():
    def train(batch, **options):
        problem = ao.Problem(lambda key: jnp.zeros(3), _fitted, batch)
        worker = ao.local_steps(2, ao.optimizers.sgd(0.5), 0.5)
        return run_quadratic(problem, timeline=TIMELINE, lanes=4, worker=worker, **options)

    source = Numbered()
    in_memory = train(ao.data.in_memory(source.arrays(), ROWS))
    streamed = train(ao.data.streamed(source, ROWS), mesh=make_mesh((2,)))
    assert_agree(streamed, in_memory)
    assert np.linalg.norm(streamed.params) > 0.1


class _Killed(Exception):
    pass


@pytest.mark.parametrize(("before", "after"), [(None, (2,)), ((2,), None), ((2,), (2, 2))])
def test_a_run_goes_on_on_other_devices(before, after, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(execution, "_FIRST_CHUNK", 16)
    monkeypatch.setattr(execution, "_CHUNK_SECONDS", 0.0)  # never doubles
    checkpoint = ao.Checkpointing(tmp_path, every=0)
    on = {None: None, (2,): make_mesh((2,)), (2, 2): make_mesh((2, 2))}

    def kill(done, total):
        if done > total // 2:
            raise _Killed

    with pytest.raises(_Killed):
        run(mesh=on[before], checkpoint=checkpoint, progress=kill)
    seen = []
    result = run(
        mesh=on[after], checkpoint=checkpoint, progress=lambda done, total: seen.append(done)
    )
    assert 0 < seen[0] < seen[-1]
    assert_agree(result, expected)
    devices = set(on[after].devices.flat) if on[after] else {jax.devices()[0]}
    assert result.params.sharding.device_set == devices


CELLS = 3
RATES = [0.05, 0.1, 0.2]
KEYS = [jax.random.key(seed) for seed in range(CELLS)]


@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_cells_of_a_batch_shared_out(num_devices):
    batch = Batch.prepare(
        [PROBLEM] * CELLS,
        [ao.optimizers.sgd(rate) for rate in RATES],
        TIMELINE,
        KEYS,
        lanes=4,
        record=RECORD,
        evaluate_every=7,
        mesh=cells_mesh(jax.devices()[:num_devices]),
    )
    results = batch.execute()
    assert len(results) == CELLS
    for rate, key, result in zip(RATES, KEYS, results, strict=True):
        assert_agree(result, run(optimizer=ao.optimizers.sgd(rate), key=key))


def test_a_sweep_on_all_devices_equals_threads():
    def sweep(strategy):
        return ao.sweep(
            PROBLEM,
            "sgd",
            timelines=lambda seed: make_timeline(30, seed=seed),
            seeds=[0, 1],
            grid={"learning_rate": [0.05, 0.2]},
            evaluate_every=10,
            strategy=strategy,
        )

    threads, devices = sweep("threads"), sweep("devices")
    assert devices.attrs["strategy"] == "devices"
    assert (devices["status"] == "done").all()
    np.testing.assert_allclose(devices["distance"], threads["distance"], rtol=1e-12)
    np.testing.assert_array_equal(devices["version"], threads["version"])


BAD_INPUT = {
    "number": (lambda: {"mesh": 2}, TypeError, "mesh must be a jax.sharding.Mesh"),
    "devices": (lambda: {"mesh": jax.devices()}, TypeError, "mesh must be a jax.sharding.Mesh"),
    "sharding": (
        lambda: {"mesh": NamedSharding(make_mesh((2,)), PartitionSpec())},
        TypeError,
        "mesh must be a jax.sharding.Mesh",
    ),
    "no devices": (
        lambda: {"mesh": jax.sharding.AbstractMesh((2,), ("a",))},
        TypeError,
        "mesh must be a jax.sharding.Mesh",
    ),
    "manual": (
        lambda: {"mesh": make_mesh((2,), AxisType.Manual)},
        ValueError,
        "mesh must have axes of type Auto or Explicit",
    ),
    "odd lanes": (
        lambda: {"mesh": make_mesh((2,)), "lanes": 3},
        ValueError,
        "lanes must be a multiple of the 2 devices of the mesh, got 3",
    ),
    "too few lanes": (
        lambda: {"mesh": make_mesh((2, 2)), "lanes": 2},
        ValueError,
        "lanes must be a multiple of the 4 devices of the mesh, got 2",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_raises_before_anything_is_compiled(case):
    options, error, message = BAD_INPUT[case]
    before = run_chunk._cache_size()
    with pytest.raises(error, match=message) as raised:
        run(**options())
    assert "\n" not in str(raised.value)
    assert run_chunk._cache_size() == before
