"""The tables of the README, from the summary: ``python -m experiments.gba.tables``."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.gba.config import ASYNCHRONOUS, GBA_SWITCHING, SYNCHRONOUS
from experiments.markdown import spread, table_head, table_row

RESULTS = Path(__file__).parent / "results"
POINT = 0.01  # of AUC
TOLERATED = 0.2  # points: the claim
ONE_WORKER = "one worker, never stale"

_ALONE = ("mode", "AUC", "points", "at the end", "samples per time", "speed-up", "dropped")
_SWITCHED = ("mode", "speed-up between")


def aucs(runs: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Returns the AUC ``[num_seeds, num_evaluations]``."""
    return np.array([run["auc"] for run in runs])


def day_rows(setting: Mapping[str, Any], first_day: int) -> list[int]:
    """Returns the evaluations at the beginnings of days from ``first_day`` to the end."""
    each = setting["evaluations_per_day"]
    return list(range(first_day * each, setting["num_days"] * each + 1, each))


def moments(setting: Mapping[str, Any]) -> dict[str, int]:
    """Returns the evaluations at which a switch shows, by name."""
    each, (start, stop) = setting["evaluations_per_day"], setting["switches"]
    return {
        f"+1/{each} day": start * each + 1,
        "+1 day": (start + 1) * each,
        "before the way back": stop * each,
        f"back +1/{each} day": stop * each + 1,
        "back +1 day": (stop + 1) * each,
        "end": setting["num_days"] * each,
    }


def points_at(
    summary: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], rows: Sequence[int]
) -> np.ndarray:
    """Returns the points by which runs are better than synchronous ones, a mean for each seed."""
    baseline = aucs(summary["modes"][SYNCHRONOUS])
    return (aucs(runs) - baseline)[:, list(rows)].mean(axis=1) / POINT


def alone_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns one line for each mode that does not switch, at the rate of synchronous training."""
    setting, modes = summary["setting"], summary["modes"]
    rows = day_rows(setting, setting["switches"][0])
    speed = _mean(modes[SYNCHRONOUS], "samples_per_time")
    shown = [(name, runs) for name, runs in modes.items() if "switching" not in name]
    shown.append((f"{ASYNCHRONOUS}, own rate", summary["retuned"]))
    shown.append((ONE_WORKER, summary["never_stale"]))
    lines = table_head(_ALONE)
    for name, runs in shown:
        points = points_at(summary, runs, rows)
        own = _mean(runs, "samples_per_time")
        speeds = ["-", "-"] if name == ONE_WORKER else [f"{own:.0f}", f"{own / speed:.1f}"]
        cells = [name, f"{aucs(runs)[:, rows].mean():.4f}", spread(points, 2, "+")]
        cells += [f"{aucs(runs)[:, -1].mean():.4f}", *speeds]
        cells += [f"{100 * _mean(runs, 'dropped'):.1f} %"]
        lines.append(table_row(cells))
    return lines


def switching_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns one line for each mode that switches: points against synchronous training."""
    setting, modes = summary["setting"], summary["modes"]
    named = moments(setting)
    headings = [*_SWITCHED, *named]
    speed = _mean(modes[SYNCHRONOUS], "samples_per_time_between")
    lines = table_head(headings)
    for name, runs in modes.items():
        if "switching" not in name:
            continue
        cells = [name, f"{_mean(runs, 'samples_per_time_between') / speed:.1f}"]
        cells += [spread(points_at(summary, runs, [row]), 2, "+") for row in named.values()]
        lines.append(table_row(cells))
    return lines


def tuning_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns the mean AUC of both pure modes at all learning rates."""
    tuning = summary["tuning"]
    rates = tuning[SYNCHRONOUS]["learning_rates"]
    lines = table_head(["rate", *(f"{rate:g}" for rate in rates)])
    for name, found in tuning.items():
        lines.append(table_row([name, *(f"{np.mean(auc):.4f}" for auc in found["auc"])]))
    return lines


def row_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns one line for each rule for the rows of tables."""
    setting = summary["setting"]
    rows = day_rows(setting, setting["switches"][0])
    headings = ("rows of tables", SYNCHRONOUS, GBA_SWITCHING, "points")
    lines = table_head(headings)
    for rule, modes in summary["by_rows"].items():
        pair = [aucs(modes[name])[:, rows].mean(axis=1) for name in (SYNCHRONOUS, GBA_SWITCHING)]
        cells = [rule, *(f"{auc.mean():.4f}" for auc in pair)]
        lines.append(table_row([*cells, spread((pair[1] - pair[0]) / POINT, 2, "+")]))
    return lines


def tables(summary: Mapping[str, Any]) -> str:
    """Returns all tables as Markdown."""
    parts = [
        tuning_lines(summary),
        alone_lines(summary),
        switching_lines(summary),
        row_lines(summary),
    ]
    return "\n\n".join("\n".join(part) for part in parts)


def _mean(runs: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(np.mean([run[name] for run in runs]))


if __name__ == "__main__":
    print(tables(json.loads((RESULTS / "summary.json").read_text())))
