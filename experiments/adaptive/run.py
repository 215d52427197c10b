"""Do clipping thresholds and compensation strengths that adapt match the best fixed ones?

From the root of the repository: ``python -m experiments.adaptive.run`` (``--help``).
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
from experiments.adaptive.config import Study, full_studies, quick_studies
from experiments.adaptive.measure import fitted_curvatures, num_runs, run_study
from experiments.adaptive.plots import plot_carried, plot_rates, plot_strengths
from experiments.adaptive.tables import RESULTS, tables
from experiments.runner import versions


def summarise(studies: Sequence[Study], seeds: Sequence[int], threads: int) -> dict[str, Any]:
    """Runs the studies, with a progress bar, and returns everything measured as plain data."""
    started = time.perf_counter()
    with Progress(transient=True) as progress:
        task = progress.add_task("runs", total=num_runs(studies, seeds))
        measured = {
            study.name: run_study(study, seeds, threads, lambda: progress.advance(task))
            for study in studies
        }
    strengths = fitted_curvatures(studies[-1])
    return {
        "seeds": list(seeds),
        "seconds": round(time.perf_counter() - started),
        "versions": versions(),
        "studies": measured,
        "strengths": strengths,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--threads", type=int, default=2, help="runs at a time")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 to this minus one")
    parser.add_argument("--quick", action="store_true", help="a smoke test of a few runs")
    options = parser.parse_args(arguments)
    for name in ("threads", "seeds"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be >= 1, got {getattr(options, name)}")
    if options.quick and options.output == RESULTS:
        parser.error("--quick needs an --output of its own: its numbers mean nothing")
    try:
        require_writable(options.output)
    except OSError as error:
        sys.exit(str(error))
    studies = quick_studies() if options.quick else full_studies()
    summary = summarise(studies, range(options.seeds), options.threads)
    with all_or_nothing(options.output) as staging:
        text = json.dumps(summary, indent=1, allow_nan=False)
        (staging / "summary.json").write_text(text + "\n")
        for name, study in summary["studies"].items():
            plot_rates(staging / f"{name}.png", study["rows"])
        clipping = summary["studies"]["clipping"]
        plot_carried(staging / "carried.png", clipping["rows"], clipping["carried"])
        plot_strengths(staging / "strengths.png", summary["strengths"])
    print(tables(summary))


if __name__ == "__main__":
    main()
