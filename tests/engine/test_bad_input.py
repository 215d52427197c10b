"""Bad input to the simulator: one line, before anything is compiled."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
import pytest

import async_optax as ao
from async_optax.engine.program import run_chunk
from tests.engine.problems import make_timeline, quadratic_problem, run_quadratic


def problem(**changes):
    return dataclasses.replace(quadratic_problem(), **changes)


class _Unhashable:
    __hash__ = None

    def __call__(self, x, batch, key):
        return jnp.sum(x)


BAD_INPUT = {
    "problem": (
        lambda: run_quadratic(problem=3),
        TypeError,
        "problem must be an async_optax.Problem",
    ),
    "timeline": (lambda: run_quadratic(timeline=[1]), TypeError, "timeline must be"),
    "optimizer": (lambda: run_quadratic(optimizer=0.1), TypeError, "optimizer must be a gradient"),
    "raw key": (lambda: run_quadratic(key=jnp.zeros(2, jnp.uint32)), TypeError, "one typed key"),
    "integer key": (lambda: run_quadratic(key=0), TypeError, "key must be one typed key"),
    "no lanes": (
        lambda: run_quadratic(lanes=0),
        ValueError,
        "lanes must be 'auto' or an integer >= 1, got 0",
    ),
    "lanes of None": (
        lambda: run_quadratic(lanes=None),
        TypeError,
        "lanes must be 'auto' or an integer >= 1, got None",
    ),
    "fractional lanes": (
        lambda: run_quadratic(lanes=2.5),
        TypeError,
        "lanes must be 'auto' or an integer >= 1, got 2.5",
    ),
    "many lanes": (lambda: run_quadratic(lanes=10**6), ValueError, "lanes must be at most"),
    "odd lanes": (
        lambda: run_quadratic(lanes="wide"),
        ValueError,
        "lanes must be 'auto' or an integer >= 1, got 'wide'",
    ),
    "record vector": (
        lambda: run_quadratic(record={"g": lambda info: info.gradient}),
        ValueError,
        r"record\['g'\] must return a scalar",
    ),
    "record taken": (
        lambda: run_quadratic(record={"time": lambda info: info.loss}),
        ValueError,
        "record must not use the names time",
    ),
    "record string": (lambda: run_quadratic(record="gap"), TypeError, "record must be a list"),
    "record none": (lambda: run_quadratic(record=None), TypeError, "record must be a list"),
    "evaluate time": (
        lambda: run_quadratic(problem(evaluate=lambda x: {"time": x[0]})),
        ValueError,
        "must not use the names of the axes",
    ),
    "nothing to evaluate": (
        lambda: run_quadratic(problem(evaluate=None), evaluate_every=1),
        ValueError,
        "problem.evaluate is None: there is nothing to evaluate",
    ),
    "loss that raises": (
        lambda: run_quadratic(problem(loss=lambda x, batch, key: {}[1])),
        ValueError,
        "problem.loss fails on arguments",
    ),
    "worker": (lambda: run_quadratic(worker=3), TypeError, "worker must be a worker program"),
    "worker of another shape": (
        lambda: run_quadratic(worker=lambda problem, x, worker, key: (x[:1], jnp.float32(0))),
        ValueError,
        "worker program must return an update like the parameters",
    ),
    "worker with a vector loss": (
        lambda: run_quadratic(worker=lambda problem, x, worker, key: (x, x)),
        ValueError,
        "worker program must return one scalar loss",
    ),
    "worker that returns one thing": (
        lambda: run_quadratic(worker=lambda problem, x, worker, key: jnp.float32(0)),
        ValueError,
        "the worker program fails",
    ),
    "unhashable": (
        lambda: run_quadratic(problem(loss=_Unhashable())),
        TypeError,
        "neither a number nor hashable",
    ),
    "rbg": (
        lambda: run_quadratic(key=jax.random.key(0, impl="rbg"), lanes=4),
        ValueError,
        "keys of rbg draw other numbers under vmap: use lanes=1",
    ),
    "progress": (lambda: run_quadratic(progress="yes"), TypeError, "progress must be"),
    "tracked twice": (
        lambda: run_quadratic(optimizer=ao.transforms.track_staleness(ao.optimizers.sgd(0.1), 4)),
        ValueError,
        "simulate tracks the staleness itself: pass the inner transformation",
    ),
    "record": (
        lambda: run_quadratic(record=["los"]),
        ValueError,
        "record must name some of .*; got los",
    ),
    "evaluate_every": (
        lambda: run_quadratic(evaluate_every=0),
        ValueError,
        "evaluate_every must be",
    ),
    "evaluate_at": (lambda: run_quadratic(evaluate_at=[-1.0]), ValueError, "evaluate_at must be"),
    **{
        f"evaluate_at of {value}": (
            lambda value=value: run_quadratic(evaluate_at=value),
            error,
            r"evaluate_at must be simulated times in \[0, .*\], got ",
        )
        for value, error in (
            (["a"], TypeError),
            ([None], TypeError),
            ([[1.0], [2.0, 3.0]], ValueError),
            (5.0, ValueError),
        )
    },
    "both": (lambda: run_quadratic(evaluate_at=[1.0], evaluate_every=1), ValueError, "not both"),
    "vector loss": (
        lambda: run_quadratic(problem(loss=lambda x, batch, key: x - batch)),
        ValueError,
        r"problem.loss must return one floating-point scalar, got .*shape=\(3,\)",
    ),
    "integer loss": (
        lambda: run_quadratic(problem(loss=lambda x, batch, key: jnp.int32(1))),
        ValueError,
        "problem.loss must return one floating-point scalar",
    ),
    "batch of the wrong shape": (
        lambda: run_quadratic(problem(batch=lambda key, worker: jnp.zeros((2, 2)))),
        ValueError,
        r"problem.loss fails on arguments .*float32\[3\].*float32\[2, 2\]",
    ),
    "batch with the wrong arguments": (
        lambda: run_quadratic(problem(batch=lambda key: jnp.zeros(3))),
        ValueError,
        "problem.batch fails on arguments .*takes 1 positional argument",
    ),
    "integer parameters": (
        lambda: run_quadratic(problem(init=lambda key: jnp.arange(3))),
        ValueError,
        "problem.init must return floating-point parameters, got int32",
    ),
    "evaluate": (
        lambda: run_quadratic(problem(evaluate=lambda x: {"x": x})),
        ValueError,
        "problem.evaluate must return a dictionary of scalars",
    ),
    "noise": (
        lambda: run_quadratic(problem(noise=lambda key, g: jnp.zeros(2))),
        ValueError,
        "problem.noise must return a pytree like the gradient",
    ),
    "not callable": (lambda: run_quadratic(problem(loss=None)), TypeError, "loss must be callable"),
    "more workers than the optimizer has room for": (
        lambda: run_quadratic(optimizer=ao.optimizers.dana(0.1, num_workers=3)),
        ValueError,
        r"worker must be in \[0, 3\), got 3",
    ),
    "optimizer that cannot gather": (
        lambda: run_quadratic(
            optimizer=optax.sgd(0.1), timeline=make_timeline(5, ao.protocols.buffered(3))
        ),
        ValueError,
        "wrap its server part in async_optax.transforms.accumulate_until_commit",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_raises_before_anything_is_compiled(case):
    call, error, message = BAD_INPUT[case]
    before = run_chunk._cache_size()
    with pytest.raises(error, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)
    assert run_chunk._cache_size() == before
