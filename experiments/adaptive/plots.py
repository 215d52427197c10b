"""The pictures: robustness over learning rates, what carries over, and fitted strengths."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from async_optax.report import format_rate, save_figure
from experiments.adaptive.config import clipping_methods

# Okabe and Ito; one colour and marker per method in all pictures, adaptive ones full lines.
_STYLES = {
    "coordinate 0.0037": ("#CC79A7", "v", ":"),
    "coordinate 0.03": ("#000000", "o", ":"),
    "coordinate 0.24": ("#E69F00", "^", ":"),
    "norm 1": ("#999999", "s", ":"),
    "mean magnitude": ("#009E73", "X", "-"),
    "quantile, global": ("#56B4E9", "D", "-"),
    "quantile, normalised": ("#D55E00", "P", "-"),
    "fixed 0": ("#999999", "s", ":"),
    "fixed 0.1": ("#000000", "o", ":"),
    "fixed 0.25": ("#CC79A7", "v", ":"),
    "fixed 1": ("#E69F00", "^", ":"),
    "fixed 0.25, capped": ("#009E73", "X", "-"),
    "dynamic": ("#D55E00", "P", "-"),
    "hypergradient": ("#56B4E9", "D", "-"),
}


def plot_rates(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draws accuracy over learning rates, one panel per setting.

    Args:
      path: a picture file.
      rows: of a study.
    """
    settings = list(dict.fromkeys(row["setting"] for row in rows))
    figure, panels = _panels(len(settings))
    units = {method.name: method.rate_unit for method in clipping_methods()}
    for setting, axes in zip(settings, panels, strict=True):
        rates = np.zeros(0)
        for row in rows:
            if row["setting"] != setting or row["method"] not in _STYLES:
                continue
            rates = np.array(row["grid"]["learning_rates"]) / units.get(row["method"], 1.0)
            means = np.mean(row["grid"]["accuracies"], axis=1)
            axes.plot(rates, means, **_style(row["method"]))
        axes.set_xscale("log")
        shown = rates[:: max(1, len(rates) // 4)]
        axes.set_xticks(shown, [format_rate(rate) for rate in shown], fontsize=8)
        axes.minorticks_off()
        axes.set(title=setting, xlabel="learning rate", ylim=(0, 1))
    _label_rows(panels, "final test accuracy")
    note = "mean over seeds, a diverged run counts as 0"
    if any(row["method"] == "quantile, normalised" for row in rows):
        note += "; of the normalised clip, learning rate / 0.03"
    _finish(figure, panels, path, note)


def plot_carried(
    path: Path, rows: Sequence[Mapping[str, Any]], carried: Sequence[Mapping[str, Any]]
) -> None:
    """Draws the accuracy of tuned methods where gradients or noise have changed their scale.

    Args:
      path: a picture file.
      rows: of the study, for the accuracy at home.
      carried: of the study.
    """
    sources = list(dict.fromkeys(row["from"] for row in carried))
    figure, panels = _panels(len(sources), width=6.2)
    for source, axes in zip(sources, panels, strict=True):
        there = [row for row in carried if row["from"] == source]
        settings = list(dict.fromkeys(row["setting"] for row in there))
        for method in _STYLES:
            home = [r for r in rows if (r["setting"], r["method"]) == (source, method)]
            away = [row["accuracy"] for row in there if row["method"] == method]
            if home and away:
                values = [home[0]["accuracy"], *away]
                axes.plot(range(len(values)), values, **_style(method))
        names = ["as tuned", *(setting.split(", ")[-1] for setting in settings)]
        axes.set_xticks(range(len(names)), names, fontsize=8)
        axes.set(title=f"tuned on {source}", ylim=(0, 1))
    _label_rows(panels, "final test accuracy")
    _finish(figure, panels, path, "threshold and learning rate kept, the scale changed")


def plot_strengths(path: Path, strengths: Sequence[Mapping[str, Any]]) -> None:
    """Draws the fitted mean curvature over time.

    Args:
      path: a picture file.
      strengths: of the summary.
    """
    rates = sorted({row["learning_rate"] for row in strengths})
    figure, panels = _panels(len(rates), width=4.6)
    settings = list(dict.fromkeys(row["setting"] for row in strengths))
    colors = ("#000000", "#D55E00", "#56B4E9", "#009E73", "#E69F00")
    for rate, axes in zip(rates, panels, strict=True):
        for row in strengths:
            if row["learning_rate"] == rate:
                place = settings.index(row["setting"]) % len(colors)
                times = np.array(row["times"]) / max(row["times"])
                style = {"color": colors[place], "marker": "osD^v"[place], "markersize": 5}
                values = np.maximum(row["curvatures"], 1e-6)  # zero has no logarithm
                axes.plot(times, values, label=row["setting"], **style)
        axes.set(title=f"learning rate {rate:g}", xlabel="share of the run", yscale="log")
    _label_rows(panels, "fitted strength × mean h")
    _finish(figure, panels, path, "what compensate_delay_dynamic fits; zero is drawn at 1e-6")


def _style(method: str) -> dict[str, Any]:
    color, marker, line = _STYLES[method]
    return {
        "color": color,
        "marker": marker,
        "markersize": 5,
        "linestyle": line,
        "label": method,
        "linewidth": 1.6,
    }


def _panels(number: int, width: float = 3.8) -> tuple[Figure, list[Any]]:
    columns = min(number, 2 if number == 4 else 3)
    num_rows = -(-number // columns)
    figure = Figure(figsize=(width * columns, 1.2 + 3.2 * num_rows), layout="constrained")
    grid = figure.subplots(num_rows, columns, sharey=True, squeeze=False)
    panels = list(grid.flat)
    for spare in panels[number:]:
        spare.remove()
    panels = panels[:number]
    for axes in panels:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _label_rows(panels: Sequence[Any], label: str) -> None:
    for axes in panels:
        if axes.get_subplotspec().is_first_col():
            axes.set_ylabel(label)


def _finish(figure: Figure, panels: Sequence[Any], path: Path, note: str) -> None:
    handles: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    columns = min(4, len(handles))
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=columns, title=note
    )
    save_figure(figure, path)
