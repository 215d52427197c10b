"""The experiment on real workers: what is stored, what is claimed of it, what the page shows."""

import dataclasses
import pathlib
import shlex

import numpy as np
import pytest

from async_optax import protocols, runtimes, simulate_timeline
from experiments.real_workers.config import PRESETS
from experiments.real_workers.figures import draw
from experiments.real_workers.measure import staleness_of
from experiments.real_workers.run import EXPERIMENT
from experiments.real_workers.tables import holds, off, stored, tables

PAGE = pathlib.Path(__file__).parents[1] / "experiments/real_workers/README.md"
SUMMARY = stored()


def test_the_stored_runs_are_those_of_the_preset():
    preset = PRESETS["cpu"]
    expected = [(number, seed) for number in preset.num_workers for seed in preset.seeds]
    assert [(row["num_workers"], row["seed"]) for row in SUMMARY["rows"]] == expected
    assert {number for number, _ in expected} >= {2, 4}
    for row in SUMMARY["rows"]:
        assert row["commits"] == preset.num_commits[row["num_workers"]]
        slow = str(row["num_workers"] - 1)
        others = [time["mean"] for worker, time in row["job_times"].items() if worker != slow]
        assert row["job_times"][slow]["mean"] > 2 * max(others)


@pytest.mark.parametrize("row", SUMMARY["rows"], ids=lambda r: f"{r['num_workers']}-{r['seed']}")
def test_what_is_claimed_of_each_run(row):
    assert all(holds(row).values()), holds(row)


def test_a_claim_that_does_not_hold_is_seen():
    row = SUMMARY["rows"][0]
    other = dict(row["predicted"]["1"], mean=1.2 * row["predicted"]["1"]["mean"])
    wrong = row | {"predicted": row["predicted"] | {"1": other}}
    assert holds(wrong) == holds(row) | {"workers": False}
    assert holds(row | {"reached_at_commit": None})["target"] is False
    assert holds(row | {"replay_difference": 1e-3})["replay"] is False


def test_staleness_is_counted_by_worker():
    timeline = simulate_timeline(
        protocols.asynchronous(),
        runtimes.two_speed(3.0, law=runtimes.gamma(cv=0.3)),
        2,
        max_time=99,
    )
    found = staleness_of([timeline, timeline])
    pairs = list(zip(timeline.staleness.tolist(), timeline.worker.tolist(), strict=True))
    assert list(found) == ["all", "0", "1"]
    for worker in (0, 1):
        own = [tau for tau, who in pairs if who == worker]
        one = found[str(worker)]
        assert one["arrivals"] == len(own)
        assert one["mean"] == pytest.approx(np.mean(own))
        assert one["counts"] == [2 * own.count(tau) for tau in range(max(own) + 1)]


def test_the_page_shows_what_is_stored():
    page = PAGE.read_text()
    for line in tables(SUMMARY).splitlines():
        assert line in page
    worst = max(abs(off(row, name)) for row in SUMMARY["rows"] for name in row["measured"])
    assert f"at most {100 * worst:.1f} %" in page
    command = PRESETS["cpu"].command(4, 0, "results/real_workers/4-workers-2000-seed-0")
    shown = " ".join(page.replace("\\\n", " ").split())
    assert shlex.join(["async-optax", *command]) in shown


def test_the_figure_is_drawn(tmp_path):
    draw(tmp_path, SUMMARY | {"rows": SUMMARY["rows"][::2]})
    assert {path.name for path in tmp_path.iterdir()} == {"cpu-staleness.png", "cpu-staleness.pdf"}


def test_a_failed_run_ends_in_one_line(tmp_path, monkeypatch):
    preset = dataclasses.replace(PRESETS["smoke"], num_workers=(0,), num_commits={0: 1})
    monkeypatch.setitem(EXPERIMENT.presets, "smoke", preset)
    options = ["--output", str(tmp_path / "out"), "--ledger", str(tmp_path / "runs.jsonl")]
    with pytest.raises(SystemExit, match="num_workers must be an integer >= 1, got 0"):
        EXPERIMENT.main(["--preset", "smoke", *options])
