"""Machines whose speed drifts: the integral of the speed is the work."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_optax import protocols, runtimes
from async_optax.timelines import simulate_timeline
from async_optax.timelines.runtimes.speeds import Speeds


@st.composite
def drifts(draw, num_rows=1):
    """Pieces, speeds, and a period or none."""
    lengths = draw(st.lists(st.floats(0.1, 5.0), max_size=4))
    times = [0.0, *np.cumsum(lengths).tolist()]
    speed = st.floats(0.05, 8.0)
    rows = [
        draw(st.lists(speed, min_size=len(times), max_size=len(times))) for _ in range(num_rows)
    ]
    rest = draw(st.none() | st.floats(0.1, 5.0))
    return times, rows, None if rest is None else times[-1] + rest


def work_done(times, speeds, period, until):
    """Piece after piece from time 0."""
    done = 0.0
    for number in itertools.count():
        start, piece = 0.0, number
        if period is not None:
            start, piece = number // len(times) * period, number % len(times)
        ends = [*times[1:], np.inf if period is None else period]
        begin, end = start + times[piece], start + ends[piece]
        if end >= until:
            return done + speeds[piece] * (until - begin)
        done += speeds[piece] * (end - begin)
    raise AssertionError


@given(drift=drifts(), start=st.floats(0.0, 30.0), work=st.floats(0.01, 60.0))
def test_the_integral_of_the_speed_is_the_work(drift, start, work):
    times, (row,), period = drift
    end = Speeds.make(times, row, period).finish(0, start, work)
    integral = work_done(times, row, period, end) - work_done(times, row, period, start)
    assert integral == pytest.approx(work, rel=1e-9, abs=1e-9)
    assert end > start


@given(start=st.floats(0.0, 1e6), work=st.floats(0.01, 1e6), speed=st.floats(0.1, 10.0))
def test_long_runs_of_a_short_period_take_no_time(start, work, speed):
    # Whole periods are skipped: a thousandth of a unit would take a while, one by one.
    drift = Speeds.make([0.0, 0.0005], [speed, 3 * speed], 0.001)
    assert drift.finish(0, start, work) - start == pytest.approx(
        work / (2 * speed), rel=1e-6, abs=0.002
    )


@given(drift=drifts(num_rows=3), seed=st.integers(0, 9))
def test_computations_take_their_drawn_work(drift, seed):
    times, rows, period = drift
    law = runtimes.gamma(cv=0.5)
    model = law.with_speeds(times, rows, period).with_transfers(upload=runtimes.exponential(0.2))
    timeline = simulate_timeline(protocols.asynchronous(), model, 3, num_commits=30, seed=seed)
    timeline.verify()
    for worker, drawn in enumerate(law.job_times(3, seed)):
        mine = timeline.worker == worker
        spans = zip(timeline.phases.compute[mine], timeline.phases.upload[mine], strict=True)
        for (compute, upload), work in zip(spans, drawn, strict=False):
            done = [work_done(times, rows[worker], period, t) for t in (compute, upload)]
            assert done[1] - done[0] == pytest.approx(work, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", ["asynchronous", "synchronous", "rennala", "bounded_staleness"])
@given(drift=drifts(), seed=st.integers(0, 9))
def test_a_common_drift_is_a_change_of_time(name, drift, seed):
    times, (row,), period = drift
    options = {"rennala": (4,), "bounded_staleness": (1,)}.get(name, ())
    protocol = getattr(protocols, name)(*options)
    plain = simulate_timeline(protocol, runtimes.exponential(), 4, num_commits=15, seed=seed)
    drifting = simulate_timeline(
        protocol,
        runtimes.exponential().with_speeds(times, row, period),
        4,
        num_commits=15,
        seed=seed,
    )
    for column in ("worker", "read_version", "version", "weight", "accepted", "commit"):
        np.testing.assert_array_equal(getattr(drifting, column), getattr(plain, column))
    clock = [work_done(times, row, period, t) for t in drifting.time]
    np.testing.assert_allclose(clock, plain.time, rtol=1e-9)


def test_speeds_of_their_own_by_hand():
    # Worker 0 halves its speed at 1 and takes it up again at 3; worker 1 does the contrary.
    model = runtimes.deterministic(2.0).with_speeds([0, 1, 3], [[1, 0.5, 1], [1, 2, 1]])
    timeline = simulate_timeline(protocols.asynchronous(), model, 2, max_time=6.0)
    np.testing.assert_array_equal(timeline.worker, [1, 1, 0, 1, 0, 1])
    np.testing.assert_array_equal(timeline.time, [1.5, 2.5, 3.0, 4.0, 5.0, 6.0])
    # As a period of four, worker 0's third job begins at full speed.
    model = runtimes.deterministic(2.0).with_speeds([0, 1, 3], [1, 0.5, 1], 4)
    timeline = simulate_timeline(protocols.asynchronous(), model, 1, num_commits=4)
    np.testing.assert_array_equal(timeline.time, [3.0, 5.0, 8.0, 11.0])


def test_a_speed_of_one_is_as_drawn():
    law = runtimes.gamma(cv=0.5)
    plain = simulate_timeline(protocols.asynchronous(), law, 3, num_commits=50)
    steady = simulate_timeline(
        protocols.asynchronous(), law.with_speeds([0.0], [1.0]), 3, num_commits=50
    )
    np.testing.assert_array_equal(steady.time, plain.time)
    assert steady.phases is None
