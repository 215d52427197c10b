"""Bad input to a sweep: one line, before anything is run."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest

import async_optax as ao
from async_optax.engine.program import run_chunk
from async_optax.sweeps import sweep
from tests.sweeps.settings import FIXED, PROBLEM, counted

RATES = {"learning_rate": [0.1]}


def needy(learning_rate, momentum):
    return ao.optimizers.momentum_sgd(learning_rate, momentum)


def by_position(learning_rate, /):
    return ao.optimizers.sgd(learning_rate)


def evaluating(**metrics):
    return dataclasses.replace(PROBLEM, evaluate=lambda x: metrics)


BAD_INPUT = {
    "problem": ({"problem": 3}, TypeError, "problem must be an async_optax.Problem or a function"),
    "problem's argument": (
        {"problem": lambda noise_scale: PROBLEM},
        ValueError,
        "the problem needs noise_scale: give it in the grid, or fix it by functools.partial",
    ),
    "problem of another kind": (
        {"problem": lambda learning_rate: 3},
        TypeError,
        "the problem function must return an async_optax.Problem, got int",
    ),
    "problem that does not fit": (
        {"problem": dataclasses.replace(PROBLEM, loss=lambda x, batch, key: x)},
        ValueError,
        "problem.loss must return one floating-point scalar",
    ),
    "nothing to evaluate": (
        {"problem": dataclasses.replace(PROBLEM, evaluate=None)},
        ValueError,
        "problem.evaluate is None: a sweep keeps evaluations",
    ),
    "no metric": ({"problem": evaluating()}, ValueError, "problem.evaluate returns no metric"),
    "metric that is taken": (
        {"problem": evaluating(status=jnp.float32(0))},
        ValueError,
        "problem.evaluate must not use the names status: the dataset uses them",
    ),
    "metric of the grid": (
        {"problem": evaluating(learning_rate=jnp.float32(0))},
        ValueError,
        "problem.evaluate must not use the names learning_rate",
    ),
    "metrics that differ": (
        {
            "problem": lambda noise: evaluating(**{f"m{noise:g}": jnp.float32(0)}),
            "grid": RATES | {"noise": [1.0, 2.0]},
        },
        ValueError,
        "all problems of a sweep must evaluate the same metrics, got m1 and m2",
    ),
    "optimizer's name": ({"optimizers": "sdg"}, ValueError, "unknown method 'sdg'; nearest: sgd"),
    "no optimizer": ({"optimizers": {}}, ValueError, "optimizers must not be empty"),
    "optimizer for an optimizer": (
        {"optimizers": ao.optimizers.sgd(0.1)},
        TypeError,
        "optimizers must be a registered name or a factory such as ao.optimizers.sgd, got Gradient"
        ".*: pass the factory itself, and its numbers in grid$",
    ),
    "several optimizers": (
        {"optimizers": ["sgd", "adam"]},
        TypeError,
        "optimizers must be .*, got list: for several, a dictionary by label$",
    ),
    "optimizer of another kind": (
        {"optimizers": lambda learning_rate: 3},
        TypeError,
        "optimizer 'optimizer' must return a gradient transformation, got int",
    ),
    "label": (
        {"optimizers": {1: "sgd"}},
        TypeError,
        "optimizers must be labelled by strings, got 1",
    ),
    "name that nobody takes": (
        {"grid": RATES | {"lerning_rate": [1]}},
        ValueError,
        r"grid\['lerning_rate'\] is taken neither by the problem nor by any optimizer; nearest: "
        "learning_rate; the problem takes nothing, the optimizers learning_rate",
    ),
    "name far from all": (
        {
            "problem": lambda noise_scale=1.0: PROBLEM,
            "optimizers": {"a": functools.partial(ao.optimizers.clipped_sgd, max_norm=1.0)},
            "grid": {"zz": [1]},
        },
        ValueError,
        "nor by any optimizer; the problem takes noise_scale, the optimizers learning_rate$",
    ),
    "name that one optimizer takes": (
        {"optimizers": {"a": "clipped_sgd", "b": "sgd"}, "grid": RATES | {"max_norm": [1.0]}},
        ValueError,
        r"grid\['max_norm'\] is taken neither by the problem nor by optimizer 'b': fix it in",
    ),
    "argument without a value": (
        {"optimizers": needy},
        ValueError,
        "optimizer 'needy' needs momentum: give it in the grid, or fix it by functools.partial",
    ),
    "argument with two values": (
        {"optimizers": {"a": functools.partial(ao.optimizers.sgd, learning_rate=0.1)}},
        ValueError,
        "optimizer 'a' fixes learning_rate by functools.partial, and the grid has it too",
    ),
    "argument by position": (
        {"optimizers": by_position},
        TypeError,
        "optimizer 'by_position' takes learning_rate by position only: wrap it in a function",
    ),
    "timelines": (
        {"timelines": [FIXED]},
        TypeError,
        "timelines must be a Timeline or a function .*, got list: for several, a dictionary by la",
    ),
    "no timeline": ({"timelines": {}}, ValueError, "timelines must not be empty"),
    "timeline of another kind": (
        {"timelines": {"a": lambda seed: 3}},
        TypeError,
        "the timeline function must return an async_optax.Timeline, got int",
    ),
    "no seed": ({"seeds": []}, ValueError, "seeds must not be empty"),
    "seeds twice": ({"seeds": [1, 1]}, ValueError, r"seeds must hold different values, got \[1"),
    "one seed": (
        {"seeds": 3},
        TypeError,
        r"seeds must be a sequence of numbers such as range\(3\), got 3",
    ),
    "seed 0": ({"seeds": 0}, TypeError, r"a sequence of numbers such as range\(3\), got 0"),
    "negative seed": ({"seeds": [-1]}, ValueError, "seed must be an integer >= 0, got -1"),
    "fractional seed": ({"seeds": [0.5]}, TypeError, "seed must be an integer >= 0, got 0.5"),
    "grid": ({"grid": [0.1]}, TypeError, "grid must map names to sequences of numbers, got list"),
    "grid's name": ({"grid": {1: [0.1]}}, ValueError, "grid must be keyed by names of arguments"),
    "empty axis": (
        {"grid": {"learning_rate": []}},
        ValueError,
        r"grid\['learning_rate'\] must not be empty",
    ),
    "values twice": (
        {"grid": {"learning_rate": [0.1, 0.1]}},
        ValueError,
        r"grid\['learning_rate'\] must hold different values, got \[0.1, 0.1\]",
    ),
    "value that is no number": (
        {"grid": {"learning_rate": ["0.1"]}},
        TypeError,
        r"grid\['learning_rate'\] must hold numbers, got '0.1': label one optimizer per choice, "
        r"functools.partial\(factory, learning_rate='0.1'\)$",
    ),
    "value on its own": (
        {"grid": {"learning_rate": 0.2}},
        TypeError,
        r"grid\['learning_rate'\] must be a sequence of numbers such as \[0.2\], got 0.2",
    ),
    "value that is not finite": (
        {"grid": {"learning_rate": [float("nan")]}},
        ValueError,
        r"grid\['learning_rate'\] must be a finite number, got nan",
    ),
    "boolean": ({"grid": {"learning_rate": [True]}}, TypeError, "must hold numbers, got True: lab"),
    "string": ({"grid": {"learning_rate": "0.1"}}, TypeError, "must hold numbers, got '0.1': lab"),
    "name of a dimension": (
        {"optimizers": lambda time: None, "grid": {"time": [1.0]}},
        ValueError,
        "grid must not use the name 'time': the dataset uses it",
    ),
    "worker": ({"worker": 3}, TypeError, "worker must be a worker program such as gradient"),
    "both evaluations": (
        {"evaluate_every": 2, "evaluate_at": [1.0]},
        ValueError,
        "give evaluate_every or evaluate_at, not both",
    ),
    "evaluate_every": ({"evaluate_every": 0}, ValueError, "evaluate_every must be an integer >= 1"),
    "evaluate_at": ({"evaluate_at": [-1.0]}, ValueError, "evaluate_at must be a finite number >="),
    "evaluate_at after the end": (
        {"evaluate_at": [1e9]},
        ValueError,
        r"evaluate_at must be simulated times in \[0, ",
    ),
    "strategy": ({"strategy": "fast"}, ValueError, "strategy must be one of auto, threads, loop"),
    "lanes": ({"lanes": 0}, ValueError, "lanes must be an integer >= 1, got 0"),
    "automatic lanes": ({"lanes": "auto"}, TypeError, "lanes must be an integer >= 1, got 'auto'"),
    "path": ({"path": 3}, TypeError, "path must be the path of a file, got 3"),
    "no path": ({"path": ""}, ValueError, "path must be the path of a file, got ''"),
    "metric that no file can hold": (
        {"problem": evaluating(**{"test/acc": jnp.float32(0)}), "path": "sweep.nc"},
        ValueError,
        "problem.evaluate returns a metric 'test/acc', which no file can hold: use a name without",
    ),
    "progress": ({"progress": "yes"}, TypeError, "progress must be a boolean or a function"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_raises_before_anything_is_run(case, tmp_path, monkeypatch):
    changes, error, message = BAD_INPUT[case]
    arguments = {
        "problem": PROBLEM,
        "optimizers": "sgd",
        "timelines": FIXED,
        "seeds": [0],
        "grid": RATES,
    }
    monkeypatch.chdir(tmp_path)
    calls, compiled = counted(monkeypatch), run_chunk._cache_size()
    with pytest.raises(error, match=message) as raised:
        sweep(**(arguments | changes))
    assert "\n" not in str(raised.value)
    assert not calls
    assert not list(tmp_path.iterdir())
    assert run_chunk._cache_size() == compiled


def test_keys_that_draw_other_numbers_side_by_side():
    arguments = {"problem": PROBLEM, "optimizers": "sgd", "timelines": FIXED, "grid": RATES}
    with jax.default_prng_impl("rbg"):
        with pytest.raises(ValueError, match="strategy must not be 'vmap': keys of rbg"):
            sweep(**arguments, seeds=[0, 1], strategy="vmap")
        dataset = sweep(**arguments, seeds=[0, 1], strategy="loop")
        alone = sweep(**arguments, seeds=[0, 1], strategy="threads")
    assert dataset.attrs["generator"] == "rbg"
    assert (dataset["status"] == "done").all()
    assert (abs(dataset["distance"] - alone["distance"]) < 1e-5).all()
