"""Protocols compared on one cluster, against what can be counted by hand."""

import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

import async_optax as ao
from async_optax import cluster, report
from async_optax.timelines import read_jobs

P, R = ao.protocols, ao.runtimes


def compare(protocols, times, max_time):
    return cluster.compare_protocols(
        protocols, R.deterministic(times), len(times), max_time=max_time
    )


def test_throughput_is_the_sum_of_rates_or_that_of_the_slowest():
    times = [1.0, 2.0, 4.0, 8.0]
    synchronous, asynchronous = compare([P.synchronous(), P.asynchronous()], times, 800.0)
    assert synchronous.throughput == len(times) / max(times)
    assert synchronous.commit_rate == 1 / max(times)
    assert asynchronous.throughput == sum(1 / time for time in times)
    assert asynchronous.commit_rate == asynchronous.throughput
    assert synchronous.speedup == 1
    assert asynchronous.speedup == asynchronous.throughput / synchronous.throughput
    assert asynchronous.staleness_mean == pytest.approx(len(times) - 1, abs=0.01)
    assert synchronous.staleness_max == 0


def test_two_workers_by_hand():
    """Worker 0 computes 1 of 4 units; in the other 3 it could have computed 3 gradients."""
    (row,) = compare([P.synchronous()], [1.0, 4.0], 40.0)
    assert row.gradients_lost_to_waiting == 30
    assert row.utilisation == (0.25 + 1) / 2
    assert row.least_utilisation == 0.25
    assert row.waiting == 0.75 / 2
    assert row.aborted == 0
    assert (row.num_computed, row.num_rejected, row.num_lost) == (20, 0, 0)
    assert "synchronous loses 30 of 50 gradients (60 %) to waiting" in cluster.verdict([row])


def test_transfers_count_as_the_time_of_a_job():
    """A round takes 5; worker 0, at 2 per job, waits 3 of them: 1.5 gradients each."""
    model = R.deterministic([1.0, 4.0]).with_transfers(upload=R.deterministic(1.0))
    (row,) = cluster.compare_protocols([P.synchronous()], model, 2, max_time=50.0)
    assert row.gradients_lost_to_waiting == pytest.approx(15.0)


def test_rejected_and_aborted_jobs_are_told_apart():
    ignoring, stopping = compare([P.ringmaster(1), P.ringmaster(1, stop=True)], [1.0, 3.5], 35.0)
    assert ignoring.num_rejected == 10
    assert ignoring.num_lost == ignoring.aborted == 0
    assert stopping.num_rejected == 0
    assert stopping.num_lost == 17
    assert stopping.utilisation + stopping.aborted == pytest.approx(1)


@pytest.mark.parametrize("num_workers", [1, 2, 3, 16])
def test_defaults_run_and_shares_add_up_to_one(num_workers):
    model = R.two_speed(4.0, law=R.gamma(cv=0.5)).with_failures(R.exponential(50.0), R.gamma())
    protocols = cluster.default_protocols(num_workers)
    rows = cluster.compare_protocols(protocols, model, num_workers, max_time=60.0)
    names = [row.protocol for row in rows]
    assert names == [protocol.name for protocol in protocols]
    assert len(set(names)) == len(names)
    for row in rows:
        # With one worker the run ends when it is away: then a synchronous run has stalled.
        assert not row.problem or num_workers == 1
        if not row.problem:
            assert row.utilisation + row.waiting + row.aborted == pytest.approx(1)
            assert row.staleness_mean <= row.staleness_max


