"""Pictures of utilisation: what each worker's time goes into."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from async_optax.report.plots import require_some, save_figure
from async_optax.timelines import Timeline

# As in the Gantt pictures: blue is work that counts, purple is work for nothing.
SHARES: dict[str, dict[str, Any]] = {
    "busy": {"facecolor": "#56B4E9"},
    "busy, but rejected": {"facecolor": "#CDE7F8", "edgecolor": "#56B4E9", "hatch": "////"},
    "on jobs that are lost": {"facecolor": "#CC79A7"},
    "waits": {"facecolor": "#DDDDDD"},
}
_MAX_BARS = 64
_COLUMNS, _TITLE_WIDTH = 4, 36
_VISIBLE = 1e-4


def plot_utilisation(path: Path | str, timelines: Mapping[str, Timeline]) -> None:
    """Draws the shares of each worker's time, stacked, one panel per timeline.

    Shares are of the time a worker is there. Up to 64 workers have a bar each, in their order;
    more are an area, the busiest first.

    Args:
      path: a picture file; its suffix decides the format.
      timelines: by title, at least one.

    Raises:
      ValueError: if there are none.
    """
    require_some(timelines)
    columns = min(_COLUMNS, len(timelines))
    rows = -(-len(timelines) // columns)
    figure = Figure(figsize=(max(2.9 * columns, 5), 0.7 + 2.1 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    occur: set[str] = set()
    for axes, (title, timeline) in zip(panels.flat, timelines.items(), strict=False):
        occur |= _draw_shares(axes, timeline)
        axes.set_title(textwrap.fill(title, _TITLE_WIDTH), loc="left", fontsize=9)
    for axes in panels.flat[len(timelines) :]:
        axes.set_axis_off()
    for axes in panels[:, 0]:
        axes.set_ylabel("share of its time", fontsize=8)
    handles = [Patch(**style, label=name) for name, style in SHARES.items() if name in occur]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    save_figure(figure, path)


def shares(timeline: Timeline) -> dict[str, np.ndarray]:
    """Returns the shares of each worker's time, ``[num_workers]`` each, in the order drawn."""
    rejected = timeline.rejected()
    useful = timeline.utilisation() - rejected
    measured = (useful, rejected, timeline.aborted(), timeline.waiting())
    return {name: np.clip(share, 0, 1) for name, share in zip(SHARES, measured, strict=True)}


def _draw_shares(axes: Any, timeline: Timeline) -> set[str]:
    measured = shares(timeline)
    number = np.arange(timeline.num_workers)
    axes.set(ylim=(0, 1), xlim=(-0.5, timeline.num_workers - 0.5))
    axes.tick_params(labelsize=8)
    if timeline.num_workers > _MAX_BARS:
        order = np.argsort(-measured["busy"], kind="stable")
        stacked = [share[order] for share in measured.values()]
        for area, style in zip(axes.stackplot(number, *stacked), SHARES.values(), strict=True):
            area.set(linewidth=0, **style)
        axes.set_xlabel("workers, busiest first", fontsize=8)
        axes.set_xlim(0, timeline.num_workers - 1)
    else:
        bottom = np.zeros(timeline.num_workers)
        for name, share in measured.items():
            axes.bar(number, share, bottom=bottom, width=0.85, linewidth=0, **SHARES[name])
            bottom = bottom + share
        axes.set_xlabel("worker", fontsize=8)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return {name for name, share in measured.items() if share.max() > _VISIBLE}
