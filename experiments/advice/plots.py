"""The picture: loss over the learning rate, with what was advised."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from async_optax.report import save_figure
from experiments.advice.config import TOLERATED
from experiments.advice.tables import best_rate, mean_losses

_WORST = 4.0  # losses above are cut off: nothing was learnt
_COLORS = {"asynchronous": "#0072B2", "synchronous": "#D55E00"}
_TOP = 4.0  # losses above are of runs that have failed


def plot_grids(path: Path, summary: Mapping[str, Any]) -> None:
    """Draws one panel per problem and runtime model, a curve per protocol.

    Curves are means over seeds, bands run from the least seed to the largest; vertical lines are
    the advised learning rates, one for each seed of the advisor; shaded is what is within a factor
    of two of the best.
    """
    rows = summary["rows"]
    problems = list(dict.fromkeys(row["problem"] for row in rows))
    runtimes = list(dict.fromkeys(row["runtimes"] for row in rows))
    figure = Figure(figsize=(3.4 * len(problems), 2.9 * len(runtimes)), layout="constrained")
    panels = figure.subplots(len(runtimes), len(problems), squeeze=False)
    for row in rows:
        axes = panels[runtimes.index(row["runtimes"])][problems.index(row["problem"])]
        color, rates = _COLORS[row["protocol"]], np.array(row["rates"])
        means = mean_losses(row)
        known = np.isfinite(means)
        best, _ = best_rate(row)
        axes.axvspan(best / TOLERATED, best * TOLERATED, color=color, alpha=0.1, linewidth=0)
        low, high = (
            np.array([f([np.nan if x is None else x for x in losses]) for losses in row["losses"]])
            for f in (np.min, np.max)
        )
        axes.fill_between(rates[known], low[known], high[known], color=color, alpha=0.25)
        axes.plot(rates[known], means[known], color=color, marker=".", label=row["protocol"])
        for one in row["advised"]:
            axes.axvline(one["learning_rate"], color=color, linewidth=1, linestyle="--")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_title(f"{row['problem']}, {row['runtimes']}", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    for axes in panels.flat:
        axes.set_ylim(top=min(_WORST, axes.get_ylim()[1]))
    for problem, axes in zip(problems, panels[-1], strict=True):
        axes.set_xlabel("learning rate")
        own = np.concatenate([mean_losses(row) for row in rows if row["problem"] == problem])
        axes.set_ylim(0.5 * own.min(), min(_TOP, 1.5 * own[np.isfinite(own)].max()))
    for row_of_axes in panels:
        row_of_axes[0].set_ylabel("loss at the end")
    panels[0][0].legend(fontsize=8)
    figure.supxlabel(
        "dashed: advised, one line per seed; shaded: within a factor of 2 of the best", fontsize=9
    )
    save_figure(figure, path)