def test_a_protocol_that_cannot_run_says_why_and_stops_nobody():
    seen = []
    rows = cluster.compare_protocols(
        [P.buffered(3, wait=True), P.asynchronous(), P.mindflayer(0.5)],
        R.deterministic([1.0, 4.0]),
        2,
        max_time=40.0,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert "size must be <= num_workers" in rows[0].problem
    assert math.isnan(rows[0].throughput)
    assert rows[0].as_dict()["throughput"] is None
    assert rows[1].speedup == 2.5  # synchronous was simulated though nobody named it
    assert rows[2].problem
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    legend = report.comparison_legend(rows)
    assert f"{rows[0].protocol} does not run: {rows[0].problem}" in legend


def test_wrong_arguments_are_refused():
    model = R.deterministic([1.0, 4.0])
    with pytest.raises(ValueError, match="protocols must name at least one"):
        cluster.compare_protocols([], model, 2, max_time=1.0)
    with pytest.raises(ValueError, match="3 workers"):
        cluster.compare_protocols([P.synchronous()], model, 3, max_time=1.0)
    with pytest.raises(ValueError, match=r"about 1.2e\+09 arrivals"):
        cluster.compare_protocols([P.synchronous()], model, 2, max_time=1e9)
    with pytest.raises(ValueError, match="num_workers must be"):
        cluster.default_max_time(model, 0)


def test_default_time_gives_the_median_worker_its_jobs():
    assert cluster.default_max_time(R.deterministic([1.0, 2.0, 9.0]), 3) == 400
    with_transfers = R.deterministic(2.0).with_transfers(download=R.deterministic(1.0))
    assert cluster.default_max_time(with_transfers, 5) == 600
    assert cluster.default_max_time(R.deterministic(1.0), 20_000) == 25  # half a million in all


def test_facts_of_a_trace():
    rows = [("a", k, k + 1.0) for k in range(99)] + [("b", 0.0, 100.0)]
    facts = cluster.describe_trace(read_jobs(rows))
    assert (facts.num_workers, facts.num_jobs, facts.duration) == (2, 100, 100.0)
    assert facts.computing == 199 / 200
    assert (facts.median_time, facts.p99_time) == (1.0, 1.0)
    assert (facts.fastest_worker, facts.slowest_worker) == ("a", "b")
    assert any("100 times as long" in line for line in report.describe_facts(facts))


def test_the_report_is_narrow_and_the_files_are_there(tmp_path):
    model = R.two_speed(8.0)
    protocols = [*cluster.default_protocols(200), P.buffered(201, wait=True)]
    rows = cluster.compare_protocols(protocols, model, 200, max_time=30.0)
    console = Console(width=200, file=io.StringIO())
    console.print(report.comparison_table(rows))
    lines = console.file.getvalue().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 100
    assert not any("…" in line for line in lines)
    report.write_comparison(tmp_path / "summary.json", rows, {"num_workers": 200})
    content = json.loads((tmp_path / "summary.json").read_text())
    assert [row["protocol"] for row in content["rows"]] == [row.protocol for row in rows]
    assert content["rows"][-1]["problem"]
    assert content["verdict"] == cluster.verdict(rows)
    report.plot_comparison(tmp_path / "comparison.png", rows)
    assert (tmp_path / "comparison.png").stat().st_size > 10_000
    some = report.typical_timelines(rows)
    assert len(some) == 6
    assert {"synchronous", "asynchronous"} <= set(some)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.0706, "0.071"), (0.99965, "1.00"), (9.9961, "10.0"), (99.96, "100")]
    + [(5e-5, "5e-05"), (9999, "9999"), (9999.7, "10.0k"), (442_241, "442k"), (2.5e6, "2.5M")]
    + [(np.nan, "-"), (99_960, "100k"), (999_600, "1.0M")],
)
def test_numbers_take_five_characters(value, shown):
    from async_optax.report.cluster import _short

    assert _short(value) == shown


def test_a_slow_server_is_named_as_the_bottleneck():
    model = R.deterministic().with_server(R.deterministic(1.0))
    rows = cluster.compare_protocols([P.synchronous(), P.asynchronous()], model, 4, max_time=200.0)
    assert any("for the server: it is the bottleneck" in line for line in cluster.verdict(rows))
    quick = R.deterministic().with_server(R.deterministic(0.01))
    rows = cluster.compare_protocols([P.synchronous(), P.asynchronous()], quick, 4, max_time=200.0)
    assert not any("bottleneck" in line for line in cluster.verdict(rows))


def test_rejected_work_is_told_from_work_that_counts():
    # Worker 1 is always too late: all of its time goes into gradients nobody uses.
    protocol = P.synchronous(backup=1)
    times = R.deterministic([1.0, 3.5])
    row = cluster.compare_protocols([protocol], times, 2, max_time=35.0)[0]
    assert (row.utilisation, row.rejected, row.useful) == (1.0, 0.5, 0.5)


def test_workers_with_few_jobs_are_named():
    rows = [("busy", float(k), k + 1.0) for k in range(30)] + [("shy", 0.0, 1.0)]
    facts = cluster.describe_trace(read_jobs(rows))
    assert (facts.names, facts.few_jobs) == (("busy", "shy"), ("shy",))
    assert "fewer than 20 jobs" in report.describe_facts(facts)[-1]
    assert "shy" in report.describe_facts(facts)[-1]
