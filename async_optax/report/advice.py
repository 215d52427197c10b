"""Advice before a run: as a table, as plain data, and as a picture of where it is stable."""

import importlib.metadata
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich.box
from matplotlib.figure import Figure
from rich.markup import escape
from rich.table import Table

from async_optax.advice import (
    Advice,
    ProtocolAdvice,
    Reason,
    expected_losses,
    largest_rate,
)
from async_optax.report.plots import save_figure
from async_optax.theory import stability_limit, stability_map

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_GREY, _OWN = "#999999", "#D62728"
_POINTS = 200  # on a side of the map


def protocol_advice_table(advice: Advice) -> Table:
    """Returns what to expect of each protocol, at most 100 columns wide.

    Args:
      advice: from :func:`async_optax.advice.advise`.
    """
    table = Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("protocol", overflow="fold")
    for heading in ("steps", "stale", "max", "limit", "below", "rate", "bound by"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("weights", "loss", "gain"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in advice.protocols:
        name = escape(row.protocol) + (" *" if row is advice.best else "")
        if row.rate is None or row.drive is None:
            table.add_row(name, *["-"] * 10)
            continue
        rate = row.rate
        gain = "-" if math.isnan(row.speedup) else f"{row.speedup:.2g}x"
        table.add_row(
            name,
            str(int(row.drive.num_commits)),
            f"{row.staleness_mean:.3g}",
            f"{row.staleness_max:.0f}",
            f"{row.drive.limit:.3g}",
            f"{rate.largest:.2g}",
            f"{rate.learning_rate:.2g}",
            rate.limited_by,
            row.weight,
            f"{rate.loss:.3g}",
            gain,
        )
    return table


def describe_measured(advice: Advice) -> list[str]:
    """Returns what was measured of the problem, in words."""
    measured = advice.measured
    last = measured.rungs[-1]
    top = [rung for rung in measured.rungs if rung.kept][-1]
    lines = [
        f"{measured.num_parameters} parameters; {measured.num_gradients} gradients for this "
        f"advice, {measured.steps} of them a warm-up: loss {measured.loss_start:.3g} to "
        f"{measured.loss_end:.3g}",
        f"curvature {measured.curvature_start:.3g} at the start, {measured.curvature:.3g} after a "
        f"warm-up at rates up to {top.learning_rate:.2g}"
        + ("" if last.kept else f" ({last.learning_rate:.2g} was too much)"),
    ]
    for name, report in (("norms", measured.norms), ("coordinates", measured.coordinates)):
        theta = "" if math.isnan(report.theta) else f"; theta {report.theta:.2g}"
        if report.theta_interval is not None:
            theta += f" ({report.theta_interval})"
        lines.append(f"noise, {name}: {report.verdict}: {report.reason}{theta}")
    return lines


def advice_legend(advice: Advice) -> list[str]:
    """Returns what the columns of :func:`protocol_advice_table` mean, then what does not run."""
    lines = [
        "steps   commits in the time; stale, max: staleness of gradients, mean and largest",
        "limit   largest stable learning rate times curvature, by replaying a timeline",
        "below   largest stable learning rate; rate: that advised; bound by: what stops it there",
        "loss    expected at the end; gain: how much sooner it is that of synchronous",
        "*       advised",
    ]
    return lines + [
        f"{row.protocol}: no advice: {row.problem}" for row in advice.protocols if row.problem
    ]


def reasons_table(reasons: Sequence[Reason]) -> Table:
    """Returns the advice, each line with its reason."""
    table = Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    table.add_column("advice", no_wrap=True)
    table.add_column("", overflow="fold", max_width=32)
    table.add_column("because", overflow="fold")
    for line in reasons:
        table.add_row(line.topic, escape(line.advice), escape(line.reason))
    return table


def write_advice(path: Path, advice: Advice, setting: Mapping[str, Any]) -> None:
    """Writes the setting and everything advised as JSON.

    Args:
      path: the file.
      advice: from :func:`async_optax.advice.advise`.
      setting: how it was made, as plain data.
    """
    content = {
        "setting": dict(setting),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("async_optax", "jax", "numpy", "scipy")
        },
        **advice.as_dict(),
    }
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def plot_advice(path: Path, advice: Advice) -> None:
    """Draws where training is stable, what learning rates promise, and the tail of the noise.

    Left the stability region of a quadratic mode over learning rate times curvature and staleness:
    the factor by which it shrinks per step where all gradients are equally stale. A protocol's
    gradients are not; each is a dot at its advised rate and at the equal staleness of which its
    replay had the limit, with a line to that limit. The legend has its mean staleness. Middle the
    expected loss over the learning rate, up to the limit of each protocol. Right Hill's estimate of
    the tail index over the number of largest samples used.

    Args:
      path: a picture file; its suffix decides the format.
      advice: from :func:`async_optax.advice.advise`.
    """
    figure = Figure(figsize=(15, 4.8), layout="constrained")
    region, losses, tail = figure.subplots(1, 3, width_ratios=(1.25, 1, 0.8))
    able = [row for row in advice.protocols if row.rate is not None]
    colors = {row.protocol: _COLORS[i % len(_COLORS)] for i, row in enumerate(able)}
    _draw_region(figure, region, advice, able, colors)
    _draw_losses(losses, advice, able, colors)
    _draw_tail(tail, advice)
    for axes in (losses, tail):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = region.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5))
    save_figure(figure, path)


