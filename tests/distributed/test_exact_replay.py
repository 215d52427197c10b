"""Server and workers compute what the simulation computes, under every protocol, without Ray."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import async_optax as ao
from async_optax.distributed import Recording, compressed, replay
from tests.distributed.test_dispatcher import LAW, SPANS
from tests.distributed.virtual import VirtualRun
from tests.engine.problems import quadratic_problem
from tests.timelines.test_leaving import PROTOCOLS

KEY = jax.random.key(3)
PROBLEM = quadratic_problem()  # one for all: programs are compiled once
METHOD = ao.optimizers.async_heavy_tailed(
    0.2, threshold=1.5, weight_fn=ao.weights.inverse(), compensation=0.1
)


def both(tmp_path, protocol, spans, optimizer=METHOD, program=None, num_commits=24, **options):
    program = ao.gradient() if program is None else program
    training = PROBLEM, optimizer, program, KEY
    trace = tmp_path / "trace.jsonl"
    ran = VirtualRun(protocol, LAW.job_times(6, 0), spans, trace, training, **options)
    params = ran.run(num_commits)
    recording = Recording.load(tmp_path)
    again = replay(PROBLEM, optimizer, recording, worker=program, lanes=1)
    return params, again.params, recording


@pytest.mark.parametrize("name", PROTOCOLS)
def test_replay_ends_in_the_same_parameters(name, tmp_path, x64):
    params, again, recording = both(tmp_path, PROTOCOLS[name], SPANS)
    assert recording.timeline.num_commits == 24
    np.testing.assert_allclose(params, again, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["local", "top", "threshold", "bfloat16"])
def test_workers_that_keep_a_state_lose_it_with_their_process(kind, tmp_path, x64):
    amounts = {"top": 0.4, "threshold": 0.7, "bfloat16": None}
    if kind == "local":
        program = ao.local_steps(2, ao.optimizers.nesterov_delayed(0.1), 0.1, keep_state=True)
    else:
        program = compressed(kind=kind, amount=amounts[kind])
    params, again, recording = both(tmp_path, ao.protocols.rennala(3), SPANS, program=program)
    assert np.count_nonzero(recording.fresh & recording.timeline.accepted) > 6
    np.testing.assert_allclose(params, again, rtol=0, atol=1e-12)


def test_parameters_may_travel_in_bfloat16(tmp_path, x64):
    protocol = ao.protocols.asynchronous()
    narrow = both(tmp_path, protocol, None, slot_dtype=jnp.bfloat16)
    np.testing.assert_allclose(narrow[0], narrow[1], rtol=0, atol=1e-12)
    (tmp_path / "trace.jsonl").unlink()
    wide = both(tmp_path, protocol, None)
    assert np.abs(wide[0] - narrow[0]).max() > 1e-6  # it was another run


# Workers read other parameters than the server's: look-aheads, and predictions.
SERVING = {
    "dana_dc": {"num_workers": 6},
    "dana_gap_aware": {"num_workers": 6},
    "smega2": {"num_workers": 6},
    "linear_weight_prediction": {"num_steps": 5},
}


@pytest.mark.parametrize("name", SERVING)
def test_what_workers_read_need_not_be_the_parameters(name, tmp_path, x64):
    arguments = {"learning_rate": 0.05, "momentum": 0.5} | SERVING[name]
    training = PROBLEM, ao.optimizers.make(name, **arguments), ao.gradient(), KEY
    times, protocol = LAW.job_times(6, 0), ao.protocols.asynchronous()
    ran = VirtualRun(protocol, times, SPANS, tmp_path / "trace.jsonl", training)
    params = ran.run(24)
    assert np.abs(ran.server.served()[0] - params).max() > 1e-3
    again = replay(*training[:2], Recording.load(tmp_path), lanes=1)
    np.testing.assert_allclose(params, again.params, rtol=0, atol=1e-12)


def test_an_optimizer_may_compute_a_job_anew(tmp_path, x64):
    optimizer = ao.optimizers.make("dc_asgd", learning_rate=0.1)
    exact = ao.transforms.compensate_delay_exact()
    chained = optax.chain(exact, optimizer)
    params, again, _ = both(tmp_path, ao.protocols.asynchronous(), None, chained)
    np.testing.assert_allclose(params, again, rtol=0, atol=1e-12)


def test_from_trace_has_the_arrivals_of_the_recording(tmp_path):
    for protocol, size in ((ao.protocols.asynchronous(), 1), (ao.protocols.buffered(3), 3)):
        path = tmp_path / f"{size}.jsonl"
        VirtualRun(protocol, LAW.job_times(6, 0), SPANS, path).run(30)
        recording = Recording.load(path)
        timeline = ao.Timeline.from_trace(recording.measured_jobs(), size=size)
        for name in ("worker", "read_version", "version", "staleness", "commit", "weight"):
            np.testing.assert_array_equal(
                getattr(timeline, name), getattr(recording.timeline, name), err_msg=name
            )
