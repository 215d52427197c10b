"""The tables of the README: ``python -m experiments.nesterov_pipeline.tables cpu``."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.markdown import table_head, table_row
from experiments.nesterov_pipeline.config import GPIPE, GPIPE_IN_TIME

RESULTS = Path(__file__).parent / "results"
_HEADINGS = ("stages", "method", "rate", "updates", "time", "perplexity", "others of the grid")


def line(row: Mapping[str, Any], learning_rates: Sequence[float]) -> str:
    """Returns a row as a line of Markdown."""
    rate = f"{row['learning_rate']:g}{'*' if row['at_grid_edge'] else ''}"
    perplexity = "diverged"
    if row["perplexity"] is not None:
        perplexity = f"{row['perplexity']:.3f} ± {row['spread']:.3f}"
    others = [
        f"{r:g}: {'-' if value is None else f'{value:.2f}'}"
        for r, value in zip(learning_rates, row["by_rate"], strict=True)
        if r != row["learning_rate"]
    ]
    cells = [str(row["num_stages"]), row["method"], rate, str(row["num_updates"])]
    cells += [f"{row['end_time']:.0f}", perplexity, ", ".join(others)]
    return table_row(cells)


def table(summary: Mapping[str, Any]) -> str:
    """Returns all rows, the best of each number of stages first."""
    lines = table_head(_HEADINGS)
    lines += [line(row, summary["preset"]["learning_rates"]) for row in ordered(summary["rows"])]
    return "\n".join([*lines, "", *momentum_lines(summary)])


def momentum_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns a line per method of the study of b1, with a cell per value."""
    momenta = summary["preset"]["momenta"]
    lines = table_head(["method", *(f"b1 {b1:g}" for b1 in momenta)])
    for method in dict.fromkeys(row["method"] for row in summary["momenta"]):
        rows = [row for row in summary["momenta"] if row["method"] == method]
        cells = [
            "diverged"
            if row["perplexity"] is None
            else f"{row['perplexity']:.3f} ({row['learning_rate']:g})"
            for row in rows
        ]
        lines.append(table_row([method, *cells]))
    return lines


def ordered(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows by number of stages, GPipe first, then by perplexity."""

    def place(row: Mapping[str, Any]) -> tuple[Any, ...]:
        kind = {GPIPE: 0, GPIPE_IN_TIME: 1}.get(row["method"], 2)
        lost = row["perplexity"] is None
        return row["num_stages"], kind, lost, row["perplexity"] or 0.0

    return sorted(rows, key=place)


if __name__ == "__main__":
    print(table(json.loads((RESULTS / f"{sys.argv[1]}.json").read_text())))
