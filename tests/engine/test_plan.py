"""The plan: slots at their minimum, waves that never read what does not exist yet."""

import dataclasses

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

import async_optax as ao
from async_optax.engine import compile_timeline, cut_waves


@st.composite
def timelines(draw):
    num_workers = draw(st.integers(1, 9))
    size = draw(st.integers(1, num_workers))
    protocol = draw(
        st.sampled_from(
            [
                ao.protocols.asynchronous(),
                ao.protocols.synchronous(),
                ao.protocols.buffered(size, wait=True),
                ao.protocols.buffered(size, wait=False),
            ]
        )
    )
    law = draw(
        st.sampled_from(
            [ao.runtimes.exponential(), ao.runtimes.two_speed(5.0), ao.runtimes.pareto(1.1)]
        )
    )
    commits = draw(st.integers(1, 40))
    return ao.simulate_timeline(
        protocol, law, num_workers, num_commits=commits, seed=draw(st.integers(0, 9))
    )


def most_versions_alive(timeline):
    """Brute force: at each arrival, versions that exist and are still to be read."""
    most = 1
    for row in range(timeline.num_arrivals):
        existing = timeline.version[row]
        to_read = np.unique(timeline.read_version[row:])
        most = max(most, int(np.sum(to_read <= existing)))
    return most


@given(timeline=timelines())
def test_slots_hold_what_is_read_and_are_as_few_as_possible(timeline):
    plan = compile_timeline(timeline)
    assert plan.num_slots == most_versions_alive(timeline)
    assert plan.num_rows <= plan.num_slots + 1
    # Replay the buffer symbolically: every read finds the version it wants.
    buffer, version = np.zeros(plan.num_rows, int), 0
    for row in range(plan.num_arrivals):
        assert 0 <= plan.read_slot[row] < plan.num_rows
        assert buffer[plan.read_slot[row]] == timeline.read_version[row]
        version += timeline.commit[row]
        buffer[plan.write_slot[row]] = version
    np.testing.assert_array_equal(plan.version, timeline.version + timeline.commit)


@given(timeline=timelines(), lanes=st.integers(1, 12), cut=st.integers(0, 40))
def test_waves_are_greedy_and_only_read_existing_versions(timeline, lanes, cut):
    plan = compile_timeline(timeline)
    end = plan.num_arrivals
    boundaries = np.unique([min(cut, end), end])
    starts = cut_waves(plan, lanes, boundaries)
    assert starts[0] == 0
    assert starts[-1] == end
    assert set(boundaries) <= set(starts) | {0}
    for first, last in zip(starts[:-1], starts[1:], strict=True):
        assert 1 <= last - first <= lanes
        current = timeline.version[first]
        assert (timeline.read_version[first:last] <= current).all()
        if last - first < lanes and last not in boundaries:  # the next one had to wait
            assert timeline.read_version[last] > current


@given(timeline=timelines(), lanes=st.integers(1, 12), cut=st.integers(0, 40))
def test_no_worker_is_in_a_wave_twice_if_it_keeps_a_state(timeline, lanes, cut):
    plan = compile_timeline(timeline, workers_keep_state=True)
    end = plan.num_arrivals
    boundaries = np.unique([min(cut, end), end])
    starts = cut_waves(plan, lanes, boundaries)
    assert starts[0] == 0
    assert starts[-1] == end
    for first, last in zip(starts[:-1], starts[1:], strict=True):
        assert 1 <= last - first <= lanes
        current, present = timeline.version[first], timeline.worker[first:last]
        assert (timeline.read_version[first:last] <= current).all()
        assert len(np.unique(present)) == last - first
        if last - first < lanes and last not in boundaries:  # the next one had to wait
            assert timeline.read_version[last] > current or timeline.worker[last] in present
    # Nothing else of the plan depends on it.
    without = compile_timeline(timeline)
    for field in dataclasses.fields(plan):
        if field.name != "parent":
            values = getattr(plan, field.name), getattr(without, field.name)
            np.testing.assert_array_equal(*values)


def test_waves_of_workers_that_deliver_twice_per_commit():
    timeline = ao.simulate_timeline(
        ao.protocols.buffered(4), ao.runtimes.deterministic(), 2, num_commits=3
    )
    end = np.array([12])
    assert cut_waves(compile_timeline(timeline), 8, end).tolist() == [0, 5, 9, 12]
    plan = compile_timeline(timeline, workers_keep_state=True)
    assert cut_waves(plan, 8, end).tolist() == [0, 2, 4, 6, 8, 10, 12]


def test_slots_of_the_protocols():
    def num_slots(protocol, runtimes=None):
        runtimes = runtimes or ao.runtimes.gamma(cv=0.5)
        timeline = ao.simulate_timeline(protocol, runtimes, 16, num_commits=300)
        return compile_timeline(timeline).num_slots

    assert num_slots(ao.protocols.synchronous()) == 1
    assert num_slots(ao.protocols.asynchronous()) == 16
    assert num_slots(ao.protocols.buffered(4, wait=True)) <= 16


@pytest.mark.parametrize(
    ("spread", "expected"), [(None, 45), ("lognormal", 19)], ids=["equal workers", "unequal"]
)
def test_wave_lengths_of_many_workers(spread, expected):
    # Measured once on 20 000 arrivals of 128 workers: a change here is a change of the greedy cut.
    law = ao.runtimes.gamma(cv=0.5)
    if spread:
        quantiles = scipy.stats.norm.ppf(np.random.default_rng(0).random(128))
        means = np.exp(quantiles)
        law = ao.timelines.runtimes.RuntimeModel("spread", lambda draws: means, law.quantile)
    timeline = ao.simulate_timeline(ao.protocols.asynchronous(), law, 128, num_commits=20_000)
    plan = compile_timeline(timeline)
    waves = len(cut_waves(plan, 1024, np.array([plan.num_arrivals]))) - 1
    assert plan.num_arrivals / waves == pytest.approx(expected, rel=0.35)


def test_a_timeline_that_accepts_nothing_raises():
    timeline = ao.simulate_timeline(
        ao.protocols.synchronous(), ao.runtimes.gamma(), 3, num_commits=2
    )
    nothing = np.zeros_like(timeline.accepted)
    empty = dataclasses.replace(
        timeline,
        accepted=nothing,
        commit=nothing,
        version=0 * timeline.version,
        read_version=0 * timeline.version,
    )
    with pytest.raises(ValueError, match="accepts no arrival"):
        compile_timeline(empty)
