"""Contests and their reports: fair, reproducible, readable."""

import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from async_optax import noise, protocols, report, runtimes, weights
from async_optax.contest import Contest, Entrant, Run, Standing, mean_time_to_target, run_contest
from async_optax.demo import demo_contest
from async_optax.engine import Divergence
from async_optax.problems import digits

CONTEST = Contest(
    problem=digits(hidden=(8,)).with_noise(noise.alpha_stable(1.2, 0.05)),
    entrants=[
        Entrant("sgd", protocols.synchronous(), baseline=True),
        Entrant("sgd", protocols.asynchronous()),
        Entrant(
            "async_heavy_tailed",
            protocols.buffered(2),
            {"threshold": 0.05, "weight_fn": weights.polynomial(0.5)},
            "coordinate",
        ),
        Entrant("dc_asgd", protocols.asynchronous(), {"strength": 1e6}, "absurd"),
    ],
    runtimes=runtimes.two_speed(4.0, law=runtimes.gamma(cv=0.5)),
    num_workers=4,
    max_time=60.0,
    learning_rates=[0.125, 0.5],
    seeds=(0, 1),
    target=0.3,
    num_evaluations=20,
    description={"noise": "some"},
)


@pytest.fixture(scope="module")
def standings():
    return run_contest(CONTEST)


def test_rows(standings):
    rows = report.rows(standings)
    assert [row["protocol"] for row in rows][:2] == ["synchronous", "asynchronous"]
    heavy = rows[2]
    assert heavy["method"] == "async_heavy_tailed (coordinate)"
    assert heavy["final_accuracy"] > 0.5
    assert heavy["time_to_target"] < CONTEST.max_time
    finals = standings[2].final_accuracies
    assert heavy["final_accuracy"] == pytest.approx(np.mean(finals))
    assert heavy["final_accuracy_spread"] == pytest.approx(np.std(finals, ddof=1))


def test_divergence_is_reported_with_version_and_time(standings):
    row = report.rows(standings)[3]
    assert row["num_diverged"] == 4
    assert [where["seed"] for where in row["diverged"]] == [0, 1]
    assert all(where["version"] > 0 and 0 < where["time"] < 60 for where in row["diverged"])
    assert row["time_to_target"] is None
    assert row["num_learning_rates_near_best"] == 0
    text = printed(report.standings_table(CONTEST, standings))
    assert "✗ v" in text
    assert "nan" not in text.lower()


def printed(table):
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_the_widest_table_fits_a_terminal():
    contest = demo_contest()
    runs = {
        2**-7: [fake_run(0.9, 123.4), fake_run(0.8, 200.0, Divergence(10, 10.0, "loss"))],
        2**-6: [fake_run(0.1, None)] * 2,
        2**-5: [fake_run(0.1, None)] * 2,
    }
    standings = [Standing(entrant, runs, 2**-7, 2**-7, 10.66) for entrant in contest.entrants]
    text = printed(report.standings_table(contest, standings))
    assert "…" not in text
    assert "0.0078*" in text
    assert "0.450 ±0.636†" in text
    assert "10.7x" in text
    assert "162 @0.0078" in text
    lines = report.legend(contest, standings)
    assert max(map(len, lines)) <= 80
    assert [line[0] for line in lines if line[0] in "*†✗"] == ["*", "†"]


def test_the_fastest_rate_is_not_the_most_accurate(standings):
    for standing, row in zip(standings, report.rows(standings), strict=True):
        times = [mean_time_to_target(runs) for runs in standing.runs.values()]
        reached = [time for time in times if time is not None]
        assert row["fastest_time_to_target"] == min(reached, default=None)


def test_summaries_describe_their_run(standings, tmp_path):
    report.write_summary(tmp_path / "summary.json", CONTEST, standings)
    content = json.loads((tmp_path / "summary.json").read_text())
    assert content["setting"]["noise"] == "some"
    assert content["setting"]["num_evaluations"] == 20
    assert content["rows"][2]["arguments"] == {
        "threshold": 0.05,
        "weight_fn": "polynomial(power=0.5)",
    }
    assert {"async_optax", "jax"} <= set(content["versions"])


def test_summaries_are_identical_for_equal_seeds(standings, tmp_path):
    report.write_summary(tmp_path / "first.json", CONTEST, standings)
    report.write_summary(tmp_path / "second.json", CONTEST, run_contest(CONTEST))
    first = (tmp_path / "first.json").read_bytes()
    assert first == (tmp_path / "second.json").read_bytes()
    content = json.loads(first)
    assert len(content["grid"]) == 4 * 2
    assert content["setting"]["target"] == 0.3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["first.json", "second.json"]


def test_pictures_are_drawn_and_reproducible(standings, tmp_path):
    timelines = {"asynchronous": CONTEST.timeline(protocols.asynchronous(), 0)}
    for round_ in ("a", "b"):
        folder = tmp_path / round_
        folder.mkdir()
        report.plot_accuracy(folder / "accuracy.png", CONTEST, standings)
        report.plot_robustness(folder / "robustness.png", CONTEST, standings)
        report.plot_timelines(folder / "timelines.png", timelines, until=10.0)
    for name in ("accuracy.png", "robustness.png", "timelines.png"):
        picture = Image.open(tmp_path / "a" / name)
        assert min(picture.size) > 200
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 20  # not blank
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def fake_run(accuracy, time_to_target, diverged=None):
    return Run(0, np.array([0.0, 1.0]), np.array([0.1, accuracy]), time_to_target, diverged)


