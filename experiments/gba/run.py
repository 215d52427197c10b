"""Does a global batch let a run switch between synchronous and asynchronous without retuning?

From the root of the repository: ``python -m experiments.gba.run --preset cpu`` (``--help``).
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress

from async_optax.problems import ideal_auc
from async_optax.report import all_or_nothing, require_writable
from experiments.gba.config import DATA, Setting
from experiments.gba.measure import described, measure, num_runs
from experiments.gba.plots import plot_switching, plot_time
from experiments.gba.tables import RESULTS, tables
from experiments.runner import versions


def summarise(data: str, preset: str, threads: int) -> dict[str, Any]:
    """Runs a preset, with a progress bar, and returns everything measured as plain data."""
    setting: Setting = DATA[data][preset]
    started, computed = time.perf_counter(), time.process_time()
    with Progress(transient=True) as progress:
        task = progress.add_task("runs", total=num_runs(setting))
        measured = measure(setting, threads, lambda: progress.advance(task))
    ideal = ideal_auc(setting.problem()).tolist() if data == "click_logs" else None
    return {
        "data": data,
        "preset": preset,
        "setting": described(setting),
        "seconds": round(time.perf_counter() - started),
        "processor_seconds": round(time.process_time() - computed),
        "versions": versions(),
        "ideal_auc": ideal,
        **measured,
    }


def default_output(data: str, preset: str) -> Path:
    """Returns the folder for results: those of the README are of the preset cpu."""
    if (data, preset) == ("click_logs", "cpu"):
        return RESULTS
    return Path("results") / f"gba_{data}_{preset}"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=("smoke", "cpu", "gpu"), default="cpu")
    parser.add_argument("--data", choices=tuple(DATA), default="click_logs")
    parser.add_argument("--output", type=Path, help="folder for the results")
    parser.add_argument("--threads", type=int, default=2, help="runs at a time")
    options = parser.parse_args(arguments)
    if options.threads < 1:
        parser.error(f"--threads must be >= 1, got {options.threads}")
    output = options.output or default_output(options.data, options.preset)
    try:
        require_writable(output)
        summary = summarise(options.data, options.preset, options.threads)
    except (OSError, ImportError, ValueError) as error:
        sys.exit(str(error))
    with all_or_nothing(output) as staging:
        text = json.dumps(summary, indent=1, allow_nan=False)
        (staging / "summary.json").write_text(text + "\n")
        plot_switching(staging / "switching.png", summary)
        plot_time(staging / "time.png", summary)
    print(tables(summary))


if __name__ == "__main__":
    main()
