"""Is predicting clipping no worse than the better of predicting and of clipping?

From the root of the repository: ``python -m experiments.pc_asgd.run --preset cpu`` (``--help``).
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
from experiments.pc_asgd.config import PRESETS, Preset, settings
from experiments.pc_asgd.measure import load_images, measure, num_runs
from experiments.pc_asgd.plots import plot_rates, plot_rounds
from experiments.pc_asgd.tables import RESULTS, claims, tables
from experiments.runner import versions


def summarise(preset: Preset, strategy: str) -> dict[str, Any]:
    """Runs a preset, with a progress bar, and returns everything measured as plain data."""
    images, started, chosen = load_images(preset), time.perf_counter(), settings(preset)
    cells = len(preset.learning_rates) * len(preset.seeds)
    with Progress(transient=True) as progress:
        task = progress.add_task("runs", total=num_runs(preset, chosen))
        measured = measure(preset, images, chosen, strategy, lambda: progress.advance(task, cells))
    summary = {
        "preset": dataclasses.asdict(preset),
        "seconds": round(time.perf_counter() - started),
        "versions": versions(),
        "settings": measured,
    }
    return summary | {"claims": claims(summary)}


def default_output(preset: str) -> Path:
    """Returns the folder for results: those of the README are of the preset cpu."""
    return RESULTS if preset == "cpu" else Path("results") / f"pc_asgd_{preset}"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=tuple(PRESETS), default="cpu")
    parser.add_argument("--output", type=Path, help="folder for the results")
    parser.add_argument(
        "--strategy", default="threads", help="of ao.sweep: threads, loop, vmap, devices or auto"
    )
    options = parser.parse_args(arguments)
    output = options.output or default_output(options.preset)
    try:
        require_writable(output)
    except OSError as error:
        sys.exit(str(error))
    summary = summarise(PRESETS[options.preset], options.strategy)
    with all_or_nothing(output) as staging:
        text = json.dumps(summary, allow_nan=False)
        (staging / "summary.json").write_text(text + "\n")
        plot_rounds(staging / "rounds.png", summary)
        plot_rates(staging / "rates.png", summary)
    print(tables(summary))


if __name__ == "__main__":
    main()
