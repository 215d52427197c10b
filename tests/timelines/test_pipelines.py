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
def test_bad_bubbles(num_stages, num_micro_batches):
    with pytest.raises(ValueError, match="must be an integer >= 1, got 0"):
        pipeline.bubble_fraction(num_stages, num_micro_batches)
