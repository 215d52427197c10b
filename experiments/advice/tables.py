"""The tables of the README, from the summary: ``python -m experiments.advice.tables``."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.advice.config import ADVISED, AS_GOOD, TOLERATED
from experiments.markdown import table_head, table_row

RESULTS = Path(__file__).parent / "results"
_HEADINGS = ("problem", "runtimes", "protocol", "best", "loss", "as good", "factors")
_HEADINGS += ("within 2", "losses", "bound by")
_COUNTS = ("problem", "within 2", "mean of seeds", "within 2", "least of seeds", "within 2")


def best_rate(row: Mapping[str, Any]) -> tuple[float, float]:
    """Returns the rate of the grid with the least mean loss over seeds, and that loss."""
    means = mean_losses(row)
    place = int(np.argmin(means))
    return row["rates"][place], float(means[place])


def mean_losses(row: Mapping[str, Any]) -> np.ndarray:
    """Returns the mean loss over seeds for each rate; infinity if a seed diverged."""
    return np.array([_mean(losses) for losses in row["losses"]])


def _mean(losses: list[float | None]) -> float:
    return math.inf if None in losses else float(np.mean([x for x in losses if x is not None]))


def factors(row: Mapping[str, Any]) -> np.ndarray:
    """Returns each advised rate over the best of the grid."""
    best, _ = best_rate(row)
    return np.array([one["learning_rate"] / best for one in row["advised"]])


def within(row: Mapping[str, Any]) -> np.ndarray:
    """Whether each advised rate is within the tolerated factor of the best."""
    return np.array([_close(factor) for factor in factors(row)])


def _close(factor: float) -> bool:
    return abs(math.log(factor)) <= math.log(TOLERATED) * (1 + 1e-9)


def as_good(row: Mapping[str, Any]) -> tuple[float, float]:
    """Returns the least and the largest rate of the grid whose mean loss is next to the best."""
    means = mean_losses(row)
    rates = [rate for rate, loss in zip(row["rates"], means, strict=True) if _next_to(loss, means)]
    return min(rates), max(rates)


def _next_to(loss: float, means: np.ndarray) -> bool:
    return bool(loss <= AS_GOOD * means.min())


def line(row: Mapping[str, Any]) -> str:
    """Returns a row as a line of the table."""
    best, loss = best_rate(row)
    edge = "*" if best in (row["rates"][0], row["rates"][-1]) else ""
    low, high = as_good(row)
    hits = within(row)
    bound = sorted({one["limited_by"] for one in row["advised"]})
    cells = [row["problem"], row["runtimes"], row["protocol"], f"{best:.2g}{edge}", f"{loss:.3g}"]
    cells += ["-" if low == high else f"{low:.2g} to {high:.2g}"]
    cells += [", ".join(f"{factor:.2f}" for factor in factors(row))]
    cells += [f"{hits.sum()} of {len(hits)}"]
    cells += [", ".join(f"{_mean(each) / loss:.3g}" for each in row["advised_losses"].values())]
    return table_row([*cells, " or ".join(bound)])


def measured_line(row: Mapping[str, Any]) -> str:
    """Returns what the advisor measured, as a line of the second table."""
    advised = row["advised"]

    def each(name: str) -> str:
        return ", ".join(f"{one[name]:.3g}" for one in advised)

    arguments = ", ".join(f"{name}={value}" for name, value in row["arguments"].items())
    verdicts = ", ".join(sorted({one["verdict"] for one in advised}))
    cells = [row["problem"], each("curvature_start"), each("curvature"), verdicts]
    cells += [f"{row['method']}({arguments})", each("num_gradients")]
    return table_row(cells)


def count_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns how much advice is within the tolerated factor, for each problem.

    Of each seed; of all, the geometric mean of what each says; and the least that one says.
    """
    found = []
    for problem in dict.fromkeys(row["problem"] for row in rows):
        own = [row for row in rows if row["problem"] == problem]
        hits = np.concatenate([within(row) for row in own])
        cells = [problem, f"{hits.sum()} of {len(hits)}"]
        for name in ("middle", "least"):
            chosen = [ADVISED[name](factors(row)) for row in own]
            cells.append(", ".join(f"{factor:.2f}" for factor in chosen))
            cells.append(f"{sum(map(_close, chosen))} of {len(own)}")
        found.append(table_row(cells))
    return found


def tables(summary: Mapping[str, Any]) -> str:
    """Returns all tables as Markdown."""
    rows = summary["rows"]
    headings = ("problem", "curvature at the start", "curvature", "norms of the noise")
    headings += ("method", "gradients")
    measured = {row["problem"]: measured_line(row) for row in reversed(rows)}
    problems = list(dict.fromkeys(row["problem"] for row in rows))
    parts = [
        [*table_head(_HEADINGS), *map(line, rows)],
        [*table_head(_COUNTS), *count_lines(rows)],
        [*table_head(headings), *(measured[name] for name in problems)],
    ]
    return "\n\n".join("\n".join(part) for part in parts)


if __name__ == "__main__":
    print(tables(json.loads((RESULTS / "summary.json").read_text())))
