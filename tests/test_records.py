"""The READMEs against the files that the commands beside them write."""

import json
import pathlib

from async_optax import transforms

ROOT = pathlib.Path(__file__).parents[1]
DEMO = json.loads((ROOT / "experiments/demo/results/summary.json").read_text())


def as_markdown(row):
    time = "never" if row["time_to_target"] is None else f"{row['time_to_target']:.0f}"
    gain = "-" if row["speedup"] is None else f"{row['speedup']:.1f}x"
    accuracy = f"{row['final_accuracy']:.3f} ± {row['final_accuracy_spread']:.3f}"
    rate = f"{row['learning_rate']:.2g}{'*' if row['at_grid_edge'] else ''}"
    fastest = "never"
    if row["fastest_time_to_target"] is not None:
        fastest = f"{row['fastest_time_to_target']:.0f} @ {row['fastest_learning_rate']:.2g}"
    cells = [row["protocol"], row["method"], rate, accuracy, time, gain, fastest]
    cells += [str(row["num_learning_rates_near_best"]), str(row["num_diverged"])]
    return f"| {' | '.join(cells)} |"


def test_the_demo_page_shows_every_row():
    page = (ROOT / "experiments/demo/README.md").read_text()
    for row in DEMO["rows"]:
        assert as_markdown(row) in page


def test_the_readme_shows_rows_of_the_demo():
    rows = {as_markdown(row) for row in DEMO["rows"]}
    shown = [
        line
        for line in (ROOT / "README.md").read_text().splitlines()
        if line.startswith(("| synchronous |", "| asynchronous |", "| buffered("))
    ]
    assert len(shown) >= 5
    assert set(shown) <= rows


def test_the_claim_of_the_demo():
    times = {
        (row["protocol"], row["method"]): row["time_to_target"] or float("inf")
        for row in DEMO["rows"]
    }
    ours = min(t for (_, method), t in times.items() if method.startswith("async_heavy_tailed"))
    synchronous = min(t for (protocol, _), t in times.items() if protocol == "synchronous")
    assert ours < synchronous / 2
    assert ours <= times["asynchronous", "sgd"]


def read(name):
    return json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())


def test_the_engine_benchmark_shows_what_is_claimed():
    page = (ROOT / "benchmarks/README.md").read_text()
    for name, row in read("engine")["models"].items():
        assert row["ratio_to_bare_scan"] >= row["claim"]
        time = row["times"]["simulate"]["microseconds_per_arrival"]
        cells = [str(row["num_workers"]), f"{time:.0f}", f"{row['ratio_to_bare_scan']:.2f}"]
        cells += [f"{row['claim']:.2f}", f"{row['ratio_to_bare_scan_whole_run']:.2f}"]
        cells += [f"{row['ratio_to_synchronous_limit']:.2f} ({row['limit_width']})"]
        assert f"| {name} | {' | '.join(cells)} |" in page


def test_many_workers_and_synchronous_runs_cost_what_is_claimed():
    results = read("engine")
    many, synchronous = results["many_workers"], results["synchronous"]
    assert results["machine"]["cores_used"] == 1
    assert many["num_workers"] == 1024
    assert many["ratio_to_few_workers_and_memory"] <= many["claim"]
    assert synchronous["ratio_to_better_loop"] <= synchronous["claim"]


def test_scaling_is_as_claimed():
    results = read("scaling")
    (many,) = (row for row in results["by_workers"] if "claim_bytes" in row)
    assert many["num_workers"] == 10_000
    assert many["peak_bytes"] < many["claim_bytes"]
    measured = [row for row in results["by_parameters"] if "skipped" not in row]
    assert len(measured) >= 4
    assert all(row["ratio_to_bare_scan"] <= row["claim"] for row in measured)


def test_sweeps_cost_what_is_claimed():
    page, rows = (ROOT / "benchmarks/README.md").read_text(), read("sweep")["rows"]
    assert sum(row["num_runs"] == 32 for row in rows) >= 3
    for row in rows:
        claims = row["claims"]
        assert row["auto"]["ratio_to_best"] <= claims["auto_ratio_to_best"]
        if "auto_ratio_to_processes" in claims:
            assert row["ratio_to_processes"]["auto"] <= claims["auto_ratio_to_processes"]
        ratios = row["ratio_to_processes"]
        cells = [f"{ratios[name]:.2f}" for name in ("threads", "loop", "vmap", "auto")]
        assert f"| {row['problem']} | {row['num_runs']} | {' | '.join(cells)} |" in page


def test_second_runs_compile_nothing():
    for model in read("compile")["models"].values():
        for name, row in model["runs"].items():
            assert row["program"] == row["claim"], name
            assert row["claim"] or row["small"] == 0, name


