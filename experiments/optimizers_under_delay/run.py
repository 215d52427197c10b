"""Which optimizers stand late gradients, and what helps them?

From the root of the repository: ``python -m experiments.optimizers_under_delay.run``
(``--help``).
"""

import argparse
import dataclasses
import importlib.metadata
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from async_optax.report import all_or_nothing, require_writable
from experiments.ledger import Ledger
from experiments.optimizers_under_delay.config import PRESETS, Preset
from experiments.optimizers_under_delay.figures import draw
from experiments.optimizers_under_delay.measure import measure
from experiments.optimizers_under_delay.tables import RESULTS, tables


def described(preset: Preset) -> dict[str, Any]:
    """Returns a preset as plain data."""
    return json.loads(json.dumps(dataclasses.asdict(preset)))


def summarise(name: str, ledger: Ledger) -> dict[str, Any]:
    """Runs a preset and returns everything measured as plain data."""
    started = time.perf_counter()

    def done(what: str) -> None:
        print(f"{time.perf_counter() - started:6.0f} s  {what}", flush=True)

    rows = measure(PRESETS[name], ledger, done)
    return {
        "name": name,
        "preset": described(PRESETS[name]),
        "seconds": round(time.perf_counter() - started),
        "runs": len(ledger),
        "versions": {
            package: importlib.metadata.version(package)
            for package in ("async_optax", "jax", "optax", "numpy", "flax")
        },
        "rows": rows,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=tuple(PRESETS), default="cpu")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument(
        "--ledger",
        type=Path,
        help="file of runs, by default results/optimizers_under_delay_PRESET.jsonl",
    )
    options = parser.parse_args(arguments)
    if options.preset == "smoke" and options.output == RESULTS:
        parser.error("--preset smoke needs an --output of its own: its numbers mean nothing")
    path = options.ledger or Path("results") / f"optimizers_under_delay_{options.preset}.jsonl"
    try:
        require_writable(options.output)
        require_writable(path.parent)
        summary = summarise(options.preset, Ledger(path))
    except (OSError, ImportError, ValueError) as error:
        sys.exit(str(error))
    with all_or_nothing(options.output) as staging:
        text = json.dumps(summary, allow_nan=False)
        (staging / f"{options.preset}.json").write_text(text + "\n")
        draw(staging, summary)
    print(tables(summary))


if __name__ == "__main__":
    main()
