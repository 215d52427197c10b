"""Functions that depend on more than their arguments are refused by name, others accepted."""

import dataclasses
import itertools
import random

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback
from jax.tree_util import Partial

import async_optax as ao
from async_optax.engine import checks
from async_optax.engine import run as run_module
from async_optax.engine.checks import check_functions
from async_optax.engine.record import resolve
from tests.engine.problems import quadratic_problem, run_quadratic

BIG = np.random.default_rng(0).normal(size=(5000, 3))
ON_DEVICE = jnp.asarray(BIG[:100])
HOLES = np.full((5, 3), np.nan)
NARROW = np.asarray(ON_DEVICE[:5].astype(jnp.bfloat16))
CAPTURED_KEY = jax.random.key(7)
SCALAR = jax.ShapeDtypeStruct((), jnp.float32)


PROBLEM = quadratic_problem()
SGD = ao.optimizers.sgd(0.1)


def problem(**changes):
    return dataclasses.replace(PROBLEM, **changes)


def check(**changes):
    """What a run checks of a problem, from the start."""
    check_functions(problem(**changes), SGD, ao.gradient(), resolve(()))


def from_iterator(values):
    remaining = itertools.cycle(values)
    return lambda *args: next(remaining)


def drawn(generator):
    return lambda key, worker: jnp.full(3, generator())


def from_key_iterator():
    keys = from_iterator(list(jax.random.split(jax.random.key(0), 8)))
    return lambda key, worker: jax.random.normal(keys(), (3,))


def counting_loss():
    count = itertools.count(1)
    return lambda x, batch, key: next(count) * jnp.sum(x - batch)


GENERATOR = np.random.default_rng(0)


def drawn_within_jit():
    def batch(key, worker):
        drawn = GENERATOR.normal(size=3)
        return jax.jit(lambda: 2 * jnp.asarray(drawn))()

    return batch


DEPENDS_ON_STATE = {
    "iterator": ("batch", lambda: from_iterator(BIG[:6])),
    "iterator of arrays on the device": ("batch", lambda: from_iterator(list(ON_DEVICE[:6]))),
    "iterator of keys": ("batch", from_key_iterator),
    "numpy generator": ("batch", lambda: lambda key, worker: GENERATOR.normal(size=3)),
    "numpy scalar": ("batch", lambda: drawn(GENERATOR.normal)),
    "random module": ("batch", lambda: drawn(random.random)),
    "jitted": ("batch", lambda: jax.jit(drawn(random.random))),
    "jitted in a partial": (
        "batch",
        lambda: Partial(
            jax.jit(lambda data, key, worker: data[int(GENERATOR.integers(5000))]), BIG
        ),
    ),
    "in a function that is jitted in each trace": ("batch", drawn_within_jit),
    "counter": ("loss", counting_loss),
    "init": ("init", lambda: lambda key: jnp.asarray(GENERATOR.normal(size=3))),
    "noise": ("noise", lambda: lambda key, g: g * random.random()),
    "evaluate": ("evaluate", lambda: lambda x: {"x": x[0] * random.random()}),
}


@pytest.mark.parametrize("case", DEPENDS_ON_STATE)
def test_python_state_is_refused(case, monkeypatch):
    field, make = DEPENDS_ON_STATE[case]
    monkeypatch.setattr(run_module, "run_chunk", None)  # it cannot be compiled
    message = f"problem.{field} depends on Python state: two traces of it differ"
    with pytest.raises(ValueError, match=message) as refused:
        run_quadratic(problem(**{field: make()}))
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match=message):  # also when it is tried again
        run_quadratic(problem(**{field: make()}))


class DrawingProgram:
    """A gradient with noise that is not of the key, and perhaps a state that is not either."""

    def __init__(self, keeps_state):
        if keeps_state:
            self.init = lambda problem, x: jnp.asarray(GENERATOR.normal(size=3))

    def __call__(self, problem, x, worker, key, *state):
        update, loss = ao.gradient()(problem, x, worker, key)
        noise = 0.0 if state else GENERATOR.normal(size=3)
        return update + jnp.asarray(noise, update.dtype), loss, *state


