"""The pictures: what a switch does to the AUC, and how fast each mode gets there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from async_optax.report import save_figure
from experiments.gba.config import ASYNCHRONOUS, GBA, SYNCHRONOUS
from experiments.gba.tables import POINT, TOLERATED, aucs

# Okabe and Ito; switching modes have the colours of what they switch to.
_STYLES: dict[str, dict[str, Any]] = {
    SYNCHRONOUS: {"color": "#000000", "marker": "o"},
    ASYNCHRONOUS: {"color": "#D55E00", "marker": "s"},
    GBA: {"color": "#0072B2", "marker": "^"},
    "bounded staleness": {"color": "#CC79A7", "marker": "D"},
    "backup workers": {"color": "#009E73", "marker": "v"},
    "naive switching": {"color": "#D55E00", "marker": "s"},
    "GBA switching": {"color": "#0072B2", "marker": "^"},
}


def plot_switching(path: Path, summary: Mapping[str, Any]) -> None:
    """Draws points of AUC against synchronous training over the days of the log.

    Lines are means over seeds, bands run from the worst seed to the best.

    Args:
      path: a picture file.
      summary: the summary.
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    titles = ("each mode alone", "synchronous but for the grey days")
    baseline = aucs(summary["modes"][SYNCHRONOUS])
    for switching, axes, title in zip((False, True), panels, titles, strict=True):
        axes.axhspan(-TOLERATED, TOLERATED, color="#009E73", alpha=0.15, linewidth=0)
        axes.axhline(0, color="black", linewidth=0.8)
        if switching:
            axes.axvspan(*summary["setting"]["switches"], color="grey", alpha=0.15, linewidth=0)
        for name, runs in summary["modes"].items():
            if ("switching" in name) != switching or name == SYNCHRONOUS:
                continue
            days, points = np.array(runs[0]["day"]), (aucs(runs) - baseline) / POINT
            style = _STYLES[name]
            axes.fill_between(
                days[1:],
                points.min(axis=0)[1:],
                points.max(axis=0)[1:],
                color=style["color"],
                alpha=0.15,
                linewidth=0,
            )
            axes.plot(days[1:], points.mean(axis=0)[1:], label=name, markersize=4, **style)
        axes.set(title=title, xlabel="day of the log", xlim=(0, days[-1]))
        axes.legend(fontsize=8)
        _clean(axes)
    panels[0].set_ylabel("AUC against synchronous, points")
    save_figure(figure, path)


def plot_time(path: Path, summary: Mapping[str, Any]) -> None:
    """Draws the AUC on the next day over simulated time, and samples per unit of time.

    Args:
      path: a picture file.
      summary: the summary.
    """
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    each = summary["setting"]["evaluations_per_day"]
    for name, runs in summary["modes"].items():
        times = np.mean([run["time"] for run in runs], axis=0)[::each]
        line = "--" if "switching" in name else "-"
        values = aucs(runs).mean(axis=0)[::each]
        left.plot(times[1:], values[1:], label=name, linestyle=line, markersize=4, **_STYLES[name])
    left.set(xlabel="simulated time", ylabel="AUC on the next day", xlim=(0, None))
    left.legend(fontsize=8, loc="lower right")
    names = list(summary["modes"])
    speeds = [np.mean([run["samples_per_time"] for run in summary["modes"][n]]) for n in names]
    bars = right.barh(names, speeds, color=[_STYLES[name]["color"] for name in names])
    factors = [f"{speed / speeds[names.index(SYNCHRONOUS)]:.1f}" for speed in speeds]
    right.bar_label(bars, factors, padding=3, fontsize=8)
    right.invert_yaxis()
    right.set(xlabel="samples per unit of time, and the speed-up")
    right.margins(x=0.12)
    for axes in (left, right):
        _clean(axes)
    save_figure(figure, path)


def _clean(axes: Any) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
