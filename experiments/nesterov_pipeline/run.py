"""Does asynchronous Nesterov beat other pipelines, at equal updates and at equal simulated time?

From the root of the repository: ``python -m experiments.nesterov_pipeline.run`` (``--help``).
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from async_optax.report import all_or_nothing, require_writable
from experiments.nesterov_pipeline.config import PRESETS, TEXTS, Preset
from experiments.nesterov_pipeline.measure import measure, measure_momenta
from experiments.nesterov_pipeline.plots import plot_curves
from experiments.nesterov_pipeline.tables import RESULTS, table
from experiments.runner import versions


def summarise(preset: Preset) -> dict[str, Any]:
    """Runs everything and returns it as plain data."""
    started = time.perf_counter()

    def done(what: str) -> None:
        print(f"{time.perf_counter() - started:6.0f} s  {what}", flush=True)

    rows, momenta = measure(preset, done), measure_momenta(preset, done)
    return {
        "preset": dataclasses.asdict(preset),
        "seconds": round(time.perf_counter() - started),
        "versions": versions(),
        "rows": rows,
        "momenta": momenta,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=sorted(PRESETS), default="cpu")
    parser.add_argument("--text", choices=TEXTS, help="instead of the preset's own")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    options = parser.parse_args(arguments)
    if options.preset == "smoke" and options.output == RESULTS:
        parser.error("--preset smoke needs an --output of its own: its numbers mean nothing")
    preset, name = PRESETS[options.preset], options.preset
    if options.text not in (None, preset.text):
        preset = dataclasses.replace(preset, text=options.text)
        name = f"{name}-{options.text}"
    require_writable(options.output)
    summary = summarise(preset)
    with all_or_nothing(options.output) as staging:
        text = json.dumps(summary, indent=1, allow_nan=False)
        (staging / f"{name}.json").write_text(text + "\n")
        plot_curves(staging / f"{name}.png", summary["rows"], preset.num_micro_batches)
    print(table(summary))


if __name__ == "__main__":
    main()