@pytest.mark.parametrize("keeps_state", [False, True])
def test_a_worker_program_that_depends_on_python_state_is_refused(keeps_state, monkeypatch):
    monkeypatch.setattr(run_module, "run_chunk", None)
    name = "the worker program's init" if keeps_state else "the worker program"
    with pytest.raises(ValueError, match=f"^{name} depends on Python state: two traces") as refused:
        run_quadratic(PROBLEM, worker=DrawingProgram(keeps_state))
    assert "\n" not in str(refused.value)


def test_a_worker_program_with_side_effects_is_refused():
    def program(problem, x, worker, key):
        io_callback(tell, None, x, ordered=True)
        return ao.gradient()(problem, x, worker, key)

    match = r"^the worker program has side effects \(OrderedIOEffect\): jobs are"
    with pytest.raises(ValueError, match=match):
        run_quadratic(PROBLEM, worker=program)


def tell(*args):
    """A side effect."""


def effect_of_batch(key, worker):
    io_callback(tell, None, worker, ordered=True)
    return jax.random.normal(key, (3,))


def ordered_loss(x, batch, key):
    io_callback(tell, None, x, ordered=True)
    return jnp.sum(x - batch)


def unordered_loss(x, batch, key):
    return jnp.sum(x - batch) + io_callback(lambda: np.float32(1), SCALAR)


@pytest.mark.parametrize(
    ("field", "function", "effect"),
    [
        ("batch", effect_of_batch, "OrderedIOEffect"),
        ("loss", ordered_loss, "OrderedIOEffect"),
        ("loss", unordered_loss, "IOEffect"),
        ("loss", jax.jit(ordered_loss), "OrderedIOEffect"),
    ],
)
def test_side_effects_are_refused(field, function, effect, monkeypatch):
    monkeypatch.setattr(run_module, "run_chunk", None)
    match = rf"problem.{field} has side effects \({effect}\): jobs are computed together"
    with pytest.raises(ValueError, match=match) as refused:
        run_quadratic(problem(**{field: function}))
    assert "\n" not in str(refused.value)


@jax.custom_jvp
def sine(x):
    return jnp.sin(x)


@sine.defjvp
def _sine_jvp(primals, tangents):
    return sine(*primals), jnp.cos(primals[0]) * tangents[0]


def loss_with_custom_vjp(x, batch, key):
    @jax.custom_vjp  # a new function in each trace
    def halved(y):
        return y * ON_DEVICE[0, 0]

    halved.defvjp(lambda y: (halved(y), None), lambda _, cotangent: (cotangent / 2,))
    return jnp.sum(halved(x - batch))


def loss_that_prints(x, batch, key):
    jax.debug.print("x = {x}", x=x, ordered=True)
    jax.debug.callback(lambda value: tell(value), x)
    return jnp.sum(x - batch)


def loss_with_reference(x, batch, key):
    total = jax.new_ref(jnp.zeros(()))
    total[...] += jnp.sum(x - batch)
    return total[...]


def loss_with_control_flow(x, batch, key):
    total, _ = jax.lax.scan(lambda c, y: (c + y, None), 0.0, x)
    return jax.lax.cond(total > 0, jnp.sin, jnp.cos, total) + jnp.sum(batch)


def loss_with_pure_callback(x, batch, key):
    shift = jax.pure_callback(lambda: np.float32(2), SCALAR)
    return jnp.sum(x - batch) + shift


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm()(nn.relu(nn.Dense(4)(x)))
        return nn.remat(nn.Dense)(1)(nn.Dropout(0.1, deterministic=False)(x))


def flax_init(key):
    params, dropout = jax.random.split(key)
    return Network().init({"params": params, "dropout": dropout}, jnp.zeros(3))


