"""The tables of the README, from the summary: ``python -m experiments.delay_theory.tables``."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.markdown import table_head, table_row

RESULTS = Path(__file__).parent / "results"


def boundary_table(summary: Mapping[str, Any]) -> list[str]:
    """Returns the measured and the predicted boundary at constant staleness."""
    momenta = summary["setting"]["momenta"]
    heads = ["staleness"]
    for momentum in momenta:
        name = f", momentum {momentum:g}" if momentum else ""
        heads += [f"predicted{name}", "measured", "error"]
    rows = {}
    for row in summary["boundary"]:
        cells = rows.setdefault(row["staleness"], [])
        cells += [
            f"{row['predicted']:.4f}",
            f"{row['measured']:.4f}",
            f"{100 * row['error']:+.2f} %",
        ]
    return table_head(heads) + [table_row([tau, *cells]) for tau, cells in rows.items()]


def mean_of(measured: Sequence[float | None]) -> tuple[float, float]:
    """Returns mean and standard deviation of what was found, NaN if nothing was."""
    found = [value for value in measured if value is not None]
    return (float(np.mean(found)), float(np.std(found))) if found else (np.nan, np.nan)


def timeline_table(summary: Mapping[str, Any]) -> list[str]:
    """Returns the boundary on simulated timelines beside the predictions."""
    heads = ["compute times", "protocol", "mean staleness", "measured", "replayed", "error"]
    heads += ["mean equation", "error"]
    rows = []
    for row in summary["timelines"]:
        measured, deviation = mean_of(row["measured"])
        spread = f"{measured:.3f} ± {deviation:.3f}"
        cells = [row["times"], row["protocol"], f"{row['mean_staleness']:.1f}", spread]
        for name in ("replayed", "mean"):
            cells += [f"{row[name]:.3f}", f"{100 * (row[name] / measured - 1):+.0f} %"]
        rows.append(cells)
    return [*table_head(heads), *map(table_row, rows)]


def best_of(row: Mapping[str, Any], kind: str) -> tuple[int, float]:
    """Returns the number of workers with the largest rate, and the rate."""
    rates = [-np.inf if rate is None else rate for rate in row[kind]]
    best = int(np.argmax(rates))
    return row["num_workers"][best], rates[best]


def worker_table(summary: Mapping[str, Any]) -> list[str]:
    """Returns measured and predicted best numbers of workers."""
    heads = ["learning rate", "compute times", "measured M", "its rate", "predicted M"]
    heads += ["measured rate there", "formula, equal times", "continuum"]
    rows = []
    for row in summary["workers"]:
        measured, rate = best_of(row, "measured")
        predicted, _ = best_of(row, "predicted")
        there = row["measured"][row["num_workers"].index(predicted)]
        cells = [f"{row['rate']:g}", row["times"], str(measured), f"{rate:.3f}", str(predicted)]
        cells.append(f"{100 * there / rate:.0f} %")
        rows.append([*cells, *(str(row[name]["num_workers"]) for name in ("formula", "continuum"))])
    return [*table_head(heads), *map(table_row, rows)]


def floor_table(summary: Mapping[str, Any]) -> list[str]:
    """Returns the variance under noise, as a multiple of that of fresh gradients."""
    heads = ["staleness", "step (tau + 1/2)", "measured", "exact", "error"]
    heads += ["continuum, delay tau", "error", "continuum, delay tau + 1/2", "error"]
    rows = []
    for part in summary["floor"]:
        for i, (step, measured) in enumerate(zip(part["steps"], part["measured"], strict=True)):
            cells = [str(part["staleness"]), f"{step * (part['staleness'] + 0.5):.1f}"]
            cells.append(f"{measured:.2f}")
            for kind in ("exact", "continuum", "half"):
                error = 100 * (part[kind][i] / measured - 1)
                cells += [f"{part[kind][i]:.2f}", f"{error:+.0f} %"]
            rows.append(cells)
    return [*table_head(heads), *map(table_row, rows)]


def straggler_table(summary: Mapping[str, Any]) -> list[str]:
    """Returns gradient norms late in runs over the slowness of half of the workers."""
    methods = list(dict.fromkeys(row["method"] for row in summary["stragglers"]))
    heads = ["slower by", "largest staleness"]
    for method in methods:
        heads += [f"{method}, median", "worst"]
    rows: dict[int, list[str]] = {}
    for row in summary["stragglers"]:
        cells = rows.setdefault(row["slowdown"], [str(row["slowdown"]), str(row["max_staleness"])])
        cells += [f"{row['median']:.3f}", f"{row['worst']:.3f}"]
    return [*table_head(heads), *map(table_row, rows.values())]


def rate_table(summary: Mapping[str, Any]) -> list[str]:
    """Returns fitted and predicted exponents under alpha-stable noise."""
    heads = ["problem", "alpha", "predicted", "measured", "last five lengths"]
    heads += ["clipped, longest run", "plain, longest run"]
    rows = [
        [
            row["problem"],
            f"{row['alpha']:g}",
            *(f"{row[name]:.3f}" for name in ("predicted", "measured", "late")),
            *(f"{row[name][-1]:.2g}" for name in ("clipped", "plain")),
        ]
        for row in summary["rates"]
    ]
    return [*table_head(heads), *map(table_row, rows)]


TABLES = (
    boundary_table,
    timeline_table,
    worker_table,
    floor_table,
    straggler_table,
    rate_table,
)


def tables(summary: Mapping[str, Any]) -> str:
    """Returns all tables in Markdown, in the order of the page."""
    return "\n\n".join("\n".join(table(summary)) for table in TABLES)


if __name__ == "__main__":
    print(tables(json.loads((RESULTS / "summary.json").read_text())))
