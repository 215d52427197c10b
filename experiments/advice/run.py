"""Is the advised learning rate within a factor of two of the best of a grid?

From the root of the repository: ``python -m experiments.advice.run --preset cpu`` (``--help``).
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress

from async_optax.report import all_or_nothing, require_writable
from experiments.advice.config import PRESETS
from experiments.advice.measure import described, measure, num_parts
from experiments.advice.plots import plot_grids
from experiments.advice.tables import RESULTS, tables
from experiments.runner import versions


def summarise(preset: str, threads: int) -> dict[str, Any]:
    """Runs a preset, with a progress bar, and returns everything measured as plain data."""
    setting = PRESETS[preset]
    started, computed = time.perf_counter(), time.process_time()
    with Progress(transient=True) as progress:
        task = progress.add_task("advice and runs", total=num_parts(setting))
        rows = measure(setting, threads, lambda: progress.advance(task))
    return {
        "preset": preset,
        "setting": described(setting),
        "seconds": round(time.perf_counter() - started),
        "processor_seconds": round(time.process_time() - computed),
        "versions": versions("scipy"),
        "rows": rows,
    }


def default_output(preset: str) -> Path:
    """Returns the folder for results: those of the README are of the preset cpu."""
    return RESULTS if preset == "cpu" else Path("results") / f"advice_{preset}"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=tuple(PRESETS), default="cpu")
    parser.add_argument("--output", type=Path, help="folder for the results")
    parser.add_argument("--threads", type=int, default=2, help="runs at a time")
    options = parser.parse_args(arguments)
    if options.threads < 1:
        parser.error(f"--threads must be >= 1, got {options.threads}")
    output = options.output or default_output(options.preset)
    try:
        require_writable(output)
    except OSError as error:
        sys.exit(str(error))
    summary = summarise(options.preset, options.threads)
    with all_or_nothing(output) as staging:
        text = json.dumps(summary, indent=1, allow_nan=False)
        (staging / "summary.json").write_text(text + "\n")
        plot_grids(staging / "grids.png", summary)
    print(tables(summary))


if __name__ == "__main__":
    main()
