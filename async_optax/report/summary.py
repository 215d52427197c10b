"""The standings of a contest as plain data and as a table."""

import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich.box
from jax.tree_util import Partial
from rich.table import Table

from async_optax.contest import Contest, Run, Standing


def rows(standings: Sequence[Standing]) -> list[dict[str, Any]]:
    """Returns one row per entrant, at its best learning rate.

    Keys: ``method``, ``protocol``, ``arguments``, ``learning_rate``, ``final_accuracy`` and
    ``final_accuracy_spread`` (mean and sample standard deviation over seeds),
    ``time_to_target`` (mean over seeds, ``None`` unless all reached it), ``speedup`` (over
    the fastest synchronous row), ``fastest_learning_rate`` and ``fastest_time_to_target``
    (the least over the grid), ``num_learning_rates_near_best``, ``at_grid_edge`` (a wider grid
    might do better), ``num_diverged`` (runs of the whole grid) and ``diverged`` (at the best
    learning rate: seeds, versions and times).
    """
    return [
        {
            "method": standing.entrant.label,
            "protocol": standing.entrant.protocol.name,
            "arguments": {k: _plain(v) for k, v in standing.entrant.arguments.items()},
            "learning_rate": standing.learning_rate,
            "final_accuracy": float(np.mean(standing.final_accuracies)),
            "final_accuracy_spread": _spread(standing.final_accuracies),
            "time_to_target": standing.time_to_target,
            "speedup": standing.speedup,
            "num_learning_rates_near_best": standing.num_near_best(),
            "fastest_learning_rate": standing.fastest_learning_rate,
            "fastest_time_to_target": standing.fastest_time_to_target,
            "at_grid_edge": len(standing.runs) > 2
            and standing.learning_rate in (min(standing.runs), max(standing.runs)),
            "num_diverged": sum(
                run.diverged is not None for runs in standing.runs.values() for run in runs
            ),
            "diverged": _divergences(standing.best),
        }
        for standing in standings
    ]


def _plain(value: Any) -> Any:
    """A weight as ``polynomial(power=0.5)``, a function by its name, anything else as it is."""
    if isinstance(value, Partial):
        numbers = ", ".join(f"{name}={number:g}" for name, number in value.keywords.items())
        return f"{value.func.__name__.removeprefix('_')}({numbers})"
    return getattr(value, "__name__", repr(value)) if callable(value) else value


def describe_divergence(standings: Sequence[Standing]) -> list[str]:
    """Returns a line for every run that diverged at its entrant's best learning rate."""
    return [
        f"{standing.entrant.label} under {standing.entrant.protocol.name}, "
        f"learning rate {standing.learning_rate:.3g}, seed {run.seed}: {run.diverged}"
        for standing in standings
        for run in standing.best
        if run.diverged
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
    """Writes the setting, the rows and the whole grid as JSON.

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
            "num_evaluations": contest.num_evaluations,
            **contest.description,
        },
        "versions": {"async_optax": importlib.metadata.version("async_optax")}
        | {name: importlib.metadata.version(name) for name in ("jax", "optax", "numpy")},
        "rows": rows(standings),
        "grid": grid,
    }
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def standings_table(contest: Contest, standings: Sequence[Standing]) -> Table:
    """Returns the rows as a table for the terminal, 80 columns wide; :func:`legend` explains it."""
    described = [str(value) for value in contest.description.values()]
    setting = [f"{contest.num_workers} workers", f"time {contest.max_time:g}"]
    setting += [f"{len(contest.seeds)} seed" + "s" * (len(contest.seeds) > 1)]
    table = Table(
        title="\n".join([contest.runtimes.name, ", ".join(setting), *described]),
        box=rich.box.SIMPLE_HEAD,
        padding=0,
    )
    table.add_column("method", no_wrap=True)
    for heading in ("rate", "accuracy", "time", "gain", "fastest", "near"):
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
            f"{format_rate(row['learning_rate'])}{'*' if row['at_grid_edge'] else ' '}",
            _accuracy_cell(row, len(contest.seeds)),
            "never" if row["time_to_target"] is None else f"{row['time_to_target']:.0f}",
            "-" if row["speedup"] is None else f"{row['speedup']:.1f}x",
            _fastest_cell(row),
            str(row["num_learning_rates_near_best"]),
        )
    return table


def legend(contest: Contest, standings: Sequence[Standing]) -> list[str]:
    """Returns what the columns and marks of :func:`standings_table` mean, a line each."""
    shown = rows(standings)
    step = contest.max_time / contest.num_evaluations
    lines = [
        f"rate     the best of {len(contest.learning_rates)} learning rates, by mean accuracy",
        "accuracy final test accuracy, mean ± standard deviation over seeds",
        f"time     simulated, to the first evaluation (every {step:g}) at {contest.target:g} or "
        "above;",
        "         mean over seeds, never unless all reach it",
        "gain     speed-up over the fastest synchronous row; - if either is never",
        "fastest  the least such time over learning rates @ the rate it takes",
        "near     learning rates whose accuracy is within 2 points of the best",
    ]
    if any(row["at_grid_edge"] for row in shown):
        lines.append("*        at the edge of the grid: a wider one might do better")
    partly = [0 < len(row["diverged"]) < len(contest.seeds) for row in shown]
    if any(partly):
        lines.append("†        some seeds diverged and count as accuracy 0; see below")
    if any(len(row["diverged"]) == len(contest.seeds) for row in shown):
        lines.append("✗        all seeds diverged, the first at this version and time")
    return lines


def format_rate(learning_rate: float) -> str:
    """Returns a learning rate in at most two digits: ``0.0078``, ``0.25``, ``5000``."""
    return f"{learning_rate:.2g}" if learning_rate < 100 else f"{learning_rate:.0f}"


def _fastest_cell(row: dict[str, Any]) -> str:
    if row["fastest_time_to_target"] is None:
        return "never"
    return f"{row['fastest_time_to_target']:.0f} @{format_rate(row['fastest_learning_rate'])}"


def _accuracy_cell(row: dict[str, Any], num_seeds: int) -> str:
    diverged = row["diverged"]
    if len(diverged) == num_seeds:
        first = min(diverged, key=lambda where: where["time"])
        return f"✗ v{first['version']}, t={first['time']:.3g}"
    spread = f" ±{row['final_accuracy_spread']:.3f}" if num_seeds > 1 else ""
    return f"{row['final_accuracy']:.3f}{spread}{'†' if diverged else ' '}"
