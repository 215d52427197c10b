"""Does the theory of delayed gradients say what the simulator does?

From the root of the repository: ``python -m experiments.delay_theory.run --preset cpu``.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress

from async_optax.report import all_or_nothing, require_writable
from experiments.delay_theory.boundary import measure_boundary, measure_map, measure_timelines
from experiments.delay_theory.config import PRESETS, Setting
from experiments.delay_theory.noise_floor import measure_floor
from experiments.delay_theory.plots import draw
from experiments.delay_theory.rates import PROBLEMS, measure_rates
from experiments.delay_theory.stragglers import measure_stragglers
from experiments.delay_theory.tables import RESULTS, tables
from experiments.delay_theory.workers import measure_workers
from experiments.runner import versions

PARTS = {
    "boundary": measure_boundary,
    "map": measure_map,
    "timelines": measure_timelines,
    "workers": measure_workers,
    "floor": measure_floor,
    "stragglers": measure_stragglers,
    "rates": measure_rates,
}


def num_steps(setting: Setting) -> int:
    """Returns how often the progress bar moves."""
    boundary = len(setting.staleness) * (len(setting.momenta) + 1)
    timelines = len(setting.times) * len(setting.protocols)
    workers = len(setting.worker_rates) * len(setting.worker_times)
    rates = len(PROBLEMS) * len(setting.tails)
    runs = boundary + timelines + workers + rates
    return runs + len(setting.floor_staleness) + len(setting.slowdowns)


def described(setting: Setting) -> dict[str, Any]:
    """Returns a setting as plain data."""
    return {name: _plain(value) for name, value in dataclasses.asdict(setting).items()}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | range) else value


def summarise(preset: str) -> dict[str, Any]:
    """Runs a preset, with a progress bar, and returns everything measured as plain data."""
    setting, seconds = PRESETS[preset], {}
    started, computed = time.perf_counter(), time.process_time()
    measured = {}
    with Progress(transient=True) as progress:
        task = progress.add_task("measuring", total=num_steps(setting))
        for name, measure in PARTS.items():
            began = time.perf_counter()
            measured[name] = measure(setting, lambda: progress.advance(task))
            seconds[name] = round(time.perf_counter() - began, 1)
    return {
        "preset": preset,
        "setting": described(setting),
        "seconds": round(time.perf_counter() - started),
        "processor_seconds": round(time.process_time() - computed),
        "seconds_of_parts": seconds,
        "versions": versions(),
        **measured,
    }


def default_output(preset: str) -> Path:
    """Returns the folder for results: those of the README are of the preset cpu."""
    return RESULTS if preset == "cpu" else Path("results") / f"delay_theory_{preset}"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=tuple(PRESETS), default="cpu")
    parser.add_argument("--output", type=Path, help="folder for the results")
    options = parser.parse_args(arguments)
    output = options.output or default_output(options.preset)
    try:
        require_writable(output)
    except OSError as error:
        sys.exit(str(error))
    summary = summarise(options.preset)
    with all_or_nothing(output) as staging:
        text = json.dumps(summary, indent=1, allow_nan=False)
        (staging / "summary.json").write_text(text + "\n")
        draw(staging, summary)
    print(tables(summary))


if __name__ == "__main__":
    main()
