"""Descriptions of runs: equal for equal runs, and each change noticed under a name that says it."""

import dataclasses
import enum
import functools
import json
import logging
import os
import pathlib
import re
import subprocess
import sys
import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

import async_optax as ao
from async_optax.data.loading import Loader
from async_optax.engine.batch import Batch
from async_optax.engine.fingerprint import describe, differences
from async_optax.engine.worker import gradient
from tests.conformance import cases
from tests.engine.problems import make_timeline, quadratic_problem

SCALE = 2.0
TABLE = np.arange(4.0)


def helper(x):
    return SCALE * x


def uses_helper(x):
    return sum(helper(part) for part in x) + TABLE[0]


class Colour(enum.Enum):
    RED = 1


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


class Plain:
    def __init__(self, value):
        self.value = value

    def double(self):
        return 2 * self.value


@dataclasses.dataclass(frozen=True)
class Layer:
    width: int
    rate: float = 0.5

    def __call__(self, x):
        return self.rate * helper(x)


class Pair(NamedTuple):
    first: Any
    second: Any


def traced_digest():
    """Of a run whose functions are traced and never compiled."""
    optimizer = cases.make("async_heavy_tailed")
    key = jax.random.key(0)
    batch = Batch.prepare([quadratic_problem()], [optimizer], make_timeline(), [key])
    return batch.runs[0].traced_digest()


def of_everything():
    """Descriptions of all that a run is made of, as another process would make it."""
    cyclic: list = [1]
    cyclic.append(cyclic)
    node = Plain(3)
    node.myself = node
    parts = {
        "optimizer": cases.make("async_heavy_tailed"),
        "plain_optax": optax.chain(
            optax.clip(1.0), optax.adamw(optax.cosine_decay_schedule(0.1, 10))
        ),
        "mixed": optax.chain(ao.transforms.bi_clip(0.0, 1.0), optax.sgd(0.1)),
        "problem": quadratic_problem(),
        "with_data": ao.Problem(
            init=jax.jit(lambda key: jnp.zeros(4)),
            loss=jax.checkpoint(lambda x, batch, key: jnp.sum(uses_helper(x) * batch)),
            batch=Partial(lambda data, key, worker: data[worker], jnp.arange(12.0)),
            noise=Partial(lambda key, g: g),
        ),
        "timeline": make_timeline(),
        "traced": traced_digest(),
        "key": jax.random.key(3),
        "worker": gradient(),
        "record": {"gap": lambda info: jnp.float32(3), "names": {"loss", "gap", "update"}},
        "constants": lambda x: x in {"one", "two", "three", "four"} or (1, 1.0, b"a", ..., 2j),
        "cyclic": cyclic,
        "node": node,
        "objects": [
            Colour.RED,
            Slotted(1.5),
            Layer(3),
            Pair(None, range(3)),
            pathlib.Path("a") / "b",
            np.dtype("float32"),
            jnp.bfloat16,
            Plain(1).double,
            len,
            functools.partial(max, 3, key=abs),
            logging.getLogger("tests"),
            jax.tree.structure({"a": 1, "b": (2, None)}),
            object(),
            {(1, "a"): 1, frozenset({"x", "y"}): 2, None: 3},
            types.SimpleNamespace(b=1, a="x" * 500),
            list(range(1000)),
            np.array([1, "a", None], object),
            jnp.zeros((2, 0)),
        ],
    }
    return {key: text for name, part in parts.items() for key, text in describe(name, part).items()}


def test_equal_in_every_process_and_without_addresses():
    code = (
        "import json; from tests.engine.test_fingerprint import of_everything; "
        "print(json.dumps(of_everything()))"
    )
    descriptions = []
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            env=os.environ
            | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
            | {"JAX_PLATFORMS": "cpu"},
        )
        for seed in ("1", "2")
    ]
    for child in children:
        output, _ = child.communicate(timeout=120)
        assert child.returncode == 0
        descriptions.append(json.loads(output))
    assert differences(*descriptions) == ""
    text = json.dumps(descriptions[0])
    assert not re.search("0x[0-9a-f]{6}", text)
    assert str(pathlib.Path(__file__).parent) not in text