def test_near_best_counts_two_points():
    runs = {0.1: [fake_run(0.90, 5.0)], 0.2: [fake_run(0.88, 4.0)], 0.4: [fake_run(0.87, 3.0)]}
    standing = Standing(CONTEST.entrants[0], runs, 0.1, None, None)
    assert standing.num_near_best() == 2


def test_a_target_missed_by_one_seed_is_not_reached():
    runs = {0.1: [fake_run(0.9, 5.0), fake_run(0.9, None)]}
    assert Standing(CONTEST.entrants[0], runs, 0.1, None, None).time_to_target is None
    runs = {0.1: [fake_run(0.9, 5.0), fake_run(0.9, 7.0)]}
    assert Standing(CONTEST.entrants[0], runs, 0.1, None, None).time_to_target == 6.0


def test_a_diverged_run_counts_as_nothing():
    lost = fake_run(0.9, 1.0, Divergence(3, 2.0, "loss"))
    assert lost.final_accuracy == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_workers": 0}, "num_workers must be an integer >= 1, got 0"),
        ({"learning_rates": []}, "learning_rates must not be empty"),
        ({"learning_rates": [0.1, -1.0]}, "learning_rate must be a finite number > 0, got -1.0"),
        ({"seeds": ()}, "seeds must not be empty"),
        ({"seeds": (-1,)}, "seed must be an integer >= 0"),
        ({"seeds": (2**31,)}, r"seed must be an integer >= 0 and < 2\*\*31"),
        ({"seeds": (0, 0)}, "seeds must differ from each other"),
        ({"learning_rates": [0.1, 0.1]}, "learning_rates must differ"),
        ({"entrants": [CONTEST.entrants[0]] * 2}, "entrants must differ"),
        (
            {"problem": dataclasses.replace(CONTEST.problem, evaluate=None)},
            "problem.evaluate must return 'accuracy'",
        ),
        ({"target": 1.5}, "target must be"),
        ({"max_time": 1e9}, "max_time=1e\\+09 means about 2..e\\+09 arrivals per run"),
        ({"entrants": [Entrant("sgdd", protocols.asynchronous())]}, "unknown method 'sgdd'"),
        (
            {"entrants": [Entrant("sgd", protocols.buffered(9, wait=True))]},
            "waits for more workers",
        ),
        (
            {"entrants": [Entrant("clipped_sgd", protocols.asynchronous(), {"norm": 1})]},
            "method 'clipped_sgd': .*norm",
        ),
    ],
)
def test_bad_settings_raise_before_anything_runs(change, message):
    with pytest.raises(ValueError, match=message):
        run_contest(dataclasses.replace(CONTEST, **change))


def write_two_files(folder, error=None):
    with report.all_or_nothing(folder) as staging:
        (staging / "first.txt").write_text("new")
        if error:
            raise error
        (staging / "second.txt").write_text("new")


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_writing_is_all_or_nothing(tmp_path, error):
    (tmp_path / "first.txt").write_text("old")
    with pytest.raises(type(error)):
        write_two_files(tmp_path, error)
    assert (tmp_path / "first.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["first.txt"]
    write_two_files(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["first.txt", "second.txt"]
    assert (tmp_path / "first.txt").read_text() == "new"


def test_an_error_in_one_run_stops_the_others():
    calls = []

    def progress(done, total):
        calls.append(done)
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_contest(dataclasses.replace(CONTEST, max_time=2000.0), progress)
    assert calls == [0, 1]


@pytest.mark.slow
def test_the_claim_of_the_demo_holds_for_this_code():
    """One seed and two learning rates of the demo, with the entrants that the claim is about."""
    demo = demo_contest()
    entrants = [
        entrant
        for entrant in demo.entrants
        if entrant.baseline
        or (entrant.protocol == protocols.asynchronous() and entrant.variant == "coord")
        or (entrant.protocol == protocols.asynchronous() and entrant.method == "sgd")
    ]
    contest = dataclasses.replace(demo, entrants=entrants, learning_rates=[0.25, 2.0], seeds=(0,))
    standings = run_contest(contest)
    times = [np.inf if s.time_to_target is None else s.time_to_target for s in standings]
    synchronous = min(t for s, t in zip(standings, times, strict=True) if s.entrant.baseline)
    ours, plain = times[-1], times[-2]
    assert standings[-1].entrant.variant == "coord"
    assert ours < synchronous / 2
    assert ours <= plain
    assert standings[-1].final_accuracies[0] > 0.93


def test_the_demo_is_a_fair_contest():
    contest = demo_contest()
    contest.check()
    assert len(contest.seeds) >= 3
    by_protocol = {}
    for entrant in contest.entrants:
        by_protocol.setdefault(entrant.protocol.name, []).append(entrant.label)
    assert len(by_protocol) == 4
    delayed = [labels for name, labels in by_protocol.items() if name != "synchronous"]
    assert all(labels == delayed[0] for labels in delayed)
    # A clip of one kind has one threshold wherever it appears.
    thresholds = {}
    for entrant in contest.entrants:
        kind = "max_norm" if "max_norm" in entrant.arguments else entrant.arguments.get("clipping")
        value = entrant.arguments.get("max_norm", entrant.arguments.get("threshold"))
        thresholds.setdefault("global_norm" if kind == "max_norm" else kind, set()).add(value)
    assert all(len(values) == 1 for values in thresholds.values())
