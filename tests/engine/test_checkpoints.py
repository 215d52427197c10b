"""Checkpoints: equal to the bit, kept and refused as asked."""

import os
import pathlib
import re
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import async_optax as ao
from async_optax.engine import checkpoint_files, checkpoints
from async_optax.engine.checkpoints import Checkpointing, CheckpointStore
from tests.conformance import cases

CONFIG = {"seed": "0", "optimizer.learning_rate": "0.1"}


class Server(NamedTuple):
    params: Any
    opt_state: Any
    slots: Any


def store_in(folder, config=CONFIG, **options):
    return CheckpointStore(Checkpointing(folder, **options), config)


def assert_same(restored, saved):
    assert jax.tree.structure(restored) == jax.tree.structure(saved)
    for ours, theirs in zip(jax.tree.leaves(restored), jax.tree.leaves(saved), strict=True):
        assert isinstance(ours, jax.Array) == isinstance(theirs, jax.Array)
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        if jnp.issubdtype(ours.dtype, jax.dtypes.prng_key):
            ours, theirs = jax.random.key_data(ours), jax.random.key_data(theirs)
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()


def random_bits(tree, seed=0):
    """Arrays like those of a tree, of any bits: infinities, NaNs and subnormals included."""
    rng = np.random.default_rng(seed)

    def fill(leaf):
        dtype = np.dtype(leaf.dtype)
        if dtype.kind == "b":
            return jnp.asarray(rng.integers(0, 2, leaf.shape).astype(bool))
        size = int(np.prod(leaf.shape))
        return jnp.asarray(
            np.frombuffer(rng.bytes(size * dtype.itemsize), dtype).reshape(leaf.shape)
        )

    return jax.tree.map(fill, tree)


@pytest.mark.parametrize("name", ao.optimizers.names())
def test_states_of_all_methods_come_back_bit_for_bit(tmp_path, name):
    params = {"w": jnp.zeros((3, 2)), "b": (jnp.zeros(()), None)}
    slots = jax.tree.map(lambda x: jnp.zeros((5, *x.shape)), params)
    state = random_bits(Server(params, cases.make(name).init(params), slots))
    tables = {"records": np.random.default_rng(1).normal(size=(70, 2)), "lanes": np.array(4)}
    with store_in(tmp_path) as store:
        store.save(70, state, tables)
    with store_in(tmp_path) as store:
        position, restored, columns = store.restore(jax.eval_shape(lambda: state))
    assert position == 70
    assert_same(restored, state)
    assert_same(columns, tables)


DTYPES = ("bfloat16", "float16", "float32", "int8", "int32", "uint8", "uint32", "bool", "complex64")


def state_of_all_kinds():
    kinds = {dtype: jax.ShapeDtypeStruct((2, 3), dtype) for dtype in DTYPES}
    kinds["float8_e4m3fn"] = jax.ShapeDtypeStruct((5,), "float8_e4m3fn")
    return {
        "arrays": random_bits(kinds),
        "key": jax.random.key(7),
        "keys": jax.random.split(jax.random.key(7, impl="rbg"), (2, 2)),
        "empty": (jnp.zeros((0, 3), jnp.bfloat16), jax.random.split(jax.random.key(0), 0)),
        "nothing": (None, {}, Server((), [], {})),
        "numpy": np.arange(3.0),
        # Names that are paths, or parts of each other.
        "a/b": jnp.ones(1),
        "a": {"b": jnp.ones(2), "": jnp.ones(3)},
        "a']/0['": jnp.ones(4),
        "ü %2F .. \n": jnp.ones(5),
    }


def test_all_kinds_of_leaves_come_back(tmp_path):
    state = state_of_all_kinds()
    with store_in(tmp_path) as store:
        store.save(1, state, {})
        for like in (state, jax.tree.map(np.copy, state["arrays"])):
            if like is state:
                assert_same(store.restore(like)[1], state)
            else:
                with pytest.raises(ValueError, match=r"is of another state: state\['a'\]"):
                    store.restore(like)