def test_sweepable_optimizers_are_described_by_their_arguments():
    entries = describe("optimizer", ao.optimizers.clipped_sgd(0.1, max_norm=2))
    assert entries.pop("optimizer").startswith(
        "async_optax.optimizers.gradient_descent.clipped_sgd code "
    )
    assert entries == {"optimizer.learning_rate": "0.1", "optimizer.max_norm": "2.0"}
    entries = describe("o", ao.optimizers.dana(0.1, num_workers=3))
    assert entries["o.num_workers"] == "3"
    halves = ao.optimizers.sgd(0.1), ao.optimizers.sgd(0.2)
    entries = describe("o", optax.GradientTransformation(halves[0].init, halves[1].update))
    assert (entries["o.init.learning_rate"], entries["o.update.learning_rate"]) == ("0.1", "0.2")


def noticed(name, before, after):
    """The entries in which two values differ."""
    before, after = describe(name, before), describe(name, after)
    return {key for key in {*before, *after} if before.get(key) != after.get(key)}


def problem_of(scale=1.0, data=(1.0, 2.0), **functions):
    return ao.Problem(
        **{
            "init": lambda key: jnp.zeros(2),
            "loss": lambda x, batch, key: scale * jnp.sum((x - batch) ** 2),
            "batch": Partial(lambda data, key, worker: data, jnp.asarray(data * 4)),
        }
        | functions
    )


@pytest.mark.parametrize(
    ("before", "after", "names"),
    [
        (ao.optimizers.sgd(0.1), ao.optimizers.sgd(0.2), {".learning_rate"}),
        (ao.optimizers.sgd(0.1), ao.optimizers.sgd(jnp.float32(0.1)), {".learning_rate"}),
        (
            ao.optimizers.staleness_aware_sgd(optax.constant_schedule(0.1)),
            ao.optimizers.staleness_aware_sgd(optax.constant_schedule(0.2)),
            {".learning_rate.value"},
        ),
        (
            ao.optimizers.dana(0.1, num_workers=3),
            ao.optimizers.dana(0.1, num_workers=4),
            {".num_workers"},
        ),
        (
            ao.optimizers.async_heavy_tailed(0.1, weight_fn=ao.weights.polynomial(0.5)),
            ao.optimizers.async_heavy_tailed(0.1, weight_fn=ao.weights.polynomial(1.0)),
            {".weight_fn.power"},
        ),
        (problem_of(scale=1.0), problem_of(scale=2.0), {".loss.scale"}),
        (problem_of(scale=1), problem_of(scale=1.0), {".loss.scale"}),
        (problem_of(data=(1.0, 2.0)), problem_of(data=(1.0, 2.5)), {".batch.args[0]"}),
        (
            problem_of(init=lambda key: jnp.zeros(2)),
            problem_of(init=lambda key: jnp.zeros(3)),
            {".init"},
        ),
        (
            problem_of(init=lambda key: sum(x + 1 for x in range(3))),
            problem_of(init=lambda key: sum(x + 2 for x in range(3))),
            {".init"},
        ),
        (lambda x, y=1: x, lambda x, y=2: x, {".y"}),
        (lambda x, *, y=1: x, lambda x, *, y=2: x, {".y"}),
        (Partial(max, key=abs), Partial(max, key=len), {".key"}),
        (jax.jit(lambda x: x + 1), jax.jit(lambda x: x + 2), {".__wrapped__"}),
        (jax.random.key(0), jax.random.key(1), {""}),
        (np.zeros(9), -np.zeros(9), {""}),
        (np.zeros(9), np.zeros(9, np.float32), {""}),
        (np.zeros((9, 1)), np.zeros((1, 9)), {""}),
        (np.array([1, "a"], object), np.array([1, "b"], object), {".tolist[1]"}),
        ({"a": 1}, {"a": 1, "b": 2}, {"", ".b"}),
        ([*range(1000)], [*range(999), -1], {"[...]"}),
        ({"a", "b"}, {"a", "c"}, {"[1]"}),
        ("x" * 500, "x" * 499 + "y", {""}),
        (Slotted(1), Slotted(2), {".value"}),
        (Plain(1).double, Plain(2).double, {".__self__.value"}),
        (Layer(1), Layer(2), {".width"}),
        (Pair(1, 2), Pair(1, 3), {".second"}),
        (jax.tree.structure((1, 2)), jax.tree.structure([1, 2]), {""}),
        (1, 1.0, {""}),
        (True, 1, {""}),
    ],
)
def test_changes_are_noticed_by_name(before, after, names):
    assert noticed("run", before, before) == set()
    assert noticed("run", before, after) == {f"run{name}" for name in names}


def test_another_protocol_is_another_timeline():
    names = noticed("timeline", make_timeline(), make_timeline(protocol=ao.protocols.rennala(3)))
    assert {"timeline.worker", "timeline.commit", "timeline.time"} <= names
    assert all(name.startswith("timeline.") for name in names)


