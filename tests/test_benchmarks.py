"""Each benchmark's smoke run: it ends, and writes its claims beside what it measured."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parents[1]
SCRIPTS = ("engine", "lanes", "scaling", "compile", "sweep", "pipeline", "gossip")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The JSON of all smoke runs, two at a time."""
    folder = tmp_path_factory.mktemp("results")
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}

    def start(name):
        command = [sys.executable, f"benchmarks/{name}.py", "--quick", "--output", str(folder)]
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    for pair in (SCRIPTS[i : i + 2] for i in range(0, len(SCRIPTS), 2)):
        processes = [start(name) for name in pair]
        for name, process in zip(pair, processes, strict=True):
            output, _ = process.communicate(timeout=300)
            assert process.returncode == 0, f"{name}: {output.decode()}"
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in SCRIPTS}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_machine_is_described(results, name):
    machine = results[name]["machine"]
    assert {"processor", "cores", "memory_gibibytes", "device", "jax", "jaxlib"} <= set(machine)
    assert machine["processor"]
    assert machine["memory_gibibytes"] > 0


def test_the_engine_runs_on_one_thread_and_ends_where_the_loops_end(results):
    engine = results["engine"]
    assert engine["machine"]["cores_used"] == 1
    (small,) = engine["models"].values()
    assert small["claim"] == 0.85
    assert small["largest_difference"] < 1e-5
    assert set(small["times"]) == {"simulate", "bare loop", "limit"}
    assert engine["many_workers"]["claim"] == 1.2
    assert engine["many_workers"]["cold_bytes"] == 3 * 4 * (16 * 8 + 8 + 8 * 4 + 4)
    synchronous = engine["synchronous"]
    assert synchronous["claim"] == 1.25
    assert max(synchronous["largest_difference"].values()) < 1e-5


def test_lanes_are_compared_with_the_choice(results):
    (row,) = results["lanes"]["rows"]
    assert set(row["microseconds_per_arrival"]) == {"1", "2", "bare loop"}
    assert row["best_width"] in (1, 2)
    assert row["auto"]["lanes"] in (1, 2)
    assert row["auto"]["claim"] == 1.25


def test_scaling_reads_the_peak_of_a_child_and_skips_what_does_not_fit(results):
    (workers,) = results["scaling"]["by_workers"]
    assert 0 < workers["bytes_before"] < workers["peak_bytes"] < 2 << 30
    (huge,) = results["scaling"]["by_parameters"]
    assert "are left" in huge["skipped"]


def test_a_second_run_compiles_nothing(results):
    (model,) = results["compile"]["models"].values()
    runs = model["runs"]
    assert {"first run", "learning rate", "threshold", "seed of timeline and jobs"} <= set(runs)
    assert all(row["program"] == row["claim"] for row in runs.values())
    assert all(row["small"] == 0 for name, row in runs.items() if name != "first run")
    assert runs["first run"]["program_seconds"]["compile"] > 0


def test_sweeps_are_compared_with_single_runs_on_all_cores(results):
    (row,) = results["sweep"]["rows"]
    assert row["num_runs"] == 32
    assert row["claims"] == {"auto_ratio_to_processes": 1.1, "auto_ratio_to_best": 1.25}
    by_strategy = {"threads", "loop", "vmap", "auto"}
    assert set(row["ratio_to_processes"]) == set(row["ratio_to_one_run"]) == by_strategy
    for name, seconds in row["seconds"].items():
        ratio = seconds / row["processes_seconds"]
        assert row["ratio_to_processes"][name] == pytest.approx(ratio)
    assert row["auto"]["strategy"] in by_strategy - {"auto"}
    assert row["auto"]["choosing_seconds"] > 0


def test_an_update_of_a_pipeline_ends_where_the_loops_end(results):
    (row,) = results["pipeline"]["models"].values()
    assert max(row["largest_difference"].values()) < 1e-3
    stashed = {"pipedream": "adamw", "nesterov": "nadamw"}
    without = {"pipemare": "adamw, recomputing", "nesterov, no stash": "nadamw, recomputing"}
    baselines = {name: of["baseline"] for name, of in row["methods"].items() if name != "gpipe"}
    assert baselines == stashed | without
    assert all(of["claim"] == 1.3 for of in row["methods"].values())


def test_a_round_of_gossip_ends_where_the_loop_by_hand_ends(results):
    (row,) = results["gossip"]["models"].values()
    assert row["claim"] == 1.2
    assert row["largest_difference"] < 1e-5
    methods = {"D-PSGD, ring", "D-PSGD, complete", "D-PSGD, ring, late", "PC-ASGD, ring, late"}
    assert methods < set(row["ratio_to_n_gradients"])
    assert set(row["times"]) == {*row["ratio_to_n_gradients"], "n gradients"}
