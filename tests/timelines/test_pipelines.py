"""Timelines of pipelines: against a recursion over stages and micro-batches; bad arguments."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from async_optax import pipeline
from async_optax.engine import compile_timeline

SIZES = {
    "num_stages": st.integers(1, 6),
    "num_updates": st.integers(1, 5),
    "num_micro_batches": st.integers(1, 7),
}


def finishing_times(times, num_micro_batches, num_updates, synchronous):
    """When the last stage has done each micro-batch: it starts when stage and input are ready."""
    ready, finished = [0.0] * len(times), []
    for job in range(num_updates * num_micro_batches):
        if synchronous and job % num_micro_batches == 0:
            ready = [max(ready)] * len(times)
        at = 0.0
        for i, time in enumerate(times):
            at = ready[i] = max(at, ready[i]) + time / num_micro_batches
        finished.append(at)
    return np.array(finished)


@settings(max_examples=30)
@given(**SIZES, synchronous=st.booleans(), data=st.data())
def test_commits_come_when_the_stages_are_done(
    num_stages, num_updates, num_micro_batches, synchronous, data
):
    times = data.draw(
        st.lists(st.floats(0.1, 5.0), min_size=num_stages, max_size=num_stages), label="times"
    )
    timeline = pipeline.timeline(
        num_stages,
        num_updates,
        num_micro_batches=num_micro_batches,
        synchronous=synchronous,
        stage_times=times,
    )
    timeline.verify()
    assert (timeline.num_commits, timeline.num_workers) == (num_updates, 1)
    assert compile_timeline(timeline).num_slots == 1
    np.testing.assert_array_equal(timeline.staleness, 0)
    np.testing.assert_allclose(timeline.weight.sum(), num_updates)
    expected = finishing_times(times, num_micro_batches, num_updates, synchronous)
    np.testing.assert_allclose(
        timeline.commit_times, expected[num_micro_batches - 1 :: num_micro_batches]
    )


def in_one_forward_one_backward(num_stages, num_micro_batches, num_jobs):
    """Updates that each stage has made between the passes of each job, ``[num_jobs, num_stages]``.

    Every pass takes one unit. A stage prefers a backward pass; it starts a forward pass if its
    input is there and fewer than P - i of its micro-batches are under way.
    """
    forward, backward = [0] * num_stages, [0] * num_stages
    made = np.zeros((num_jobs, num_stages), int)
    while backward[0] < num_jobs:
        ready_forward, ready_backward = forward.copy(), backward.copy()
        for i in range(num_stages):
            last = i == num_stages - 1
            gradients = ready_forward[i] if last else ready_backward[i + 1]
            inputs = num_jobs if i == 0 else ready_forward[i - 1]
            if backward[i] < gradients:
                job = backward[i]
                # The version that the job's update is made of, less the one that it has seen.
                made[job, i] += job // num_micro_batches
                backward[i] += 1
            elif forward[i] < inputs and forward[i] - backward[i] < num_stages - i:
                made[forward[i], i] -= backward[i] // num_micro_batches
                forward[i] += 1
    return made


@pytest.mark.parametrize("num_stages", [1, 4, 8])
@pytest.mark.parametrize("num_micro_batches", [1, 2, 3, 4, 9])
def test_delays_are_those_of_the_schedule(num_stages, num_micro_batches):
    made = in_one_forward_one_backward(num_stages, num_micro_batches, 20 * num_micro_batches)
    steady = made.reshape(20, num_micro_batches, num_stages)[10:]
    assert (steady == steady[:1]).all()
    low, high = (
        pipeline.delays(num_stages, num_micro_batches, round_up=up) for up in (False, True)
    )
    np.testing.assert_array_equal(steady[0, -1], low)  # of an update's last micro-batch
    np.testing.assert_array_equal(steady[0, 0], high)
    in_flight = np.arange(num_stages)[::-1]
    np.testing.assert_allclose(steady[0].mean(0), in_flight / num_micro_batches)
    published = [
        (2 * (num_stages - i) + 1) // (2 * num_micro_batches) for i in range(1, num_stages + 1)
    ]
    assert low == tuple(published)


@given(**SIZES)
def test_a_synchronous_pipeline_waits_for_its_bubbles(num_stages, num_updates, num_micro_batches):
    sizes = {"num_micro_batches": num_micro_batches, "synchronous": True}
    timeline = pipeline.timeline(num_stages, num_updates, **sizes)
    bubble = pipeline.bubble_fraction(num_stages, num_micro_batches)
    assert bubble == (num_stages - 1) / (num_micro_batches + num_stages - 1)
    np.testing.assert_allclose(timeline.waiting(), bubble, atol=1e-12)
    np.testing.assert_allclose(timeline.end_time, num_updates / (1 - bubble))
    whole = pipeline.timeline(num_stages, num_updates, **sizes, whole_batches=True)
    np.testing.assert_allclose(whole.commit_times, timeline.commit_times)
    assert whole.num_arrivals == num_updates
    assert (whole.weight == 1).all()


def test_an_asynchronous_pipeline_is_filled_once():
    timeline = pipeline.timeline(4, 100)
    np.testing.assert_array_equal(timeline.commit_times, np.arange(4.0, 104.0))
    np.testing.assert_allclose(timeline.utilisation(), 100 / 103)
    faster = pipeline.timeline(4, 100, num_micro_batches=10, stage_times=2.0)
    np.testing.assert_allclose(faster.commit_times, 0.6 + 2.0 * np.arange(1, 101))


def test_the_slowest_stage_decides():
    slow = pipeline.timeline(3, 10, stage_times=[1.0, 3.0, 0.5])
    np.testing.assert_allclose(np.diff(slow.commit_times), 3.0)
    assert slow.commit_times[0] == 4.5


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_stages": 0}, ValueError, "num_stages must be an integer >= 1, got 0"),
        ({"num_stages": 2.5}, TypeError, "num_stages must be an integer >= 1, got 2.5"),
        ({"num_updates": 0}, ValueError, "num_updates must be an integer >= 1, got 0"),
        ({"num_micro_batches": 0}, ValueError, "num_micro_batches must be an integer >= 1, got 0"),
        ({"synchronous": 1}, TypeError, "synchronous must be True or False, got 1"),
        ({"whole_batches": None}, TypeError, "whole_batches must be True or False, got None"),
        ({"stage_times": 0.0}, ValueError, "stage_times must be a finite number > 0, got 0.0"),
        ({"stage_times": [1.0, np.nan, 1.0]}, ValueError, "stage_times must be a finite number"),
        (
            {"stage_times": [1.0, 2.0]},
            ValueError,
            r"stage_times must be one number, or one for each of 3 stages, got shape \(2,\)",
        ),
        ({"stage_times": "slow"}, TypeError, "stage_times must be a finite number > 0"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        pipeline.timeline(**{"num_stages": 3, "num_updates": 4} | arguments)


@pytest.mark.parametrize(("num_stages", "num_micro_batches"), [(0, 1), (1, 0)])
@pytest.mark.parametrize("function", [pipeline.bubble_fraction, pipeline.delays])
def test_bad_bubbles_and_delays(function, num_stages, num_micro_batches):
    with pytest.raises(ValueError, match="must be an integer >= 1, got 0"):
        function(num_stages, num_micro_batches)
    with pytest.raises(TypeError, match="round_up must be True or False, got 1"):
        pipeline.delays(1, 1, round_up=1)
