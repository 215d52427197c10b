"""The picture: excess loss over simulated time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from async_optax.report import save_figure


def plot_loss(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    curves: Mapping[tuple[str, str, float], np.ndarray],
    level: float,
) -> None:
    """Draws the excess loss over simulated time, one panel per method.

    Args:
      path: a picture file.
      rows: of the summary: eight methods.
      curves: ``[num_seeds, num_times]`` for each noise, method and learning rate.
      level: what converges stays below.
    """
    figure = Figure(figsize=(13, 6.6), layout="constrained")
    panels = figure.subplots(2, 4, sharex=True, sharey=True)
    chosen = {(row["noise"], row["method"]): row for row in rows}
    methods = dict.fromkeys(row["method"] for row in rows)
    for method, axes in zip(methods, panels.flat, strict=True):
        heavy, light = chosen["heavy", method], chosen["Gaussian", method]
        drawn = [("Gaussian noise, rate of the least worst", light, light, "#888888")]
        if heavy["usual"]["rate"] != heavy["rate"]:
            drawn += [("heavy tails, rate of the least median", heavy, heavy["usual"], "#E69F00")]
        drawn += [("heavy tails, rate of the least worst", heavy, heavy, "#0072B2")]
        for label, row, at, color in drawn:
            runs = curves[row["noise"], method, at["rate"]]
            times = np.linspace(0, 1, runs.shape[1])
            middle = np.median(runs, axis=0)
            axes.plot(times, middle, color=color, linewidth=1.6, label=label)
            axes.fill_between(times, middle, runs.max(axis=0), color=color, alpha=0.3, linewidth=0)
        axes.axhline(level, color="black", linestyle=":", linewidth=1)
        axes.axvline(0.75, color="black", linewidth=0.4)
        axes.set(title=method, yscale="log", xlim=(0, 1), ylim=(0.02, 20))
    for axes in panels[1]:
        axes.set_xlabel("simulated time, share of the run")
    figure.supylabel("excess loss, share of the initial one", fontsize=10)
    note = "lines: median over seeds; bands: up to the worst seed; dotted: the level, which "
    note += "what converges stays below after the thin line"
    handles = panels[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, title=note)
    save_figure(figure, path)
