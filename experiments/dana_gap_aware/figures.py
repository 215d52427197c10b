"""The figures, from stored results: ``python -m experiments.dana_gap_aware.figures``."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.dana_gap_aware.config import METHODS
from experiments.dana_gap_aware.tables import (
    ALONE,
    OWN,
    RESULTS,
    STORED,
    best_rate,
    gaps,
    groups,
    rates_of,
    stored,
)
from experiments.figures import label_panels, legend_below, panels, save, series, style

_SERIES = {method: series(i) for i, method in enumerate(METHODS)}


def draw(folder: Path, summary: Mapping[str, Any]) -> None:
    """Writes all figures of a summary into a folder.

    Args:
      folder: where they go.
      summary: of the experiment.
    """
    name = summary["name"]
    with style():
        if len(summary["preset"]["num_workers"]) > 1:
            save(_workers(summary), folder, f"{name}-workers")
        save(_gaps(summary), folder, f"{name}-gap")
        save(_rates(summary), folder, f"{name}-rates")


def _workers(summary: Mapping[str, Any]) -> Any:
    """Final accuracy over the number of workers, means and ranges over seeds."""
    machines, found = list(summary["settings"]), list(groups(summary))
    figure, axes = panels(2 * len(machines), len(machines), sharey=True)
    places = [(rates, kind) for rates in (ALONE, OWN) for kind in machines]
    for panel, (rates, kind) in zip(axes, places, strict=True):
        row = [group for group in found if (group.rates, group.machines) == (rates, kind)]
        numbers = [group.num_workers for group in row]
        for method in summary["preset"]["methods"]:
            look = _SERIES[method]
            values = np.array([group.accuracy[method] for group in row])
            panel.plot(numbers, values.mean(1), label=method, **look)
            panel.fill_between(
                numbers, values.min(1), values.max(1), color=look["color"], alpha=0.12, lw=0
            )
        panel.axhline(_alone(summary), color="0.4", lw=0.7, ls=":", label="one worker")
        panel.set_xscale("log", base=2)
        panel.set_xticks(numbers, [str(number) for number in numbers])
        panel.minorticks_off()
        panel.set(title=f"{kind}, {rates}", xlabel="workers", ylabel="final accuracy")
    label_panels(axes)
    legend_below(figure, 4)
    return figure


def _alone(summary: Mapping[str, Any]) -> float:
    alone = summary["alone"]
    return float(np.mean(alone["accuracy"][best_rate(alone)]))


def _gaps(summary: Mapping[str, Any]) -> Any:
    """The gap along a run, at the best common rate of NAG-ASGD; what diverged is left out."""
    machines, numbers = list(summary["settings"]), summary["preset"]["num_workers"]
    some = numbers if len(numbers) < 3 else (numbers[1], numbers[-2])
    columns = len(some) if len(some) > 1 else len(machines)
    figure, axes = panels(len(some) * len(machines), columns, sharey=True)
    places = [(kind, number) for kind in machines for number in some]
    for panel, (kind, number) in zip(axes, places, strict=True):
        found = gaps(summary, summary["settings"][kind][str(number)])
        for method, gap in found.items():
            if gap is not None:
                middles = (np.arange(len(gap)) + 0.5) / len(gap)
                middles = middles * summary["preset"]["num_gradients"]
                panel.plot(middles, gap, label=method, **_SERIES[method])
        panel.set(title=f"{kind}, {number} workers", xlabel="gradients", ylabel="gap")
        panel.set_yscale("log")
    label_panels(axes)
    legend_below(figure, 4)
    return figure


def _rates(summary: Mapping[str, Any]) -> Any:
    """Final accuracy over learning rates, at the second-largest number of workers."""
    machines, numbers = list(summary["settings"]), summary["preset"]["num_workers"]
    number = numbers[-2] if len(numbers) > 1 else numbers[0]
    figure, axes = panels(len(machines), len(machines), sharey=True)
    for panel, kind in zip(axes, machines, strict=True):
        for method, found in summary["settings"][kind][str(number)].items():
            accuracy = np.mean(found["accuracy"], axis=1)
            panel.plot(rates_of(summary, method), accuracy, label=method, **_SERIES[method])
        panel.set_xscale("log", base=2)
        panel.set(title=f"{kind}, {number} workers", xlabel="learning rate")
        panel.set_ylabel("final accuracy")
    label_panels(axes)
    legend_below(figure, 4)
    return figure


if __name__ == "__main__":
    for preset in sys.argv[1:] or STORED:
        draw(RESULTS, stored(preset))
