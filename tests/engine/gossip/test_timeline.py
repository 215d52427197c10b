"""When rounds of gossip end: against a loop, and where it can be said by hand."""

import numpy as np
import pytest

import async_optax as ao
from async_optax import runtimes, topologies
from tests.oracles import gossip

MIXINGS = {
    "ring": topologies.ring(5),
    "complete": topologies.complete(5),
    "varying": topologies.one_peer_exponential(5),
    "pairs": topologies.random_pairings(5, seed=2),
}
DELAYS = np.random.default_rng(0).integers(0, 3, (5, 5)) * ~np.eye(5, dtype=bool)


@pytest.mark.parametrize("name", MIXINGS)
@pytest.mark.parametrize("delays", [None, DELAYS])
@pytest.mark.parametrize("order", ["mix_first", "step_first"])
def test_rounds_end_when_the_loop_says(name, delays, order):
    law, num_rounds = runtimes.gamma(cv=0.8, machine_cv=0.5), 300  # more than a block of matrices
    timeline = ao.gossip.timeline(
        MIXINGS[name], law, num_rounds, seed=3, delays=delays, order=order
    )
    streams = law.job_times(5, seed=3)
    durations = np.array([[next(stream) for stream in streams] for _ in range(num_rounds)])
    links = MIXINGS[name].matrices_at(np.arange(num_rounds)) > 0
    by_link = np.zeros((5, 5), int) if delays is None else delays
    ends = gossip.finish_times(durations, links, by_link, order == "step_first")
    np.testing.assert_array_equal(timeline.time, ends.max(1))
    timeline.verify()
    assert timeline.num_workers == 1
    assert (timeline.staleness == 0).all()
    assert timeline.num_commits == num_rounds


def test_mixing_first_is_the_default_and_waits_less():
    timelines = [
        ao.gossip.timeline(MIXINGS["varying"], runtimes.gamma(), 100, **options)
        for options in ({}, {"order": "mix_first"}, {"order": "step_first"})
    ]
    default, mixing, stepping = (timeline.time for timeline in timelines)
    np.testing.assert_array_equal(default, mixing)
    assert (mixing <= stepping).all()
    assert mixing[-1] < 0.95 * stepping[-1]


def test_stepping_first_complete_graphs_wait_for_the_slowest_of_each_round():
    law = runtimes.exponential()
    streams = law.job_times(5, seed=0)
    durations = np.array([[next(stream) for stream in streams] for _ in range(50)])
    timeline = ao.gossip.timeline(MIXINGS["complete"], law, 50, order="step_first")
    np.testing.assert_allclose(timeline.time, np.cumsum(durations.max(1)))


def test_a_ring_is_faster_than_a_complete_graph():
    law = runtimes.exponential()
    ring, complete = (
        ao.gossip.timeline(mixing, law, 200, seed=1).end_time
        for mixing in (topologies.ring(16), topologies.complete(16))
    )
    assert ring < 0.8 * complete


@pytest.mark.parametrize(("order", "most"), [("step_first", 0.9), ("mix_first", 0.97)])
def test_delays_hide_a_message_that_is_waited_for(order, most):
    """Two agents that are slow in turn: with a delay of one, each waits for the other less."""
    pair = topologies.complete(2)
    late = np.array([[0, 1], [1, 0]])
    law = runtimes.empirical([1.0, 3.0])
    waiting, hiding = (
        ao.gossip.timeline(pair, law, 400, seed=5, delays=delays, order=order).end_time
        for delays in (None, late)
    )
    assert hiding < most * waiting


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: ao.gossip.timeline(np.eye(2), runtimes.gamma(), 3),
            TypeError,
            "mixing must be a mixing such as topologies.ring",
        ),
        (
            lambda: ao.gossip.timeline(MIXINGS["ring"], 1.0, 3),
            TypeError,
            "runtimes must be a runtime model",
        ),
        (
            lambda: ao.gossip.timeline(
                MIXINGS["ring"], runtimes.gamma().with_server(runtimes.gamma()), 3
            ),
            ValueError,
            "runtimes must be a plain law of times",
        ),
        (
            lambda: ao.gossip.timeline(MIXINGS["ring"], runtimes.gamma(), 0),
            ValueError,
            "num_rounds must be an integer >= 1, got 0",
        ),
        (
            lambda: ao.gossip.timeline(MIXINGS["ring"], runtimes.gamma(), 3, delays=[[1]]),
            ValueError,
            r"delays must have shape \(5, 5\)",
        ),
        (
            lambda: ao.gossip.timeline(MIXINGS["ring"], runtimes.gamma(), 3, order="last"),
            ValueError,
            "order must be one of mix_first, step_first; got 'last'",
        ),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
