"""Pictures of a comparison of protocols on one cluster."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from async_optax.cluster import ProtocolStatistics
from async_optax.report.cluster import format_gain
from async_optax.report.plots import save_figure
from async_optax.report.utilisation import SHARES
from async_optax.timelines import Timeline

_COLOR, _MEAN = "#0072B2", "#D55E00"
_PARTS = dict(zip(SHARES, ("useful", "rejected", "aborted", "waiting"), strict=True))
_VISIBLE = 1e-4
# What differs most to look at, for a picture that cannot show all.
_TYPICAL = ("synchronous", "buffered", "bounded_staleness", "rennala", "ringmaster", "asynchronous")


def typical_timelines(
    statistics: Sequence[ProtocolStatistics], at_most: int = 6
) -> dict[str, Timeline]:
    """Returns the timelines of a few protocols that differ, by name, in their order."""
    ran = [row for row in statistics if row.timeline is not None]
    first: dict[str, ProtocolStatistics] = {}
    for row in ran:
        first.setdefault(row.protocol.split("(")[0], row)
    chosen = [first[kind].protocol for kind in _TYPICAL if kind in first]
    chosen += [row.protocol for row in ran if row.protocol not in chosen]
    return {row.protocol: row.timeline for row in ran if row.protocol in chosen[:at_most]}  # type: ignore[misc]


def plot_comparison(path: Path, statistics: Sequence[ProtocolStatistics]) -> None:
    """Draws throughput, shares of time and staleness, a row per protocol.

    Throughput has its gain over synchronous written beside it. Staleness is a line from the 1st
    to the 99th percentile, thick from the 25th to the 75th, a dot at the mean and a tick at the
    largest.

    Args:
      path: a picture file.
      statistics: from :func:`async_optax.cluster.compare_protocols`.
    """
    figure = Figure(figsize=(12, 1.6 + 0.33 * len(statistics)), layout="constrained")
    throughput, shares, staleness = figure.subplots(1, 3, sharey=True, width_ratios=(1.2, 1, 1.2))
    rows = range(len(statistics))
    most = max((row.throughput for row in statistics if not row.problem), default=1.0)
    for y, row in zip(rows, statistics, strict=True):
        if row.timeline is None:
            reason = textwrap.shorten(row.problem, 60, placeholder=" ...")
            throughput.text(0.01 * most, y, reason, va="center", fontsize=7, color="grey")
            continue
        throughput.barh(y, row.throughput, color=_COLOR, height=0.65)
        if not math.isnan(row.speedup):
            gain = f" {format_gain(row.speedup)}"
            throughput.text(row.throughput, y, gain, va="center", fontsize=8)
        left = 0.0
        for name, part in _PARTS.items():
            share = getattr(row, part)
            shares.barh(y, share, left=left, height=0.65, **SHARES[name])
            left += share
        _draw_staleness(staleness, y, row, row.timeline)
    throughput.set_yticks(rows, [row.protocol for row in statistics], fontsize=9)
    throughput.set(xlabel="gradients per unit of time", xlim=(0, 1.15 * most))
    throughput.set_ylim(len(statistics) - 0.4, -0.6)
    shares.set(xlabel="share of the workers' time", xlim=(0, 1))
    staleness.set_xscale("symlog", linthresh=1, linscale=0.5)
    largest = max((row.staleness_max for row in statistics if row.staleness_max > 0), default=1.0)
    staleness.set(xlabel="staleness", xlim=(-0.15, 1.3 * largest))
    ticks = [0] + [10**k for k in range(math.ceil(math.log10(1.3 * largest)))]
    staleness.set_xticks(ticks, [str(tick) for tick in ticks])
    for axes in (throughput, shares, staleness):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", alpha=0.25)
        axes.set_axisbelow(True)
    handles = [
        Patch(**SHARES[name], label=name)
        for name, part in _PARTS.items()
        if any(getattr(row, part) > _VISIBLE for row in statistics)
    ]
    handles += _staleness_marks()
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    save_figure(figure, path)


def _draw_staleness(axes: Any, y: int, row: ProtocolStatistics, timeline: Timeline) -> None:
    values = timeline.staleness[timeline.accepted]
    if not len(values):
        return
    low, first, third, high = np.quantile(values, (0.01, 0.25, 0.75, 0.99))
    axes.hlines(y, low, high, color=_COLOR, linewidth=1.2)
    axes.hlines(y, first, third, color=_COLOR, linewidth=6, alpha=0.55)
    axes.plot(row.staleness_max, y, "|", color=_COLOR, markersize=8)
    axes.plot(row.staleness_mean, y, "o", color=_MEAN, markersize=5)


def _staleness_marks() -> list[Any]:
    return [
        Line2D([], [], color=_COLOR, linewidth=1.2, label="1 % to 99 %"),
        Line2D([], [], color=_COLOR, linewidth=6, alpha=0.55, label="25 % to 75 %"),
        Line2D([], [], color=_MEAN, marker="o", markersize=5, linestyle="", label="mean"),
        Line2D([], [], color=_COLOR, marker="|", markersize=8, linestyle="", label="largest"),
    ]