def flax_loss(params, batch, key):
    return jnp.sum(Network().apply(params, batch, rngs={"dropout": key}) ** 2)


def picked(data):
    return lambda key, worker: jnp.asarray(data, jnp.float32)[worker % len(data)]


PURE = {
    "debug": {"loss": loss_that_prints},
    "big array": {"batch": picked(BIG)},
    "array on the device": {"batch": picked(ON_DEVICE)},
    "array with nan": {"batch": picked(HOLES)},
    "bfloat16 array": {"batch": lambda key, worker: 1.0 * jnp.asarray(NARROW)[worker]},
    "captured key": {
        "batch": lambda key, worker: jax.random.normal(
            jax.random.fold_in(CAPTURED_KEY, worker), (3,)
        )
    },
    "jitted": {"loss": jax.jit(lambda x, batch, key: jnp.sum(jax.jit(jnp.tanh)(x - batch)))},
    "custom_jvp": {"loss": lambda x, batch, key: jnp.sum(sine(x - batch))},
    "custom_vjp": {"loss": loss_with_custom_vjp},
    "relu": {"loss": lambda x, batch, key: jnp.sum(jax.nn.relu(x - batch))},
    "logsumexp": {"loss": lambda x, batch, key: jax.nn.logsumexp(x - batch)},
    "checkpoint": {
        "loss": jax.checkpoint(
            lambda x, batch, key: jnp.sum(jnp.sin(x - batch)),
            policy=jax.checkpoint_policies.dots_saveable,
        )
    },
    "control flow": {"loss": loss_with_control_flow},
    "reference": {"loss": loss_with_reference},
    "pure callback": {"loss": loss_with_pure_callback},
    "flax": {"init": flax_init, "loss": flax_loss, "evaluate": None},
}


@pytest.mark.parametrize("case", PURE)
def test_pure_functions_are_accepted(case):
    check(**PURE[case])


def test_what_is_accepted_runs_in_lanes():
    told = []

    def loss(x, batch, key):
        jax.debug.callback(lambda value: told.append(float(value)), x[0])
        inner = jax.checkpoint(loss_with_custom_vjp)(sine(x), batch, key)
        return loss_with_reference(x, batch, key) + jax.nn.logsumexp(jax.nn.relu(x)) + inner

    result = run_quadratic(problem(loss=loss), lanes=4)
    jax.effects_barrier()
    assert np.isfinite(result.params).all()
    assert len(told) >= len(result.arrivals["loss"])


def test_structures_are_checked_once(monkeypatch):
    calls = []
    check_purity = checks.check_purity

    def counted(problem):
        calls.append(problem)
        check_purity(problem)

    monkeypatch.setattr(checks, "check_purity", counted)
    traces = []

    def loss(factor, x, batch, key):
        traces.append(1)
        return jnp.sum(factor) * jnp.sum((x - batch) ** 2)

    def noisy(factor, scale):
        return problem(loss=Partial(loss, factor)).with_noise(ao.noise.gaussian(scale))

    check_functions(noisy(1.0, 0.1), SGD, ao.gradient(), resolve(()))
    assert len(calls) == 1
    seen = len(traces)
    assert seen >= 2
    for factor, scale in ((2.0, 0.1), (1.0, 0.7)):  # other numbers
        check_functions(noisy(factor, scale), SGD, ao.gradient(), resolve(()))
    assert (len(calls), len(traces)) == (1, seen)
    check_functions(noisy(jnp.ones(2), 0.1), SGD, ao.gradient(), resolve(()))  # another shape
    other = dataclasses.replace(noisy(1.0, 0.1), evaluate=None)
    check_functions(other, SGD, ao.gradient(), resolve(()))  # another structure
    assert len(calls) == 3
    with jax.enable_x64(True):  # other dtypes
        check_functions(noisy(1.0, 0.1), SGD, ao.gradient(), resolve(()))
    assert len(calls) == 4
