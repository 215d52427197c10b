"""The figures, from stored results: ``python -m experiments.clipped_asgd.figures [PRESET ...]``."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.clipped_asgd.config import CLIPPED, METHODS
from experiments.clipped_asgd.tables import RESULTS, STORED, claims, stored
from experiments.figures import (
    COLUMN,
    label_panels,
    legend_below,
    panels,
    save,
    series,
    style,
)

_SERIES = {method: series(i) for i, method in enumerate((METHODS[1], METHODS[0], *METHODS[2:]))}


def draw(folder: Path, summary: Mapping[str, Any]) -> None:
    """Writes all figures of a summary into a folder.

    Args:
      folder: where they go.
      summary: of the experiment.
    """
    name = summary["name"]
    with style():
        save(_curves(summary), folder, f"{name}-curves")
        save(_rates(summary), folder, f"{name}-rates")
        save(_speedups(summary), folder, f"{name}-speedups")


def _task(summary: Mapping[str, Any], found: Mapping[str, Any]) -> Mapping[str, Any]:
    return summary["preset"]["tasks"][found["task"]]


def _curves(summary: Mapping[str, Any]) -> Any:
    """The metric over time at each method's best numbers, means and ranges over fresh seeds."""
    settings = summary["settings"]
    figure, axes = panels(len(settings), len(summary["preset"]["slowdowns"]))
    for panel, (setting, found) in zip(axes, settings.items(), strict=True):
        task = _task(summary, found)
        is_text = task["model"] == "lstm"
        for method, measured in found["methods"].items():
            if not measured["curves"]:
                continue
            values = np.array(measured["curves"], float)
            look = _SERIES[method]
            low, high = values.min(0), values.max(0)
            panel.fill_between(found["evaluated"], low, high, color=look["color"], alpha=0.15, lw=0)
            panel.plot(found["evaluated"], values.mean(0), label=method, **{**look, "marker": None})
        panel.axhline(task["target"], color="0.4", lw=0.7, ls=":", label="target")
        panel.set(title=setting, xlabel="simulated time")
        panel.set_ylabel("perplexity" if is_text else "test accuracy")
        if is_text:
            panel.set(yscale="log", ylim=(task["target"] / 2.2, task["target"] * 5))
            ticks = [round(task["target"] * factor, 1) for factor in (0.5, 1, 2, 4)]
            panel.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
            panel.minorticks_off()
    label_panels(axes)
    legend_below(figure, 5)
    return figure


def _rates(summary: Mapping[str, Any]) -> Any:
    """The time to the target over learning rates, on the first seed, at the best threshold."""
    settings = summary["settings"]
    figure, axes = panels(len(settings), len(summary["preset"]["slowdowns"]))
    for panel, (setting, found) in zip(axes, settings.items(), strict=True):
        for method, measured in found["methods"].items():
            best = measured["best"]
            if best is None:
                continue
            points = [p for p in measured["points"] if p["extra"] == best["extra"]]
            times = [np.nan if p["times"][0] is None else p["times"][0] for p in points]
            rates = [p["learning_rate"] for p in points]
            label = f"{method}, best threshold" if method == CLIPPED else method
            panel.plot(rates, times, label=label, **_SERIES[method])
        panel.set_xscale("log", base=2)
        panel.set(title=setting, xlabel="learning rate", ylabel="time to target")
        panel.set_ylim(0, None)
    label_panels(axes)
    legend_below(figure, 4)
    return figure


def _speedups(summary: Mapping[str, Any]) -> Any:
    """Measured and published speed-ups of clipping, one line of marks each."""
    import matplotlib.pyplot as plt

    rows = claims(summary)
    figure, axes = plt.subplots(figsize=(COLUMN, 0.7 + 0.17 * max(len(rows), 3)))
    places = -np.arange(len(rows))
    for place, row in zip(places, rows, strict=True):
        low, high = min(row["by_seed"]), max(row["by_seed"])
        axes.plot([low, high], [place, place], color=series(0)["color"], lw=2.5, alpha=0.35)
    axes.plot([row["fresh"] for row in rows], places, "o", color=series(0)["color"], label="here")
    published = [(row["published"], p) for row, p in zip(rows, places, strict=True)]
    published = [(value, place) for value, place in published if value is not None]
    if published:
        axes.plot(*zip(*published, strict=True), "D", color=series(1)["color"], label="published")
    axes.axvline(1, color="0.4", lw=0.7)
    axes.set_yticks(places, [f"{row['setting']}: {row['over']}" for row in rows])
    axes.set_xlabel("times sooner with clipping")
    legend_below(figure, 2)
    return figure


if __name__ == "__main__":
    for preset in sys.argv[1:] or [name for name in STORED if (RESULTS / f"{name}.json").exists()]:
        draw(RESULTS, stored(preset))
