"""Pictures of staleness: how it is distributed, and how it goes over time."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from async_optax.report.plots import require_some, save_figure
from async_optax.timelines import Timeline

_STALENESS, _DATA, _MEAN = "#0072B2", "#E69F00", "#D55E00"
_MAX_BARS, _MAX_DOTS, _MAX_BINS = 60, 20_000, 150


def plot_staleness(path: Path | str, timelines: Mapping[str, Timeline]) -> None:
    """Draws the staleness of accepted arrivals, one row of two panels per timeline.

    Left the share of arrivals per staleness, with a line at the mean; where jobs carry tokens,
    their data staleness in addition. Right the staleness over simulated time: a dot per arrival,
    or, for more than 20 000 arrivals, the median and the band from 1 % to 99 % of successive
    stretches of time.

    Args:
      path: a picture file; its suffix decides the format.
      timelines: by title, at least one.

    Raises:
      ValueError: if there are none.
    """
    require_some(timelines)
    figure = Figure(figsize=(10, 0.7 + 2.1 * len(timelines)), layout="constrained")
    panels = figure.subplots(len(timelines), 2, squeeze=False, width_ratios=(1, 2))
    handles: dict[str, Any] = {}
    for row, (title, timeline) in zip(panels, timelines.items(), strict=True):
        _draw_histogram(row[0], timeline)
        _draw_over_time(row[1], timeline)
        row[0].set_title(title, loc="left", fontsize=10)
        row[0].set_ylabel("share of arrivals", fontsize=8)
        row[1].set_ylabel("staleness", fontsize=8)
        row[1].set_xlim(0, timeline.end_time)
        for axes in row:
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=8)
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
    panels[-1, 0].set_xlabel("staleness of accepted arrivals")
    panels[-1, 1].set_xlabel("simulated time")
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5)
    save_figure(figure, path)


def _draw_histogram(axes: Any, timeline: Timeline) -> None:
    """One bar per value where there are few, else equally wide ones."""
    staleness = timeline.staleness[timeline.accepted]
    data = None if timeline.token is None else timeline.data_staleness[timeline.accepted]
    if not len(staleness):
        return
    low = min(0, 0 if data is None else int(data.min()))
    high = max(int(staleness.max()), 0 if data is None else int(data.max()))
    width = -(-(high - low + 1) // _MAX_BARS)
    edges = np.arange(low, high + width + 1, width) - 0.5

    def draw(values: np.ndarray, **style: Any) -> None:
        axes.hist(values, edges, weights=np.full(len(values), 1 / len(values)), **style)

    draw(staleness, color=_STALENESS, alpha=0.75, label="staleness")
    if data is not None:
        style = {"histtype": "step", "linewidth": 1.5, "color": _DATA}
        draw(data, label="data staleness (tokens)", **style)
    axes.axvline(staleness.mean(), color=_MEAN, linewidth=1.2, label="mean")
    margin = max(0.5, 0.02 * (high - low))
    axes.set_xlim(low - 0.5 - margin, high + 0.5 + margin)
    axes.xaxis.get_major_locator().set_params(integer=True)


def _draw_over_time(axes: Any, timeline: Timeline) -> None:
    staleness = timeline.staleness[timeline.accepted]
    time = timeline.time[timeline.accepted]
    if len(time) > _MAX_DOTS:
        middles, low, median, high = _quantiles(time, staleness)
        axes.fill_between(
            middles, low, high, color=_STALENESS, alpha=0.25, linewidth=0, label="1 % to 99 %"
        )
        axes.plot(middles, median, color=_STALENESS, linewidth=1.2, label="median")
    else:
        size = float(np.clip(3000 / max(len(time), 1), 1.5, 12))
        axes.scatter(
            time, staleness, s=size, color=_STALENESS, linewidths=0, alpha=0.6, rasterized=True
        )
    top = max(1.0, axes.get_ylim()[1])
    axes.set_ylim(-0.04 * top, top)
    axes.yaxis.get_major_locator().set_params(integer=True)


def _quantiles(time: np.ndarray, staleness: np.ndarray) -> np.ndarray:
    """Returns middles of stretches with equally many arrivals, and three quantiles in each."""
    bounds = np.linspace(0, len(time), _MAX_BINS + 1).astype(int)
    rows = [
        (np.median(time[first:last]), *np.quantile(staleness[first:last], (0.01, 0.5, 0.99)))
        for first, last in zip(bounds, bounds[1:], strict=False)
    ]
    return np.array(rows).T
