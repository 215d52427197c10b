"""The standings of a contest as plain data and as a table."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich.box
from rich.table import Table

from async_optax.contest import Contest, Run, Standing
from async_optax.report.files import write_atomically


def rows(standings: Sequence[Standing]) -> list[dict[str, Any]]:
    """Returns one row per entrant, at its best learning rate.

    Keys: ``method``, ``protocol``, ``learning_rate``, ``final_accuracy`` and
    ``final_accuracy_spread`` (mean and sample standard deviation over seeds),
    ``time_to_target`` (mean over seeds, ``None`` unless all reached it), ``speedup`` (over
    the fastest synchronous row), ``num_learning_rates_near_best``, ``at_grid_edge`` (a finer
    or wider grid might do better), ``num_diverged`` (runs of the whole grid) and ``diverged``
    (at the best learning rate: seeds, versions and times).
    """
    return [
        {
            "method": standing.entrant.label,
            "protocol": standing.entrant.protocol.name,
            "learning_rate": standing.learning_rate,
            "final_accuracy": float(np.mean(standing.final_accuracies)),
            "final_accuracy_spread": _spread(standing.final_accuracies),
            "time_to_target": standing.time_to_target,
            "speedup": standing.speedup,
            "num_learning_rates_near_best": standing.num_near_best(),
            "at_grid_edge": standing.learning_rate in (min(standing.runs), max(standing.runs)),
            "num_diverged": sum(
                run.diverged is not None for runs in standing.runs.values() for run in runs
            ),
            "diverged": _divergences(standing.best),
        }
        for standing in standings
    ]


def _spread(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _divergences(runs: Sequence[Run]) -> list[dict[str, Any]]:
    return [
        {"seed": run.seed, "version": run.diverged.version, "time": run.diverged.time}
        for run in runs
        if run.diverged
    ]


def write_summary(path: Path, contest: Contest, standings: Sequence[Standing]) -> None:
    """Writes the setting, the rows and the whole grid as JSON, in one piece.

    Args:
      path: the file.
      contest: the setting.
      standings: from :func:`async_optax.contest.run_contest`.
    """
    grid = [
        {
            "method": standing.entrant.label,
            "protocol": standing.entrant.protocol.name,
            "learning_rate": learning_rate,
            "final_accuracies": [run.final_accuracy for run in runs],
            "times_to_target": [run.time_to_target for run in runs],
            "diverged": _divergences(runs),
        }
        for standing in standings
        for learning_rate, runs in standing.runs.items()
    ]
    content = {
        "setting": {
            "runtimes": contest.runtimes.name,
            "num_workers": contest.num_workers,
            "max_time": contest.max_time,
            "target": contest.target,
            "learning_rates": list(contest.learning_rates),
            "seeds": list(contest.seeds),
        },
        "rows": rows(standings),
        "grid": grid,
    }
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda p: p.write_text(text))


def standings_table(contest: Contest, standings: Sequence[Standing]) -> Table:
    """Returns the rows as a table for the terminal, 80 columns wide."""
    table = Table(
        title=f"{contest.num_workers} workers, {contest.runtimes.name}\n"
        f"time {contest.max_time:g}, {len(contest.seeds)} seeds",
        caption=f"rate: best of {len(contest.learning_rates)} by accuracy, * at the grid's edge; "
        f"time: simulated, to accuracy {contest.target:g}; gain: speed-up over the fastest "
        "synchronous row; near: learning rates within 2 points of the best; lost: diverged "
        "runs of the grid; † some seeds diverged, ✗ all did, the first at version v, time t",
        box=rich.box.SIMPLE_HEAD,
        padding=0,
    )
    table.add_column("method", no_wrap=True)
    for heading in ("rate", "accuracy", "time", "gain", "near", "lost"):
        table.add_column(heading, justify="right", no_wrap=True)
    previous = None
    for row in rows(standings):
        if row["protocol"] != previous:
            if previous is not None:
                table.add_section()
            table.add_row(f"[bold]{row['protocol']}[/bold]")
            previous = row["protocol"]
        table.add_row(
            row["method"],
            f"{row['learning_rate']:.2g}{'*' if row['at_grid_edge'] else ' '}",
            _accuracy_cell(row, len(contest.seeds)),
            "never" if row["time_to_target"] is None else f"{row['time_to_target']:.0f}",
            "-" if row["speedup"] is None else f"{row['speedup']:.1f}x",
            str(row["num_learning_rates_near_best"]),
            str(row["num_diverged"]),
        )
    return table


def _accuracy_cell(row: dict[str, Any], num_seeds: int) -> str:
    diverged = row["diverged"]
    if len(diverged) == num_seeds:
        first = min(diverged, key=lambda where: where["time"])
        return f"✗ v{first['version']}, t={first['time']:.3g}"
    mark = "†" if diverged else " "
    return f"{row['final_accuracy']:.3f} ±{row['final_accuracy_spread']:.3f}{mark}"