def equivalent_staleness(limit: float) -> float:
    """Returns the staleness that, were all gradients equally stale, would have this limit.

    The inverse of ``a = 2 sin(pi / (2 (2 tau + 1)))``, 0 for limits of 2 and more.

    Example:
      >>> from async_optax.theory import stability_limit
      >>> round(equivalent_staleness(float(stability_limit(7))), 6)
      7.0
    """
    if limit >= 2:
        return 0.0
    return (math.pi / (2 * math.asin(limit / 2)) - 1) / 2


def _draw_region(
    figure: Figure,
    axes: Any,
    advice: Advice,
    rows: Sequence[ProtocolAdvice],
    colors: Mapping[str, str],
) -> None:
    unit = advice.measured.curvature * advice.measured.clip.response
    drawn = [(row, row.rate, row.drive) for row in rows if row.rate and row.drive]
    top = max(4, math.ceil(1.6 * max(equivalent_staleness(drive.limit) for _, _, drive in drawn)))
    placed = [rate.learning_rate * unit for _, rate, _ in drawn]
    placed += [advice.own_rate * unit] if advice.own_rate else []
    low = min(0.5 * min(placed), 0.3 * float(stability_limit(top)))
    steps = np.geomspace(low, max(4.0, 1.5 * max(placed)), _POINTS)
    staleness = np.arange(top + 1)
    radius = stability_map(steps, staleness)
    levels = [0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0]
    shown = axes.contourf(steps, staleness, radius, levels, cmap="Blues_r")
    fine = np.linspace(0, top, _POINTS)
    limits = 2 * np.sin(np.pi / (2 * (2 * fine + 1)))
    axes.fill_betweenx(fine, limits, steps[-1], color="#DDDDDD", linewidth=0)
    axes.plot(limits, fine, color="black", linewidth=1.2, label="limit")
    for row, rate, drive in drawn:
        color, at = colors[row.protocol], rate.learning_rate * unit
        height = equivalent_staleness(drive.limit)
        best = row is advice.best
        axes.plot([at, min(drive.limit, 2.0)], [height] * 2, color=color, linewidth=1.2)
        axes.plot(
            at,
            height,
            "*" if best else "o",
            color=color,
            markersize=15 if best else 8,
            markeredgecolor="white",
            label=f"{row.protocol}{' (advised)' if best else ''}: mean {row.staleness_mean:.3g}",
            zorder=3,
            clip_on=False,
        )
        if best and advice.own_rate:
            axes.plot(
                advice.own_rate * unit,
                height,
                "X",
                color=_OWN,
                markeredgecolor="white",
                markersize=11,
                label="your rate",
                zorder=4,
            )
    axes.set_xscale("log")
    axes.set(
        xlabel="learning rate × curvature",
        ylabel="staleness (equal for all) of the same limit",
        title="where training is stable",
        xlim=(steps[0], steps[-1]),
        ylim=(0, top),
    )
    figure.colorbar(shown, ax=axes, label="factor per step of a mode; grey: it grows")


def _draw_losses(
    axes: Any, advice: Advice, rows: Sequence[ProtocolAdvice], colors: Mapping[str, str]
) -> None:
    measured = advice.measured
    for row in rows:
        if row.rate is None or row.drive is None:
            continue
        rates = np.geomspace(3e-3, 0.97, _POINTS) * largest_rate(measured, row.drive)
        losses, _ = expected_losses(measured, row.drive, rates)
        axes.plot(rates, measured.curve.weights @ losses, color=colors[row.protocol])
        axes.plot(
            row.rate.learning_rate,
            row.rate.loss,
            "*" if row is advice.best else "o",
            color=colors[row.protocol],
            markersize=12 if row is advice.best else 6,
        )
        axes.axvline(row.rate.largest, color=colors[row.protocol], linewidth=0.7, linestyle=":")
    if advice.own_rate:
        axes.axvline(advice.own_rate, color=_OWN, linewidth=1.2)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set(
        xlabel="learning rate (dotted: largest stable)",
        title=f"expected loss after time {advice.max_time:g}",
    )


def _draw_tail(axes: Any, advice: Advice) -> None:
    drawn = False
    for name, report, color in (
        ("norms", advice.measured.norms, _COLORS[0]),
        ("coordinates", advice.measured.coordinates, _COLORS[1]),
    ):
        if report.plot is None:
            continue
        drawn, plot = True, report.plot
        axes.fill_between(plot.num_largest, plot.low, plot.high, color=color, alpha=0.15)
        axes.plot(plot.num_largest, plot.index, color=color, label=f"{name}: {report.verdict}")
        axes.plot(plot.chosen_num_largest, plot.chosen_index, "o", color=color)
    axes.set(xlabel="largest samples used", title="tail index of the noise (Hill)")
    if not drawn:
        axes.text(0.5, 0.5, "too few samples", ha="center", transform=axes.transAxes)
        return
    axes.axhspan(0, 2, color=_GREY, alpha=0.2, linewidth=0)
    axes.text(
        0.98,
        1.9,
        "infinite variance",
        ha="right",
        va="top",
        fontsize=8,
        color="#555555",
        transform=axes.get_yaxis_transform(),
    )
    axes.set_xscale("log")
    axes.set_ylim(0, min(20.0, 1.1 * max(4.0, float(np.nanmax(_finite_tops(advice))))))
    axes.legend(fontsize=8, loc="upper right")


def _finite_tops(advice: Advice) -> list[float]:
    plots = (advice.measured.norms.plot, advice.measured.coordinates.plot)
    return [float(p.index[np.isfinite(p.index)].max()) for p in plots if p is not None]
