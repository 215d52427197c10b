"""Digests: equal in every process, different for every other computation."""

import dataclasses
import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.tree_util import Partial

import async_optax as ao
from async_optax.sweeps import digests as digests_module
from async_optax.sweeps.digests import Digests, timeline_digest
from tests.engine.problems import make_timeline, quadratic_problem

PROBLEM = quadratic_problem()


def picking(data):
    return dataclasses.replace(PROBLEM, batch=Partial(_pick, data))


def _pick(data, key, worker):
    del worker
    return data[jax.random.randint(key, (3,), 0, len(data))]


def capturing(data):
    return dataclasses.replace(PROBLEM, batch=lambda key, worker: data[:3])


def capturing_in_jit(data):
    @jax.jit
    def loss(x, batch, key):
        return jnp.sum((x - data[:3] - batch) ** 2)

    return dataclasses.replace(PROBLEM, loss=loss)


PROBLEMS = {
    "quadratic": PROBLEM,
    "size": quadratic_problem(4),
    "noise": PROBLEM.with_noise(ao.noise.gaussian(1.0)),
    "scale": PROBLEM.with_noise(ao.noise.gaussian(2.0)),
    "law": PROBLEM.with_noise(ao.noise.sub_weibull(0.5, 1.0)),
    "data": picking(jnp.arange(6.0)),
    "other data": picking(jnp.arange(6.0) + 1),
    "captured data": capturing(jnp.arange(6.0)),
    "other captured data": capturing(jnp.arange(6.0) + 1),
    "data captured in a jitted loss": capturing_in_jit(jnp.arange(6.0)),
    "other data captured in a jitted loss": capturing_in_jit(jnp.arange(6.0) + 1),
    "metric": dataclasses.replace(PROBLEM, evaluate=lambda x: {"far": jnp.linalg.norm(x - 1)}),
    "start": dataclasses.replace(PROBLEM, init=lambda key: jnp.full(3, 5.0)),
}
OPTIMIZERS = {
    "sgd": ao.optimizers.sgd(0.1),
    "rate": ao.optimizers.sgd(0.2),
    "clipped": ao.optimizers.clipped_sgd(0.1),
    "norm": ao.optimizers.clipped_sgd(0.1, max_norm=2.0),
    "optax": optax.sgd(0.1),
    "momentum": optax.sgd(0.1, momentum=0.5),
    "schedule": ao.optimizers.sgd(optax.cosine_decay_schedule(0.1, 100)),
    "other schedule": ao.optimizers.sgd(optax.cosine_decay_schedule(0.1, 200)),
}


def digests():
    """All digests, by name; made anew."""
    made = Digests(None)
    found = {name: made.problem(problem) for name, problem in PROBLEMS.items()}
    return found | {name: made.optimizer(o, PROBLEM) for name, o in OPTIMIZERS.items()}


def test_every_other_computation_has_another_digest():
    found = digests()
    assert all(found.values())
    assert len(set(found.values())) == len(found)
    assert digests() == found
    assert all(digest.startswith(f"{jax.__version__}:") for digest in found.values())


def test_they_do_not_depend_on_the_process():
    code = "from tests.sweeps.test_digests import digests; print(digests())"
    printed = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": os.getcwd()},
    ).stdout
    assert printed == f"{digests()}\n"


def test_the_worker_program_belongs_to_the_problem():
    def scaled(factor, problem, x, worker, key):
        update, loss = ao.gradient()(problem, x, worker, key)
        return factor * update, loss

    workers = [None, ao.gradient(), *(functools.partial(scaled, f) for f in (2.0, 3.0))]
    found = [Digests(worker).problem(PROBLEM) for worker in workers]
    assert found[0] == found[1]
    assert len(set(found)) == 3
    steps = [ao.local_steps(2, ao.optimizers.sgd(rate), 0.1) for rate in (0.1, 0.2)]
    steps += [ao.local_steps(2, optax.adam(rate), 0.1, keep_state=True) for rate in (0.1, 0.2)]
    found = {Digests(worker).problem(PROBLEM) for worker in steps}
    assert len(found) == 4
    assert "" not in found


def test_equal_structures_are_traced_once(monkeypatch):
    traced = []
    make_jaxpr = jax.make_jaxpr

    def spy(*args, **kwargs):
        traced.append(1)
        return make_jaxpr(*args, **kwargs)

    monkeypatch.setattr(jax, "make_jaxpr", spy)
    monkeypatch.setattr(digests_module, "_TEXTS", {})
    for rate in (0.1, 0.2, 0.3):
        Digests(None).optimizer(ao.optimizers.sgd(rate), PROBLEM)
    assert len(traced) == 1
    with jax.enable_x64(True):
        Digests(None).optimizer(ao.optimizers.sgd(0.1), PROBLEM)
    assert len(traced) == 2
    for worker in (None, ao.gradient(), ao.local_steps(2, ao.optimizers.sgd(0.1), 0.1)):
        Digests(worker).problem(PROBLEM)
    assert len(traced) == 4


def test_what_does_not_trace_has_none():
    def needing(updates, state, params=None, **extra_args):
        raise ValueError("needs something else")

    broken = optax.GradientTransformationExtraArgs(lambda params: (), needing)
    assert Digests(None).optimizer(broken, PROBLEM) == ""


@pytest.mark.parametrize("change", ["seed", "protocol", "num_commits"])
def test_timelines(change):
    changes = {"seed": 1, "protocol": ao.protocols.synchronous(), "num_commits": 41}
    assert timeline_digest(make_timeline()) == timeline_digest(make_timeline())
    other = make_timeline(**{change: changes[change]})
    assert timeline_digest(make_timeline()) != timeline_digest(other)
