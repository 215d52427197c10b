"""Memory of a run: predicted part by part, slots never copied, what cannot fit refused."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import async_optax as ao
from async_optax.engine import memory
from async_optax.engine import run as run_module
from async_optax.engine.batch import Batch
from async_optax.engine.memory import MemoryUse
from async_optax.engine.program import run_chunk
from async_optax.engine.run import narrowed
from tests.engine.problems import make_timeline, quadratic_problem, run_quadratic

SIZE = 10_000
MANY = make_timeline(400, num_workers=300)
FEW = make_timeline(400, num_workers=30)
PROBLEM = quadratic_problem(SIZE)
SMALL = quadratic_problem()


def num_bytes(tree):
    return sum(x.nbytes for x in jax.tree.leaves(tree))


def two_devices():
    return jax.make_mesh((2,), ("lanes",), devices=jax.devices()[:2])


def _init_mixed(key):
    return {"w": jnp.ones((50, 20)), "b": jnp.ones(30, jnp.bfloat16)}


def _mixed_loss(params, batch, key):
    return jnp.sum(params["w"] ** 2) * batch[0, 0] + jnp.sum(params["b"].astype(jnp.float32))


def _some_rows(data, key, worker):
    return data[jax.random.randint(key, (4,), 0, len(data))]


def test_parts_of_a_model_of_known_size():
    data = jnp.ones((5000, 50))
    problem = ao.Problem(_init_mixed, _mixed_loss, Partial(_some_rows, data))
    timeline = make_timeline(30, num_workers=6)
    optimizer = ao.optimizers.multi_momentum(0.01, num_workers=6)
    result = run_quadratic(problem, optimizer, timeline)
    use = result.memory
    num_params = 4 * 50 * 20 + 2 * 30
    assert num_bytes(result.params) == num_params
    assert use.params == num_params + num_bytes(result.opt_state)
    assert use.slots == 7 * num_params  # one row per worker, and one
    assert data.nbytes < use.data < data.nbytes + 200_000  # beside it the arrivals of one call
    assert use.temporaries > 0
    assert use.total == use.data + use.params + use.slots + use.temporaries
    assert str(use).startswith(f"{use.total / 2**20:.3g} MiB (data ")


@pytest.mark.parametrize(
    ("method", "lanes"),
    [("sgd", 1), ("sgd", 4), ("dc_asgd", 1), ("dana_dc", 1), ("dana_dc", 4), ("dana", 1)],
)
def test_slots_and_states_of_workers_are_never_copied(method, lanes, monkeypatch):
    options = {"num_workers": 300} if method.startswith("dana") else {}
    optimizer = ao.optimizers.make(method, learning_rate=0.1, **options)
    consumed = []
    execute = run_module.Run.__call__

    def spy(run, lanes, server, chunk):
        after = execute(run, lanes, server, chunk)
        consumed.append(server.slots.is_deleted())
        return after

    monkeypatch.setattr(run_module.Run, "__call__", spy)
    many = run_quadratic(PROBLEM, optimizer, timeline=MANY, lanes=lanes)
    assert many.num_slots > 100
    assert many.memory.slots == 301 * 4 * SIZE
    assert many.memory.temporaries < 0.1 * many.memory.slots
    assert consumed
    assert all(consumed)
    if (method, lanes) == ("sgd", 1):
        few = run_quadratic(PROBLEM, timeline=FEW)
        assert few.memory.slots == 31 * 4 * SIZE
        assert many.memory.temporaries == pytest.approx(few.memory.temporaries, rel=0.01)


@pytest.mark.parametrize("method", ["sgd", "dana"])
def test_cells_in_turn_copy_no_more_than_one_server(method):
    options = {"num_workers": 300} if method == "dana" else {}
    makers = [ao.optimizers.make(method, learning_rate=rate, **options) for rate in (0.1, 0.2)] * 2
    keys = [jax.random.key(seed) for seed in range(4)]
    use = Batch.prepare([PROBLEM] * 4, makers, MANY, keys, strategy="loop").memory
    one = (use.slots + use.params) / 4
    assert use.slots > 4 * 250 * 4 * SIZE
    assert one < use.temporaries < 1.1 * one  # not of all four


def test_all_cells_of_a_batch_may_waste_no_more_than_one_run(monkeypatch):
    def num_rows(num_cells):
        optimizers = [ao.optimizers.sgd(0.1)] * num_cells
        keys = [jax.random.key(0)] * num_cells
        batch = Batch.prepare([PROBLEM] * num_cells, optimizers, FEW, keys)
        return len(batch.runs[0].server_shapes.slots), batch.runs[0].plan.num_rows

    padded, needed = num_rows(1)
    assert (padded, needed < 31) == (31, True)
    monkeypatch.setattr(run_module, "_SPARE_BYTES", 2 * (31 - needed) * 4 * SIZE)
    assert [num_rows(cells)[0] for cells in (1, 2, 3)] == [31, 31, needed]


def test_only_parameters_are_narrowed():
    served = {"x": jnp.ones(2), "rate": jnp.float32(0.1), "n": jnp.arange(3), "step": jnp.int32(1)}
    served |= {"half": jnp.ones(2, jnp.float16)}
    narrow = narrowed(served, jnp.dtype(jnp.bfloat16))
    kept = {name: x.dtype for name, x in served.items()}
    assert {name: x.dtype for name, x in narrow.items()} == kept | {"x": jnp.bfloat16}
    assert narrowed(served, None) is served


def test_narrow_slots_take_half_and_a_run_still_trains():
    def entry(name):
        return lambda info: getattr(info, name)[0]

    record = {name: entry(name) for name in ("params", "stale_params")}

    def run(**options):
        return run_quadratic(PROBLEM, ao.optimizers.sgd(0.01), FEW, record=record, **options)

    full, half = run(), run(slot_dtype=jnp.bfloat16)
    assert 2 * half.memory.slots == full.memory.slots
    assert half.memory.params == full.memory.params
    distance = half.evaluations["distance"]
    assert distance[-1] < 0.3 * distance[0]
    np.testing.assert_allclose(distance, full.evaluations["distance"], rtol=0.05)
    assert not np.array_equal(half.params, full.params)

    def rounded(column):
        return column.astype(jnp.bfloat16).astype(np.float64)

    read = half.arrivals["stale_params"]
    np.testing.assert_array_equal(read, rounded(read))
    for column in (half.arrivals["params"], full.arrivals["stale_params"]):
        assert not np.array_equal(column, rounded(column))


@pytest.mark.parametrize("slot_dtype", ["float32", "float64", float])
def test_slots_are_never_wider_than_the_parameters(slot_dtype):
    plain = run_quadratic(SMALL)
    before = run_chunk._cache_size()
    result = run_quadratic(SMALL, slot_dtype=slot_dtype)
    assert run_chunk._cache_size() == before
    assert result.memory == plain.memory
    np.testing.assert_array_equal(result.params, plain.params)


@pytest.fixture
def _no_program(monkeypatch):
    """Neither compiling nor calling the program is possible."""
    monkeypatch.setattr(run_module, "run_chunk", None)


def run_huge(**options):
    """A model of 1e12 parameters, which must never be made."""

    def init(key):
        x = jnp.full((10**6, 10**6), 4.0)
        assert isinstance(x, jax.core.Tracer)
        return x

    problem = ao.Problem(
        init=init,
        loss=lambda x, batch, key: jnp.sum(x) * batch,
        batch=lambda key, worker: jax.random.uniform(key),
    )
    return run_quadratic(problem, timeline=make_timeline(20, num_workers=6), **options)


@pytest.mark.usefixtures("_no_program")
@pytest.mark.parametrize("spread", [False, True])
def test_a_model_that_cannot_fit_is_refused_by_its_shapes(spread):
    options = {"lanes": "auto", "mesh": two_devices()} if spread else {"lanes": "auto"}
    with pytest.raises(ValueError, match="the run needs") as refused:
        run_huge(**options)
    message = str(refused.value)
    assert "\n" not in message
    for part in (
        "params 7.28 TiB",
        "slots 21.8 TiB",
        "slots hold 6 versions",
        "use fewer workers, slot_dtype=jnp.bfloat16, fewer lanes, a smaller model",
    ):
        assert part in message
    with pytest.raises(ValueError, match="slots 10.9 TiB"):
        run_huge(**options, slot_dtype=jnp.bfloat16)


def test_a_batch_that_cannot_fit_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda device: 200)
    problems = [SMALL] * 3
    optimizers = [ao.optimizers.sgd(0.1)] * 3
    keys = [jax.random.key(seed) for seed in range(3)]
    with pytest.raises(ValueError, match="the run needs .* has 200 B left: slots hold 15 ver"):
        Batch.prepare(problems, optimizers, make_timeline(), keys).execute()


@pytest.mark.parametrize("spread", [False, True])
def test_the_limit_is_the_total(spread, monkeypatch):
    options = {"lanes": 2, "mesh": two_devices()} if spread else {}
    use = run_quadratic(SMALL, **options).memory
    devices = []

    def available(num_bytes):
        def of(device):
            devices.append(device)
            return num_bytes

        monkeypatch.setattr(memory, "available_bytes", of)

    total = (2 if spread else 1) * use.total  # the devices of a CPU share its memory
    available(total)
    assert run_quadratic(SMALL, **options).memory == use
    available(total - 1)
    made = []
    monkeypatch.setattr(run_module.Run, "initial_server", made.append)
    with pytest.raises(ValueError, match=r"the run needs .*temporaries [\d.]+ KiB"):
        run_quadratic(SMALL, **options)
    assert not made  # nothing was allocated
    assert set(devices) == {jax.devices()[0]}


def test_what_a_device_has_left(monkeypatch):
    def device(platform, stats):
        return types.SimpleNamespace(platform=platform, memory_stats=lambda: stats)

    available = memory.available_bytes
    assert available(device("gpu", {"bytes_limit": 100, "bytes_in_use": 30})) == 70
    assert available(device("tpu", {"bytes_limit": 100})) == 100
    assert available(device("gpu", {})) is None
    assert 1 << 20 < available(jax.devices("cpu")[0]) < 1 << 50
    for host, group, left in ((5, 3, 3), (5, None, 5), (None, 3, 3), (None, None, None)):
        monkeypatch.setattr(memory, "_host_bytes", lambda host=host: host)
        monkeypatch.setattr(memory, "_control_group_bytes", lambda group=group: group)
        assert available(device("cpu", None)) == left
    unknown = device("gpu", None)
    memory.require_memory(MemoryUse(1, 1, 1, 10**18), unknown, num_rows=1)  # nobody knows


def test_sizes_are_readable():
    use = MemoryUse(data=0, params=1023, slots=3 << 20, temporaries=5 << 30)
    assert str(use) == "5 GiB (data 0 B, params 1023 B, slots 3 MiB, temporaries 5 GiB)"
    assert dataclasses.replace(use, temporaries=0).total == 1023 + (3 << 20)


@pytest.mark.parametrize(
    ("slot_dtype", "error"),
    [
        ("int8", ValueError),
        (jnp.complex64, ValueError),
        (bool, ValueError),
        ("abc", TypeError),
        (3, TypeError),
    ],
)
@pytest.mark.usefixtures("_no_program")
def test_slots_are_floating_point(slot_dtype, error):
    with pytest.raises(error, match="slot_dtype must be a floating-point dtype, got") as refused:
        run_quadratic(slot_dtype=slot_dtype)
    assert "\n" not in str(refused.value)