def test_the_transforms_benchmark_shows_what_is_claimed():
    page = (ROOT / "benchmarks/README.md").read_text()
    sizes = json.loads((ROOT / "benchmarks/results/transforms.json").read_text())["sizes"]
    assert list(sizes) == ["1 M", "25 M", "110 M"]
    for name in sizes["1 M"]["cases"]:
        rows = [size["cases"][name] for size in sizes.values()]
        cells = [f"{row['milliseconds']:.2f}" for row in rows[-1:]]
        cells += [f"{row['ratio_to_optax']:.2f}" for row in rows]
        cells += [f"{rows[0]['claim']:.2f}" if rows[0]["claim"] else "-"]
        cells += [str(rows[0]["arrays_moved"])]
        cells += [f"{row['ratio_to_floor']:.2f}" for row in rows]
        assert f"| {name} | {' | '.join(cells)} |" in page
        assert all(row["ratio_to_optax"] <= (row["claim"] or float("inf")) for row in rows)


# The cost of an exact compensation is that of its gradients; the others are no arithmetic.
NOT_TIMED = {"compensate_delay_exact", "check_arrival", "track_staleness"}


def test_every_transformation_is_timed():
    cases = json.loads((ROOT / "benchmarks/results/transforms.json").read_text())["sizes"]["1 M"]
    timed = {name.split(",")[0] for name in cases["cases"]}
    factories = {
        name
        for name in transforms.__all__
        if name.startswith(("clip_", "bi_", "compensate_", "scale_by_", "trace_", "look_"))
        or name in ("accumulate_until_commit", "difference_to_worker_model")
        or name in NOT_TIMED
    }
    assert len(factories) >= 20
    assert factories - NOT_TIMED <= timed


def test_what_the_demo_page_says_of_rate_four():
    (row,) = (
        row
        for row in DEMO["grid"]
        if (row["protocol"], row["method"]) == ("asynchronous", "async_heavy_tailed (coord)")
        and row["learning_rate"] == 4
    )
    page = " ".join((ROOT / "experiments/demo/README.md").read_text().split())
    low, high = min(row["final_accuracies"]), max(row["final_accuracies"])
    assert f"at {low:.2f} to {high:.2f} with it" in page


def test_the_timelines_benchmark_shows_what_is_claimed():
    page = (ROOT / "benchmarks/README.md").read_text()
    results = json.loads((ROOT / "benchmarks/results/timelines.json").read_text())
    assert {row["claim"] for row in results["speed"].values()} == {1.0, 5.0, None}
    for name, row in results["speed"].items():
        claim = "-" if row["claim"] is None else f"{row['claim']:g}"
        assert row["arrivals"] >= 1e6
        assert row["seconds"] <= (row["claim"] or 10.0)
        assert row["bytes_per_arrival"] <= 100
        cells = [f"{row['seconds']:.2f}", claim, f"{row['ratio_to_bare_loop']:.2f}"]
        assert f"| {name} | {' | '.join(cells)} | {row['bytes_per_arrival']:.0f} |" in page
    for name, rows in results["growth"].items():
        assert list(rows) == ["10", "100", "1000", "10000", "100000"]
        cells = [f"{row['seconds']:.2f}" for row in rows.values()]
        assert f"| {name} | {' | '.join(cells)} |" in page


def test_measured_times_keep_to_the_theory():
    results = json.loads((ROOT / "benchmarks/results/timelines.json").read_text())
    page = (ROOT / "benchmarks/README.md").read_text()
    names = ("rennala", "rennala_no_stop", "ringmaster", "ringmaster_stop")
    for row in results["theory"]:
        assert abs(row["rennala"] - row["rennala_exact"]) < 1e-9 * row["rennala"]
        assert row["rennala"] <= row["bound"]
        assert max(row[f"{name}_longest"] for name in names) <= 2 * row["bound"]
        # On unequal machines, who waits for all pays for it.
        if row["exponent"] >= 1 and row["number"] <= 100:
            assert row["synchronous"] > 1.5 * max(row[name] for name in names)
        cells = [f"{row['exponent']:g}", str(row["number"]), f"{row['bound']:.2f}"]
        assert f"| {' | '.join(cells)} |" in page


def test_lanes_chosen_by_measuring_are_near_the_best():
    for row in read("lanes")["rows"]:
        assert row["auto"]["ratio_to_best"] <= row["auto"]["claim"]
        assert row["ratio_to_bare_scan"] >= row.get("claim_to_bare_scan", 0)
        assert row["ratio_to_gradients_alone"] >= row.get("claim_to_gradients_alone", 0)


def test_pipelines_cost_what_is_claimed():
    for row in read("pipeline")["models"].values():
        for method in row["methods"].values():
            assert method["ratio_without_copies"] <= method["claim"] == 1.3


def test_rounds_of_gossip_cost_little_more_than_their_gradients():
    for row in read("gossip")["models"].values():
        assert row["ratio_to_by_hand"] <= 1
        assert row["ratio_to_n_gradients"]["D-PSGD, ring"] <= row["claim"] == 1.2


def test_real_workers_are_nearly_as_fast_as_a_bare_ray_loop():
    rows = read("distributed")["rows"]
    assert [row["num_parameters"] for row in rows] == [10**k for k in range(4, 4 + len(rows))]
    assert all(row["ratio"] >= row["claim"] == 0.8 for row in rows)
