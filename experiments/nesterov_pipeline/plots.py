"""The picture: perplexity over updates and over simulated time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from async_optax.report import save_figure
from experiments.nesterov_pipeline.config import GPIPE, GPIPE_IN_TIME

# Okabe and Ito.
_STYLES = {
    GPIPE: ("#000000", "--", "s"),
    GPIPE_IN_TIME: ("#000000", "-", "s"),
    "pipedream": ("#E69F00", "-", "o"),
    "pipemare": ("#CC79A7", "-", "v"),
    "stage_momentum": ("#999999", "-", "^"),
    "weight_prediction": ("#009E73", "-", "X"),
    "nesterov": ("#D55E00", "-", "D"),
    "nesterov, b1 0.95": ("#D55E00", ":", "D"),
    "nesterov, no stash": ("#56B4E9", "-", "P"),
}


def plot_curves(path: Path, rows: Sequence[Mapping[str, Any]], num_micro_batches: int) -> None:
    """Draws one row of panels per number of stages; means over seeds, and their range.

    Args:
      path: a picture file.
      rows: of the summary.
      num_micro_batches: of GPipe.
    """
    all_stages = sorted({row["num_stages"] for row in rows})
    figure = Figure(figsize=(11, 1.4 + 3.8 * len(all_stages)), layout="constrained")
    panels = figure.subplots(len(all_stages), 2, sharey="row", squeeze=False)
    for num_stages, (by_updates, by_time) in zip(all_stages, panels, strict=True):
        end = max(row["end_time"] for row in rows if row["method"] == "nesterov")
        for row in rows:
            name = row["method"]
            # What GPipe makes of its updates was measured once, for all numbers of stages.
            if row["num_stages"] != num_stages and name != GPIPE:
                continue
            slower = 1 + (num_stages - 1) / num_micro_batches
            times = slower * np.array(row["updates"]) if name == GPIPE else row["times"]
            if name != GPIPE_IN_TIME:
                _draw(by_updates, row["updates"], row)
            _draw(by_time, times, row)
        by_updates.set(xlabel="updates", ylabel="validation perplexity", yscale="log")
        by_time.set(xlabel="simulated time", xlim=(0, 1.02 * end))
        for axes in (by_updates, by_time):
            axes.set_title(f"{num_stages} stages")
            axes.grid(alpha=0.25, which="both")
            axes.spines[["top", "right"]].set_visible(False)
        low = min(np.min(_curves(row)) for row in rows)
        high = max(_curves(row)[:, 1].max() for row in rows)
        by_updates.set_ylim(0.97 * low, high)
        ticks = [
            tick for tick in (2, 2.5, 3, 4, 5, 6, 8, 10, 12, 16, 20, 30) if low <= tick <= high
        ]
        by_updates.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        by_updates.minorticks_off()
    handles, labels = panels[0][1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    save_figure(figure, path)


def _draw(axes: Any, x: Any, row: Mapping[str, Any]) -> None:
    color, style, marker = _STYLES[row["method"]]
    curves = _curves(row)
    axes.plot(
        x,
        curves.mean(axis=0),
        color=color,
        linestyle=style,
        marker=marker,
        markersize=4,
        linewidth=1.5,
        label=row["method"],
    )
    axes.fill_between(x, curves.min(axis=0), curves.max(axis=0), color=color, alpha=0.12)


def _curves(row: Mapping[str, Any]) -> np.ndarray:
    return np.array(row["curves"], float)