def test_only_empty_arrays(tmp_path):
    with store_in(tmp_path) as store:
        store.save(0, {"w": jnp.zeros((0, 2))}, {"loss": np.zeros(0)})
        position, state, tables = store.restore({"w": jnp.zeros((0, 2))})
    assert (position, state["w"].shape, tables["loss"].dtype) == (0, (0, 2), np.float64)


def test_double_precision(tmp_path, x64):
    state = {"w": random_bits(jnp.zeros(8)), "i": jnp.arange(3)}
    with store_in(tmp_path) as store:
        store.save(1, state, {})
        assert_same(store.restore(state)[1], state)
        like = jax.eval_shape(lambda: state)
        with (
            jax.enable_x64(False),
            pytest.raises(ValueError, match=r"state\['i'\] was saved as int64, which needs jax_en"),
        ):
            store.restore(like)


def test_arrays_come_back_where_they_were(tmp_path):
    device = jax.devices()[0]
    mesh = jax.make_mesh((1,), ("runs",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("runs"))
    state = {
        "anywhere": jnp.ones(2),
        "device": jax.device_put(jnp.ones(2), device),
        "spread": jax.device_put(jnp.ones((2, 3)), spread),
        "keys": jax.device_put(jax.random.split(jax.random.key(0), 2), spread),
    }
    with store_in(tmp_path) as store:
        store.save(1, state, {})
        restored = store.restore(state)[1]
    assert_same(restored, state)
    assert {name: x.committed for name, x in restored.items()} == {
        "anywhere": False,
        "device": True,
        "spread": True,
        "keys": True,
    }
    assert restored["spread"].sharding == restored["keys"].sharding == spread


def test_a_restored_state_may_be_donated(tmp_path):
    state = {"w": jnp.arange(1000.0), "key": jax.random.key(0)}
    step = jax.jit(lambda s: {"w": s["w"] + 1, "key": s["key"]}, donate_argnums=0)
    with store_in(tmp_path) as store:
        store.save(1, state, {})
        for _ in range(2):
            after = step(store.restore(state)[1])
            np.testing.assert_array_equal(after["w"], np.arange(1000.0) + 1)


def test_what_is_not_saved_is_refused(tmp_path):
    with store_in(tmp_path) as store:
        for state, tables, message in [
            (
                {"w": 1.0},
                {},
                r"state\['w'\] must be an array of numbers, booleans or keys.*got 1.0",
            ),
            ({"w": np.array(["a"])}, {}, r"state\['w'\] must be an array of numbers"),
            ({"w": jnp.ones(1)}, {"loss": [None]}, r"tables.loss must be an array of numbers"),
        ]:
            with pytest.raises(TypeError, match=message):
                store.save(1, state, tables)
        with pytest.raises(ValueError, match="position must be an integer >= 0, got -1"):
            store.save(-1, {}, {})
        assert store.restore({}) is None


def test_the_newest_are_kept(tmp_path):
    with store_in(tmp_path, keep=2) as store:
        assert store.restore({"w": jnp.ones(1)}) is None
        for position in (5, 7, 7, 9):
            store.save(position, {"w": jnp.full(1, position)}, {})
            assert store.restore({"w": jnp.ones(1, int)})[0] == position
        assert sorted(os.listdir(tmp_path)) == [".lock", "checkpoint-000003", "checkpoint-000004"]
    with store_in(tmp_path, keep=1) as store:
        store.save(11, {"w": jnp.ones(1)}, {})
    assert sorted(os.listdir(tmp_path)) == [".lock", "checkpoint-000005"]


def test_when_a_save_is_due(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    with store_in(tmp_path / "a", every=10) as store, store_in(tmp_path / "b", every=0) as always:
        assert (store.due(), always.due()) == (False, True)
        now[0] = 110.0
        assert store.due()
        store.save(1, {"w": jnp.ones(1)}, {})
        assert not store.due()
        now[0] = 119.9
        assert not store.due()


def test_checkpointing_is_checked():
    assert Checkpointing(pathlib.Path("a"), every=0, keep=1).keep == 1
    for arguments, error, message in [
        ({"directory": 3}, TypeError, "directory must be the path of a folder, got 3"),
        ({"directory": b"a"}, TypeError, "directory must be the path of a folder, got b'a'"),
        ({"directory": ""}, ValueError, "directory must be the path of a folder, got ''"),
        ({"every": -1.0}, ValueError, "every must be a finite number >= 0, got -1.0"),
        ({"every": float("inf")}, ValueError, "every must be a finite number >= 0, got inf"),
        ({"every": "60"}, TypeError, "every must be a finite number >= 0, got '60'"),
        ({"keep": 0}, ValueError, "keep must be an integer >= 1, got 0"),
        ({"keep": 1.5}, TypeError, "keep must be an integer >= 1, got 1.5"),
    ]:
        with pytest.raises(error, match=re.escape(message)):
            Checkpointing(**({"directory": "a"} | arguments))
    for folder in ("a", pathlib.Path("a")):
        with pytest.raises(TypeError, match=r"Checkpointing, got .*: ao\.Checkpointing\('a'\)$"):
            CheckpointStore(folder, {})
    with pytest.raises(TypeError, match="must be an async_optax.Checkpointing, got 3$"):
        CheckpointStore(3, {})
    with pytest.raises(TypeError, match="config must be a mapping from strings to strings"):
        CheckpointStore(Checkpointing("a"), {"seed": 0})


def test_other_runs_are_refused(tmp_path):
    saved = CONFIG | {"long": "x" * 200 + "saved", "old": "1"}
    with store_in(tmp_path, saved) as store:
        store.save(1, {"w": jnp.ones(1)}, {})
    here = {"seed": "1", "optimizer.learning_rate": "0.1", "long": "x" * 200 + "here", "new": "2"}
    with pytest.raises(ValueError, match="belong to another run") as refusal:
        store_in(tmp_path, here)
    message = str(refusal.value)
    assert "\n" not in message
    assert "learning_rate" not in message
    for part in (
        str(tmp_path),
        "seed is 0 there and 1 here",
        f"long is ...{'x' * 30}saved there and ...{'x' * 30}here here",
        "old is 1 there and absent here",
        "new is absent there and 2 here",
        "Use another folder, or delete this one",
    ):
        assert part in message
    with store_in(tmp_path, saved) as store:  # the refusal has let go of the folder
        assert store.restore({"w": jnp.ones(1)})[0] == 1
        for like, difference in [
            (
                {"w": jnp.ones(2)},
                r"state\['w'\] float32\[1\] is saved where this run has state\['w'\] float32\[2\]",
            ),
            ({"w": jnp.ones(1, int)}, r"float32\[1\] is saved where .* int32\[1\]"),
            ({}, "1 arrays are saved where this run has 0"),
        ]:
            with pytest.raises(ValueError, match=f"is of another state: .*{difference}"):
                store.restore(like)


def test_one_run_per_folder(tmp_path):
    with store_in(tmp_path), pytest.raises(OSError, match="another run is saving checkpoints to"):
        store_in(tmp_path)
    store_in(tmp_path).close()


def test_later_formats_are_refused(tmp_path, monkeypatch):
    with store_in(tmp_path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint_files, "_FORMAT", 2)
            store.save(1, {"w": jnp.ones(1)}, {})
        with pytest.raises(ValueError, match="has format 2, this program reads 1"):
            store.restore({"w": jnp.ones(1)})


def test_orbax_is_an_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ImportError, match=r"pip install 'async_optax\[checkpoint\]'"):
        store_in(tmp_path / "a")
    assert not os.listdir(tmp_path)
