"""The tables of the README: ``python -m experiments.real_workers.tables``."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from async_optax.distributed.staleness_summary import SHARES
from experiments.markdown import table_head, table_row
from experiments.real_workers.config import EQUAL, TOLERATED

RESULTS = Path(__file__).parent / "results"


def quantiles(counts: Sequence[int]) -> list[int]:
    """Returns the least staleness that 10, 50 and 90 % of the arrivals do not exceed.

    Args:
      counts: how many had staleness 0, 1, 2, ...

    Example:
      >>> quantiles([5, 0, 4, 1])
      [0, 0, 2]
    """
    shares = np.cumsum(counts) / np.sum(counts)
    return [int(np.argmax(shares >= share - 1e-12)) for share in SHARES]


def distance(measured: Sequence[int], predicted: Sequence[int]) -> float:
    """Returns the largest difference between two distribution functions (Kolmogorov's distance).

    Example:
      >>> distance([1, 1], [1, 1, 2])
      0.5
    """
    most = max(len(measured), len(predicted))
    shares = [np.cumsum(np.pad(x, (0, most - len(x)))) / np.sum(x) for x in (measured, predicted)]
    return float(np.abs(shares[0] - shares[1]).max())


def off(row: Mapping[str, Any], worker: str) -> float:
    """Returns how far the mean staleness predicted for a worker is from the measured, relatively.

    Args:
      row: a run.
      worker: its number, or ``"all"``.
    """
    return row["predicted"][worker]["mean"] / row["measured"][worker]["mean"] - 1


def holds(row: Mapping[str, Any]) -> dict[str, bool]:
    """Judges what is claimed of a run: target, mean staleness, and of each worker, and replay."""
    workers = [name for name in row["measured"] if name != "all"]
    return {
        "target": row["reached_at_commit"] is not None,
        "mean": abs(off(row, "all")) <= TOLERATED,
        "workers": all(abs(off(row, worker)) <= TOLERATED for worker in workers),
        "replay": row["replay_difference"] <= EQUAL * row["largest_parameter"],
    }


def run_line(row: Mapping[str, Any]) -> str:
    """Returns what came of a run."""
    never = row["reached_at_commit"] is None
    cells = [row["num_workers"], row["seed"], row["commits"], f"{row['seconds']:.1f}"]
    cells += [f"{row['commits'] / row['seconds']:.1f}"]
    cells += ["never", "never"] if never else [row["reached_at_commit"]]
    cells += [] if never else [f"{row['reached_at_time']:.1f}"]
    cells += [f"{row['evaluations']['accuracy'][-1]:.3f}", f"{row['replay_difference']:.1e}"]
    return table_row(cells)


def worker_lines(row: Mapping[str, Any]) -> list[str]:
    """Returns what is measured and predicted of all arrivals of a run, and of each worker's."""
    lines = []
    for name, measured in row["measured"].items():
        predicted = row["predicted"][name]
        job = row["job_times"].get(name)
        cells = [row["num_workers"], row["seed"], name, f"{measured['arrivals']:.0f}"]
        cells += ["", ""] if job is None else [f"{1000 * job['mean']:.0f}"]
        cells += [] if job is None else [_joined(f"{1000 * x:.0f}" for x in job["quantiles"])]
        cells += [f"{measured['mean']:.2f}", f"{predicted['mean']:.2f}", f"{off(row, name):+.1%}"]
        cells += [_joined(quantiles(one["counts"])) for one in (measured, predicted)]
        cells += [f"{distance(measured['counts'], predicted['counts']):.2f}"]
        lines.append(table_row(cells))
    return lines


def _joined(values: Any) -> str:
    return ", ".join(map(str, values))


def tables(summary: Mapping[str, Any]) -> str:
    """Returns both tables as Markdown."""
    runs = ("workers", "seed", "commits", "seconds", "per second", "commit at target")
    runs += ("seconds to target", "accuracy at the end", "replay differs by")
    workers = ("workers", "seed", "worker", "arrivals", "job, ms", "10, 50, 90 %")
    workers += ("mean staleness", "predicted", "off by", "10, 50, 90 %", "predicted", "distance")
    rows = summary["rows"]
    first = [*table_head(runs), *map(run_line, rows)]
    second = [*table_head(workers), *(line for row in rows for line in worker_lines(row))]
    return "\n\n".join("\n".join(lines) for lines in (first, second))


def stored(name: str = "cpu") -> dict[str, Any]:
    """Returns stored results of a preset."""
    return json.loads((RESULTS / f"{name}.json").read_text())


if __name__ == "__main__":
    print(tables(stored()))