def test_what_a_users_functions_call_is_seen(monkeypatch):
    before = describe("loss", uses_helper)
    assert before["loss.helper.SCALE"] == "2.0"
    for name, value, changed in [
        ("SCALE", 3.0, {"loss.helper.SCALE"}),
        ("TABLE", TABLE + 1, {"loss.TABLE"}),
        ("helper", lambda x: SCALE * x + 1, {"loss.helper"}),
    ]:
        with monkeypatch.context() as patch:
            patch.setitem(globals(), name, value)
            after = describe("loss", uses_helper)
            assert {key for key in before if before[key] != after.get(key)} == changed
    assert describe("layer", Layer(1))["layer.__call__.helper.SCALE"] == "2.0"
    # Through a module of the user's, too.
    module = types.ModuleType("model")
    module.__file__ = "model.py"
    module.forward = lambda x: x + 1
    loss = types.FunctionType(
        (lambda x: model.forward(x)).__code__,  # noqa: F821
        {"model": module},
    )
    before = describe("loss", loss)
    module.forward = lambda x: x + 2
    assert differences(before, describe("loss", loss)).startswith("loss.model.forward is ")


def test_attributes_of_modules_are_seen_however_deep(monkeypatch):
    package, settings = types.ModuleType("package"), types.ModuleType("package.settings")
    package.__path__, settings.__file__ = ["package"], "package/settings.py"
    package.settings = settings
    monkeypatch.setitem(sys.modules, "package.settings", settings)

    def imports(x):
        from package.settings import SCALE

        return SCALE * x

    captures = lambda x: package.settings.SCALE * x  # noqa: E731
    names = types.FunctionType(
        (lambda x: package_of_a_user.settings.SCALE * x).__code__,  # noqa: F821
        {"package_of_a_user": package},
    )
    for function, entry in (
        (imports, "f.package.settings.SCALE"),
        (captures, "f.package.settings.SCALE"),
        (names, "f.package_of_a_user.settings.SCALE"),
    ):
        for value in (1.0, 2.0):
            settings.SCALE = value
            assert describe("f", function)[entry] == str(value)


class Settings:
    scale = 1.0
    own = "of the class"

    def __init__(self):
        self.own = "of the object"

    def __call__(self, x):
        return self.scale * x


def test_data_of_classes_and_of_what_is_cached_is_seen(monkeypatch):
    def parts(scale):
        cached = functools.lru_cache(lambda: scale)
        monkeypatch.setattr(Settings, "scale", scale)
        return describe("f", [lambda x: Settings.scale * x, Settings(), lambda x: cached() * x])

    before, after = parts(1.0), parts(2.0)
    assert before["f[1].own"] == "'of the object'"
    assert "f[1].own'" not in before
    changed = {name for name in before if before[name] != after.get(name)}
    assert changed == {"f[0].Settings.scale", "f[2].cached.__wrapped__.scale"}
    alone = describe("f", Settings())
    assert (alone["f.scale"], alone["f.own"]) == ("2.0", "'of the object'")


def test_where_code_stands_does_not_matter():
    source = "def loss(x):\n    return [y * 2.5 for y in x]\n"
    functions = []
    for name, text in (("a.py", source), ("b.py", "\n\n# moved\n" + source)):
        namespace: dict = {"__name__": "user"}
        exec(compile(text, name, "exec"), namespace)
        functions.append(namespace["loss"])
    assert describe("loss", functions[0]) == describe("loss", functions[1])


def test_sharing_of_equal_containers_does_not_matter():
    shared = [1, 2]
    assert describe("x", [shared, shared]) == describe("x", [[1, 2], [1, 2]])


def test_names_are_never_taken_twice():
    value = types.SimpleNamespace(**{"a": types.SimpleNamespace(b=1), "a.b": 2})
    entries = describe("x", value)
    assert (entries["x.a.b"], entries["x.a.b'"]) == ("1", "2")


def test_bad_input():
    with pytest.raises(TypeError, match="name must be a string, got 3"):
        describe(3, 1)
    with pytest.raises(TypeError, match=r"x\[0\] must be concrete to be described"):
        jax.jit(lambda x: describe("x", [x]))(1.0)


def test_threads_of_a_source_are_not_described():
    source = [{"x": 1.0}, {"x": 2.0}]
    assert noticed("batch", Loader(source, num_threads=1), Loader(source, num_threads=2)) == set()
    other = [{"x": 1.0}, {"x": 3.0}]
    assert noticed("batch", Loader(source), Loader(other)) == {"batch.source[1].x"}
