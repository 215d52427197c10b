"""Bad input: each error is one line that names what is wrong, before anything is compiled."""

import re

import jax
import jax.numpy as jnp
import optax
import pytest

import async_optax as ao
from async_optax import transforms
from async_optax.engine.program import run_chunk
from async_optax.optimizers import pipelines
from tests.engine.pipeline.oracle import NUM_STAGES, network_problem
from tests.engine.problems import quadratic_problem

Stage, split_layers = ao.pipeline.Stage, ao.pipeline.split_layers
TIMELINE = ao.pipeline.timeline(NUM_STAGES, 5)


def linear(a, b):
    return Stage(lambda key: jnp.ones((a, b)), lambda w, x, key: x @ w)


def batch(key, worker):
    return jnp.ones((5, 3))


def mean(y, batch):
    return jnp.mean(y)


def problem(*stages, loss=mean, batch=batch):
    return ao.pipeline.problem(stages, loss, batch)


def run(optimizer, problem=None, **options):
    return ao.simulate(
        problem or network_problem(),
        optimizer,
        TIMELINE,
        key=jax.random.key(0),
        **{"worker": ao.pipeline.gradient()} | options,
    )


CASES = {
    "chain": (
        lambda: problem(linear(3, 4), linear(4, 6), linear(5, 2)),
        ValueError,
        r"stages\[2\].apply fails on the output of stages\[1\], float32\[5, 6\]: ",
    ),
    "first stage": (
        lambda: problem(linear(4, 4)),
        ValueError,
        r"stages\[0\].apply fails on the batch float32\[5, 3\]: ",
    ),
    "init": (
        lambda: problem(linear(3, 4), Stage(lambda key: key.no, linear(1, 1).apply)),
        ValueError,
        r"stages\[1\].init fails: ",
    ),
    "loss": (
        lambda: problem(linear(3, 4), loss=lambda y, batch: y - batch),
        ValueError,
        r"loss fails on the output of stages\[0\], float32\[5, 4\]: ",
    ),
    "loss is no scalar": (
        lambda: problem(linear(3, 3), loss=lambda y, batch: y),
        ValueError,
        r"loss must return one floating-point scalar, got float32\[5, 3\]",
    ),
    "batch": (
        lambda: problem(linear(3, 3), batch=lambda key, worker: worker.no),
        ValueError,
        "batch fails: ",
    ),
    "one stage without a list": (
        lambda: ao.pipeline.problem(linear(3, 3), mean, batch),
        TypeError,
        "stages must be a list of Stage, got Stage",
    ),
    "one layer without a list": (
        lambda: split_layers(linear(3, 3), 1),
        TypeError,
        "layers must be a list of Stage, got Stage",
    ),
    "stash of a word": (
        lambda: pipelines.pipemare(0.1, 10, stash="no"),
        TypeError,
        "stash must be True or False, got 'no'",
    ),
    "predicting with a word": (
        lambda: pipelines.weight_prediction(0.1, stash=0),
        TypeError,
        "stash must be True or False, got 0",
    ),
    "momentum with a word": (
        lambda: pipelines.stage_momentum(0.1, nesterov="no"),
        TypeError,
        "nesterov must be True or False, got 'no'",
    ),
    "no stages": (lambda: problem(), ValueError, "stages must hold at least one stage, got none"),
    "no stage": (lambda: problem("a"), TypeError, r"stages\[0\] must be a Stage, got 'a'"),
    "no function": (
        lambda: problem(linear(3, 3), Stage(None, None)),
        TypeError,
        r"stages\[1\].init must be callable",
    ),
    "no loss": (lambda: problem(linear(3, 3), loss=1), TypeError, "loss must be callable, got 1"),
    "more stages than layers": (
        lambda: split_layers([linear(1, 1)] * 8, 9),
        ValueError,
        "num_stages must be at most the number of layers, 8, got 9",
    ),
    "zero stages": (
        lambda: split_layers([linear(1, 1)], 0),
        ValueError,
        "num_stages must be an integer >= 1, got 0",
    ),
    "no layer": (lambda: split_layers([1], 1), TypeError, r"layers\[0\] must be a Stage, got 1"),
    "server's worker without a stash": (
        lambda: run(pipelines.pipemare(0.1, 10), worker=ao.gradient()),
        ValueError,
        r"the worker program must be ao.pipeline.gradient\(\) for this optimizer",
    ),
    "one tree of parameters": (
        lambda: run(pipelines.pipedream(0.1), quadratic_problem()),
        TypeError,
        "params must be a tuple of stages, one pytree each, as of ao.pipeline.problem; got ",
    ),
    "delays of other stages": (
        lambda: run(pipelines.pipedream(0.1, delays=(1, 0))),
        ValueError,
        r"delays must be one integer for each of 4 stages, got \(1, 0\)",
    ),
    "micro-batches that are not gathered": (
        lambda: ao.simulate(
            network_problem(),
            transforms.delay_stages(optax.sgd(0.1)),
            ao.pipeline.timeline(NUM_STAGES, 5, num_micro_batches=2),
            key=jax.random.key(0),
        ),
        ValueError,
        "several arrivals make up a commit, but the optimizer applies each at once",
    ),
    "gap of two versions": (
        lambda: run(pipelines.pipemare(0.1, 10), record=["gap"]),
        ValueError,
        r"record\['gap'\] fails: the optimizer serves workers something else",
    ),
    "annealing": (
        lambda: pipelines.pipemare(0.1, annealing_steps=0),
        ValueError,
        "annealing_steps must be a finite number > 0, got 0",
    ),
    "rate": (
        lambda: pipelines.nesterov_pipeline(-1.0),
        ValueError,
        "learning_rate must be a finite number > 0, got -1.0",
    ),
    "momentum": (
        lambda: pipelines.stage_momentum(0.1, b1=0.9, largest_b1=0.5),
        ValueError,
        "largest_b1 must be at least b1=0.9, got 0.5",
    ),
    "norm": (
        lambda: pipelines.gpipe(0.1, max_norm=0.0),
        ValueError,
        "max_norm must be a finite number > 0, got 0.0",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_raises_before_anything_is_compiled(case):
    call, error, message = CASES[case]
    before = run_chunk._cache_size()
    with pytest.raises(error) as raised:
        call()
    assert re.match(message, str(raised.value)), str(raised.value)
    assert "\n" not in str(raised.value)
    assert run_chunk._cache_size() == before


def test_without_a_stash_the_problem_has_stages():
    params = (jnp.ones(3), jnp.ones(3))
    plain = ao.Problem(
        init=lambda key: params, loss=lambda x, batch, key: jnp.sum(x[0]), batch=batch
    )
    with pytest.raises(ValueError, match="the problem must be one of ao.pipeline.problem"):
        run(pipelines.pipemare(0.1, 10), plain)
