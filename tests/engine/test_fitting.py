"""What does not fit is refused in one line: timelines, recorders and worker programs."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

import async_optax as ao
from async_optax import topologies
from async_optax.engine.program import run_chunk
from async_optax.optimizers import pipelines
from tests.engine.pipeline.oracle import NUM_STAGES, network_problem
from tests.engine.problems import make_timeline, quadratic_problem

N = 4
RING = topologies.ring(N)
SERVER, AGENTS, STAGED = (
    quadratic_problem(),
    ao.gossip.problem(quadratic_problem(), N),
    network_problem(),
)
SQUARE = ao.gossip.problem(quadratic_problem(size=N), N)  # one agent is as long as there are agents
ONE_WORKER, WORKERS = make_timeline(20, num_workers=1), make_timeline(20, num_workers=N)
ROUNDS = ao.gossip.timeline(RING, ao.runtimes.gamma(), 20)
PIPELINE = ao.pipeline.timeline(NUM_STAGES, 5)
DRAINED = ao.pipeline.timeline(NUM_STAGES, 5, synchronous=True)
D_PSGD, AD_PSGD = ao.optimizers.d_psgd(0.1, RING), ao.optimizers.ad_psgd(0.1, RING)
EASGD, LATE = ao.optimizers.easgd(0.1, 0.2), topologies.delayed_links(RING, 0.5)
PIPEDREAM, PIPEMARE = pipelines.pipedream(0.1), pipelines.pipemare(0.1, 10)

TIMELINES = {
    "workers of pipedream": (STAGED, PIPEDREAM, WORKERS, "must have one worker, got 4: the optim"),
    "workers of pipemare": (
        STAGED,
        PIPEMARE,
        WORKERS,
        "must have one worker, got 4: the optimizer",
    ),
    "workers of d_psgd": (
        AGENTS,
        D_PSGD,
        WORKERS,
        "must have one worker, got 4: the optimizer has",
    ),
    "workers of pc_asgd": (
        AGENTS,
        ao.optimizers.pc_asgd(0.1, RING, LATE, 2),
        WORKERS,
        "must have one worker, got 4: the optimizer has",
    ),
    "other agents": (
        AGENTS,
        D_PSGD,
        ao.gossip.timeline(topologies.ring(7), ao.runtimes.gamma(), 20),
        r"rounds of 7 agents, and needs a problem of as many, ao.gossip.problem\(agent, 7\); got "
        "one of 4",
    ),
    "no agents": (
        SERVER,
        ao.optimizers.sgd(0.1),
        ROUNDS,
        "of rounds of 4 agents.*one of no agents",
    ),
    "other stages": (
        STAGED,
        PIPEDREAM,
        ao.pipeline.timeline(3, 5),
        "of a pipeline of 3 stages, but the model has 4",
    ),
    "other stages of gpipe": (
        STAGED,
        pipelines.gpipe(0.1),
        ao.pipeline.timeline(3, 5, synchronous=True),
        "of a pipeline of 3 stages, but the model has 4",
    ),
    "delays without their time": (
        STAGED,
        PIPEDREAM,
        DRAINED,
        r"synchronous pipeline, in which no stage is behind, .* by \(3, 2, 1, 0\) updates",
    ),
    "no delays and no bubbles": (
        STAGED,
        pipelines.gpipe(0.1),
        PIPELINE,
        "asynchronous pipeline, which waits for no bubbles, but the optimizer delays no stages",
    ),
    "rounds in a pipeline": (AGENTS, D_PSGD, PIPELINE, "the optimizer delays no stages"),
}


def refusal(*arguments, **options):
    """The message of a run that is refused before anything is compiled."""
    before = run_chunk._cache_size()
    with pytest.raises((ValueError, TypeError)) as raised:
        ao.simulate(*arguments, key=jax.random.key(0), lanes=1, **options)
    assert run_chunk._cache_size() == before
    assert "\n" not in str(raised.value)
    return raised


@pytest.mark.parametrize("case", TIMELINES)
def test_a_timeline_made_for_something_else(case):
    problem, optimizer, timeline, message = TIMELINES[case]
    staged = problem is STAGED
    worker = ao.pipeline.gradient() if staged else ao.gossip.gradients()
    refused = refusal(problem, optimizer, timeline, worker=None if problem is SERVER else worker)
    assert refused.match(message)


def test_a_loaded_timeline_still_knows(tmp_path):
    PIPELINE.save(tmp_path / "pipeline.npz")
    loaded = ao.Timeline.load(tmp_path / "pipeline.npz")
    refusal(STAGED, pipelines.gpipe(0.1), loaded).match("waits for no bubbles")


def test_rows_must_be_fresh():
    ao.timelines.require_fresh_rows(ONE_WORKER)
    stale = dataclasses.replace(ONE_WORKER, read_version=np.maximum(ONE_WORKER.version - 1, 0))
    with pytest.raises(
        ValueError, match="timeline row 1 has staleness 1: the optimizer has delays"
    ):
        ao.timelines.require_fresh_rows(stale)
    refusal(AGENTS, D_PSGD, stale, worker=ao.gossip.gradients()).match("row 1 has staleness 1")


RECORDS = {
    "norm of a copy": (
        (SERVER, EASGD, WORKERS),
        ao.gossip.elastic_steps(2),
        ["gradient_norm"],
        r"record\['gradient_norm'\] fails: workers send no gradient here but ElasticCopy",
    ),
    "gap of a copy": (
        (SERVER, EASGD, WORKERS),
        ao.gossip.elastic_steps(2),
        ["gap"],
        r"record\['gap'\] fails: the optimizer serves workers something else than the parameters",
    ),
    "gap of an agent": (
        (SQUARE, AD_PSGD, WORKERS),
        ao.gossip.agent_gradient(),
        ["gap"],
        r"record\['gap'\] fails: the optimizer serves workers something else than the parameters",
    ),
    "distance without agents": (
        (SERVER, ao.optimizers.sgd(0.1), WORKERS),
        None,
        {"far": ao.gossip.consensus_distance},
        r"record\['far'\] is for problems of many agents, ao.gossip.problem\(...\), got Problem",
    ),
    "a typo": (
        (SERVER, EASGD, WORKERS),
        ao.gossip.elastic_steps(2),
        {"my": lambda info: info.los},
        r"record\['my'\] fails: AttributeError: 'ArrivalInfo' object has no attribute 'los'",
    ),
    "an error of several lines": (
        (SERVER, ao.optimizers.sgd(0.1), WORKERS),
        None,
        {"my": lambda info: info.params + info.params[:2]},
        r"record\['my'\] fails: TypeError: add got incompatible shapes",
    ),
    "no function": (
        (SERVER, EASGD, WORKERS),
        ao.gossip.elastic_steps(2),
        {"my": 3},
        r"record\['my'\] must be a function of an ArrivalInfo, got 3",
    ),
    "no name": (
        (SERVER, ao.optimizers.sgd(0.1), WORKERS),
        None,
        [1],
        "record must name some of loss, gradient_norm, update_norm, gap; got 1 of type int",
    ),
    "no name of a function": (
        (SERVER, ao.optimizers.sgd(0.1), WORKERS),
        None,
        {1: ao.pipeline.gap},
        "record must have strings as names, got 1",
    ),
}


@pytest.mark.parametrize("case", RECORDS)
def test_a_recorder_that_would_record_something_else(case):
    arguments, worker, record, message = RECORDS[case]
    refusal(*arguments, worker=worker, record=record).match(message)


PROGRAMS = {
    "default for a copy": (
        SERVER,
        EASGD,
        WORKERS,
        None,
        r"ao.gossip.elastic_steps\(num_steps\) for",
    ),
    "default for an agent": (
        AGENTS,
        AD_PSGD,
        WORKERS,
        None,
        r"be ao.gossip.agent_gradient\(\) for",
    ),
    "default that would run": (SQUARE, AD_PSGD, WORKERS, None, r"ao.gossip.agent_gradient\(\) for"),
    "all instead of one": (
        AGENTS,
        AD_PSGD,
        WORKERS,
        ao.gossip.gradients(),
        r"params must have shape \(4, 3\) .* \(3,\).* ad_psgd, .* worker=ao.gossip.agent_gradient",
    ),
    "one instead of all": (
        AGENTS,
        D_PSGD,
        ROUNDS,
        ao.gossip.agent_gradient(),
        r"params must have shape \(3,\) .* got \(4, 3\): .* worker=ao.gossip.gradients\(\)",
    ),
    "steps for two versions": (
        STAGED,
        PIPEMARE,
        PIPELINE,
        ao.local_steps(2, optax.sgd(0.1), 0.1),
        r"program must be ao.pipeline.gradient\(\) for this optimizer.*; got LocalSteps",
    ),
}


@pytest.mark.parametrize("case", PROGRAMS)
def test_a_worker_program_of_another_optimizer(case):
    problem, optimizer, timeline, worker, message = PROGRAMS[case]
    refusal(problem, optimizer, timeline, worker=worker).match(message)


def test_the_norm_of_an_agents_gradient_is_recorded():
    """It is like one row of the parameters, and of the same structure."""
    result = ao.simulate(
        AGENTS,
        AD_PSGD,
        WORKERS,
        key=jax.random.key(0),
        worker=ao.gossip.agent_gradient(),
        lanes=1,
        record={
            "ours": lambda info: optax.tree.norm(info.gradient),
            "norm": ao.engine.record.RECORDERS["gradient_norm"],
        },
    )
    np.testing.assert_allclose(result.arrivals["norm"], result.arrivals["ours"], rtol=1e-6)
