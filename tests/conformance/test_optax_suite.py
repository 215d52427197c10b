"""Optax's own conformance suite, run over our registry with fresh staleness bound.

The suite ships with optax as a class of parametrised methods over a table of optax names. Its
methods are unwrapped, and its look-up of factories is pointed at ours.
"""

import functools
import inspect
import itertools

import jax.numpy as jnp
import optax
import pytest
from optax.contrib import _common_test as suite

import async_optax as ao

# Arguments under which plain descent converges on the suite's targets within its steps.
ARGUMENTS = {
    "sgd": {},
    "clipped_sgd": {"max_norm": 10.0},
    "staleness_aware_sgd": {},
    "delay_adaptive_sgd": {"num_workers": 4.0},
    "dc_asgd": {"strength": 0.04},
    "ringmaster_sgd": {"max_staleness": 4.0},
    "dc_asgd_adaptive": {},
    "normalized_momentum_sgd": {},
    "momentum_sgd": {"momentum": 0.5},
    "linear_weight_prediction": {"num_steps": 2.0, "momentum": 0.5},
    "smega2": {"momentum": 0.5},
    "multi_momentum": {"momentum": 0.5},
    "dana_dc": {"momentum": 0.5},
    "gap_aware": {"momentum": 0.5},
    "dana_gap_aware": {"momentum": 0.5},
    "nesterov_delayed": {"momentum": 0.5},
    "nadam_delayed": {"weight_decay": 0.0},
    "parameter_averaging": {},
    "diloco": {"momentum": 0.5},
    "fedasync": {"mixing": 1.0},
    "fedbuff": {"momentum": 0.5},
    "fadas": {"max_staleness": 4.0, "learning_rate": 1e-2},
    "gba": {"max_staleness": 4.0},
    "adadelay": {"scale": 0.01},
    "dana": {"momentum": 0.5},
    "async_heavy_tailed": {"threshold": 10.0, "compensation": 0.25},
}


# What decides shapes cannot be injected or swept: it is bound beforehand.
PER_WORKER = ("dc_asgd_adaptive", "smega2", "multi_momentum", "dana", "dana_dc", "dana_gap_aware")
STATIC = {name: {"num_workers": 2} for name in PER_WORKER} | {"gba": {"server": optax.sgd}}


def factory_with_fresh_staleness(name):
    """Our factory, with the extra arguments that the suite does not know filled in."""
    factory, static = ao.optimizers.get(name), STATIC.get(name, {})
    signature = inspect.signature(factory)
    free = [p for p in signature.parameters.values() if p.name not in static]

    @functools.wraps(factory)
    def make(*args, **kwargs):
        tx = factory(*args, **kwargs, **static)

        def update(updates, state, params=None, **extra_args):
            fresh = {"staleness": jnp.int32(0), "stale_params": params, "worker": jnp.int32(0)}
            return tx.update(updates, state, params, **fresh, **extra_args)

        return optax.GradientTransformationExtraArgs(tx.init, update)

    make.__signature__ = signature.replace(parameters=free)
    return make


def original_tests():
    """The undecorated test functions of the suite, by name."""
    found = {}
    for name, method in inspect.getmembers(suite.ContribTest, inspect.isfunction):
        if name.startswith("test_"):
            original = inspect.unwrap(method)
            found[original.__name__] = original
    return found


# What the suite varies beside the optimizer, read off its methods' parameters.
VARIATIONS = {
    "wrap": [False],
    "target": [
        suite._setup_parabola,
        suite._setup_rosenbrock,
        suite._setup_matrix_parabola,
        suite._setup_mixed_tensor_target,
    ],
    "dtype": ["bfloat16", "float32"],
}


def cases():
    for (test, function), name in itertools.product(
        sorted(original_tests().items()), ao.optimizers.names()
    ):
        varied = [v for v in VARIATIONS if v in inspect.signature(function).parameters]
        if test == "test_optimizers":  # convergence: single precision only, as in the suite
            grid = [(t, "float32") for t in VARIATIONS["target"]]
        else:
            grid = itertools.product(*(VARIATIONS[v] for v in varied))
        for values in grid:
            label = [getattr(value, "__name__", str(value)) for value in values]
            yield pytest.param(
                test,
                name,
                dict(zip(varied, values, strict=True)),
                id="-".join([test, name, *label]),
            )


def test_the_suite_is_found_and_covers_the_registry():
    tests = original_tests()
    assert {"test_optimizers", "test_preserve_dtype", "test_gradient_accumulation"} <= set(tests)
    assert len(tests) >= 7
    assert set(ARGUMENTS) == set(ao.optimizers.names())
    # Every method meets every test at least once.
    assert len(list(cases())) >= len(tests) * len(ao.optimizers.names())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the suite's own
@pytest.mark.parametrize(("test", "name", "variation"), list(cases()))
def test_optax_suite(test, name, variation, monkeypatch):
    monkeypatch.setattr(suite, "_get_opt_factory", factory_with_fresh_staleness)
    arguments = {
        "opt_name": name,
        "opt_kwargs": {"learning_rate": 1e-3} | ARGUMENTS[name],
        "wrapper_name": None,
        "wrapper_kwargs": None,
    }
    original_tests()[test](suite.ContribTest("run"), **(arguments | variation))
