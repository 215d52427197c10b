"""Every method against a NumPy loop that keeps all versions, in double precision."""

import jax
import numpy as np
import optax
import pytest

import async_optax as ao
from async_optax import transforms
from async_optax.optimizers import pipelines
from tests.engine.pipeline.oracle import NUM_STAGES, Adam, Momentum, network_problem, replay

KEY, NUM_UPDATES, RATE = jax.random.key(3), 14, 0.05
NESTEROV = {"b1": 0.99, "nesterov": True}
BY_STAGE = {"b1": 0.9, "largest_b1": 0.99, "nesterov": True}
SPECTRAIN = transforms.accumulate_until_commit(
    transforms.predict_stages(optax.sgd(RATE, momentum=0.9))
)

# Optimizer, rule, and what else is special about the replay.
CASES = {
    "pipedream": (pipelines.pipedream(RATE), Adam(RATE), {}),
    "pipedream, clipped": (pipelines.pipedream(RATE, max_norm=0.5), Adam(RATE, max_norm=0.5), {}),
    "pipedream, constant delay": (
        pipelines.pipedream(RATE, delays=(1,) * NUM_STAGES),
        Adam(RATE),
        {"taus": (1,) * NUM_STAGES, "micro": 3},
    ),
    "pipedream, micro-batches": (pipelines.pipedream(RATE), Adam(RATE), {"micro": 2}),
    "no stash, micro-batches": (
        transforms.delay_stages(pipelines.gpipe(RATE), stash=False),
        Adam(RATE),
        {"micro": 2, "stash": False},
    ),
    "gpipe": (pipelines.gpipe(RATE), Adam(RATE), {"taus": (0,) * NUM_STAGES, "micro": 3}),
    "pipemare": (
        pipelines.pipemare(RATE, annealing_steps=8),
        Adam(RATE, annealing=8),
        {"stash": False},
    ),
    "pipemare, stash": (
        pipelines.pipemare(RATE, annealing_steps=8, stash=True),
        Adam(RATE, annealing=8),
        {},
    ),
    "stage_momentum": (pipelines.stage_momentum(RATE), Adam(RATE, **BY_STAGE), {}),
    "stage_momentum, Adam, no stash": (
        pipelines.stage_momentum(RATE, nesterov=False, stash=False),
        Adam(RATE, largest_b1=0.99),
        {"stash": False},
    ),
    "weight_prediction": (pipelines.weight_prediction(RATE), Adam(RATE), {"predict": True}),
    "weight_prediction, no stash": (
        pipelines.weight_prediction(RATE, stash=False, weight_decay=0.3),
        Adam(RATE, wd=0.3),
        {"predict": True, "stash": False},
    ),
    "spectrain": (transforms.delay_stages(SPECTRAIN), Momentum(RATE), {"predict": True}),
    "nesterov_pipeline": (pipelines.nesterov_pipeline(RATE), Adam(RATE, **NESTEROV), {}),
    "nesterov_pipeline_no_stash": (
        pipelines.nesterov_pipeline_no_stash(RATE, annealing_steps=8),
        Adam(RATE, annealing=8, **BY_STAGE),
        {"stash": False},
    ),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", CASES)
def test_a_method_equals_a_loop_with_full_histories(case):
    optimizer, rule, options = CASES[case]
    noise = ao.noise.gaussian(0.1)
    versions, losses, gaps = replay(rule, NUM_UPDATES, KEY, noise=noise, **options)
    result = ao.simulate(
        network_problem(noise),
        optimizer,
        ao.pipeline.timeline(
            NUM_STAGES,
            NUM_UPDATES,
            num_micro_batches=options.get("micro", 1),
            synchronous=case == "gpipe",
        ),
        key=KEY,
        worker=ao.pipeline.gradient(),
        lanes=1,
        record={"gap": ao.pipeline.gap},
        evaluate_every=1,
    )
    for ours, theirs in zip(result.params, versions[-1], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    for i in range(NUM_STAGES):
        norms = [np.linalg.norm(version[i]) for version in versions]
        np.testing.assert_allclose(result.evaluations[f"norm{i}"], norms, rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.arrivals["loss"], losses, rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.arrivals["gap"], gaps, rtol=0, atol=1e-12)
    if case != "gpipe":
        assert gaps[-1] > 0.01


def test_every_method_is_replayed():
    assert {case.split(",")[0] for case in CASES} >= set(pipelines.__all__)
