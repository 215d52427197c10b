"""Pictures of timelines: that they draw, and that legends show what occurs."""

import numpy as np
import pytest
from matplotlib.figure import Figure

import async_optax as ao
from async_optax import report
from async_optax.report import gantt

P, R = ao.protocols, ao.runtimes


def timeline_of(protocol, model, num_workers=4, max_time=60.0):
    return ao.simulate_timeline(protocol, model, num_workers, max_time=max_time)


def drawn(timeline, until=20.0):
    return set(report.draw_timeline(Figure().subplots(), timeline, until))


SLOW = R.two_speed(6.0)
FAILING = SLOW.with_failures(R.exponential(8.0), R.deterministic(4.0))
CASES = [
    (P.synchronous(), SLOW, {"computes", "waits", "server commits"}),
    (P.asynchronous(), SLOW, {"computes"}),
    (P.buffered(2), SLOW, {"computes", "server commits"}),
    (P.ringmaster(2), SLOW, {"computes", "computes, but is rejected"}),
    (P.ringmaster(2, stop=True), SLOW, {"computes", "aborted"}),
    (
        P.mindflayer(3.0, batch_size=20),
        SLOW,
        {"computes", "aborted", "past its time limit", "server commits"},
    ),
    (P.asynchronous(), FAILING, {"computes", "lost with its worker", "away"}),
    (
        P.asynchronous(),
        SLOW.with_transfers(upload=R.deterministic(0.5)),
        {"computes", "transfers"},
    ),
    (P.asynchronous(), SLOW.with_server(R.deterministic(0.2)), {"computes", "waits"}),
]


@pytest.mark.parametrize(("protocol", "model", "expected"), CASES)
def test_the_legend_shows_what_occurs(protocol, model, expected, tmp_path):
    timeline = timeline_of(protocol, model)
    assert drawn(timeline) == expected
    for draw in (report.plot_staleness, report.plot_utilisation):
        draw(tmp_path / "picture.png", {"title": timeline})
        assert (tmp_path / "picture.png").stat().st_size > 3000
    report.plot_timelines(tmp_path / "timelines.png", {"title": timeline}, until=20.0)
    assert (tmp_path / "timelines.png").stat().st_size > 3000


def test_waiting_and_being_away_are_told_apart():
    model = R.deterministic([1.0, 4.0]).with_availability({0: [(0.0, 10.0), (12.0, np.inf)]})
    assert drawn(timeline_of(P.synchronous(), model, 2)) >= {"waits", "away"}
    joins_late = R.deterministic([1.0, 4.0]).with_availability({0: [(12.0, np.inf)]})
    timeline = timeline_of(P.bounded_staleness(0), joins_late, 2)
    assert drawn(timeline) == {"computes", "waits", "away"}
    never_idle = timeline_of(P.asynchronous(), joins_late, 2)
    assert drawn(never_idle) == {"computes", "away"}


def test_many_workers_are_thinned_out_evenly():
    axes = Figure().subplots()
    report.draw_timeline(axes, timeline_of(P.synchronous(), SLOW, 200), 20.0)
    shown = gantt.shown_workers(200)
    assert axes.get_ylabel() == "worker (40 of 200)"
    assert (shown[0], shown[-1], len(shown)) == (0, 199, 40)
    assert set(np.diff(shown)) == {5, 6}
    assert axes.get_yticklabels()[0].get_text() == "0"
    report.draw_timeline(axes, timeline_of(P.synchronous(), SLOW, 16), 20.0)
    assert axes.get_ylabel() == "worker"


def test_commits_that_would_hide_the_jobs_are_said_instead():
    assert gantt.describe_commits(timeline_of(P.buffered(2), SLOW), 20.0) == ""
    many = timeline_of(P.buffered(2), SLOW, max_time=400.0)
    assert gantt.describe_commits(many, 400.0) == f"{many.num_commits} commits"
    assert "server commits" not in drawn(many, 400.0)
    every = gantt.describe_commits(timeline_of(P.asynchronous(), SLOW), 20.0)
    assert every == "the end of every job is a commit"
    accepted = gantt.describe_commits(timeline_of(P.ringmaster(2), SLOW), 20.0)
    assert accepted == "the end of every accepted job is a commit"


def test_large_timelines_are_summed_up(tmp_path):
    """More than 20 000 arrivals and 64 workers: bands and areas, not dots and bars."""
    timeline = timeline_of(P.token_control(100), R.gamma(), 100, max_time=300.0)
    assert timeline.num_arrivals > 20_000
    axes = Figure().subplots()
    from async_optax.report.staleness import _draw_over_time

    _draw_over_time(axes, timeline)
    assert axes.get_legend_handles_labels()[1] == ["1 % to 99 %", "median"]
    report.plot_staleness(tmp_path / "staleness.png", {"tokens": timeline})
    report.plot_utilisation(tmp_path / "utilisation.png", {"tokens": timeline})
    assert all(path.stat().st_size > 3000 for path in tmp_path.iterdir())
