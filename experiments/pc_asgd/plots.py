"""The pictures: accuracy over rounds, and over learning rates, one panel per setting."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from async_optax.report import format_rate, save_figure
from experiments.pc_asgd.config import (
    CLIP,
    FRESH,
    OPPOSED,
    PAIRWISE,
    PRACTICAL,
    PREDICT,
    STALE,
    THETAS,
    theta_name,
)
from experiments.pc_asgd.measure import best_rate, ending

# Okabe and Ito; one colour, marker and line per method in all pictures.
_STYLES: dict[str, tuple[str, str, Any]] = {
    FRESH: ("#999999", "o", ":"),
    STALE: ("#999999", "s", "-"),
    PREDICT: ("#0072B2", "^", "-"),
    CLIP: ("#D55E00", "v", "-"),
    theta_name(THETAS[0]): ("#56B4E9", "D", (0, (1, 1))),
    theta_name(THETAS[1]): ("#009E73", "D", "-"),
    theta_name(THETAS[2]): ("#CC79A7", "D", (0, (1, 1))),
    PRACTICAL: ("#000000", "P", "-"),
    OPPOSED: ("#000000", "X", (0, (4, 2))),
    PAIRWISE: ("#E69F00", "*", "-"),
}


def plot_rounds(path: Path, summary: Mapping[str, Any]) -> None:
    """Draws the mean model's accuracy over rounds, each method at its best learning rate.

    Args:
      path: a picture file.
      summary: of the experiment.
    """
    settings = summary["settings"]
    figure, panels = _panels(len(settings))
    for (name, measured), axes in zip(settings.items(), panels, strict=True):
        lowest = []
        for method, curves in measured.items():
            accuracy = np.array(curves["accuracy"])[best_rate(curves)]
            rounds = np.linspace(0, summary["preset"]["num_rounds"], accuracy.shape[1])
            axes.plot(rounds[1:], accuracy.mean(0)[1:], **_style(method))
            lowest.append(accuracy.mean(0)[len(rounds) // 3])
        axes.set(title=name, xlabel="rounds", ylim=(max(0, min(lowest) - 0.05), None))
    _finish(figure, panels, path, "accuracy of the mean model", "each method at its best rate")


def plot_rates(path: Path, summary: Mapping[str, Any]) -> None:
    """Draws the final accuracy of the mean model over learning rates.

    Args:
      path: a picture file.
      summary: of the experiment.
    """
    settings, rates = summary["settings"], summary["preset"]["learning_rates"]
    figure, panels = _panels(len(settings))
    for (name, measured), axes in zip(settings.items(), panels, strict=True):
        for method, curves in measured.items():
            final = ending(np.array(curves["accuracy"]))
            axes.plot(rates, final.mean(1), **_style(method))
        axes.set_xscale("log")
        axes.set_xticks(rates, [format_rate(rate) for rate in rates], fontsize=8)
        axes.minorticks_off()
        axes.set(title=name, xlabel="learning rate", ylim=(0, 1))
    note = "mean over seeds, a run counts as 0 once it has diverged"
    _finish(figure, panels, path, "final accuracy of the mean model", note)


def _style(method: str) -> dict[str, Any]:
    color, marker, line = _STYLES[method]
    return {
        "color": color,
        "marker": marker,
        "markersize": 4,
        "linestyle": line,
        "linewidth": 1.4,
        "label": method,
    }


def _panels(number: int) -> tuple[Figure, list[Any]]:
    columns = min(number, 4)
    num_rows = -(-number // columns)
    figure = Figure(figsize=(3.9 * columns, 1.4 + 3.3 * num_rows), layout="constrained")
    panels = list(figure.subplots(num_rows, columns, squeeze=False).flat)
    for spare in panels[number:]:
        spare.remove()
    for axes in panels[:number]:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels[:number]


def _finish(figure: Figure, panels: Sequence[Any], path: Path, label: str, note: str) -> None:
    for axes in panels:
        if axes.get_subplotspec().is_first_col():
            axes.set_ylabel(label)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, title=note)
    save_figure(figure, path)
