"""Pictures of a contest: accuracy over simulated time, and robustness over learning rates."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from async_optax.contest import Contest, Standing
from async_optax.report.summary import format_rate

# Distinct for readers with colour-vision deficiency (Okabe and Ito), one per method.
_COLORS = ("#000000", "#56B4E9", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#0072B2")
_MARKERS = ("o", "s", "^", "v", "D", "P", "X")
_LINES: tuple[Any, ...] = ("-", (0, (6, 1.5)))  # alternate, so that equal curves both show


def plot_accuracy(path: Path, contest: Contest, standings: Sequence[Standing]) -> None:
    """Draws the accuracy of every entrant over simulated time, at its best learning rate.

    One panel per protocol; the fastest baseline is repeated in every panel as a dotted line.
    Lines are means over seeds, bands run from the worst seed to the best; they end in a cross
    where the first seed diverges.

    Args:
      path: a picture file; its suffix decides the format.
      contest: the setting.
      standings: from :func:`async_optax.contest.run_contest`.
    """
    figure, panels = _panels(standings)
    baseline = _fastest_baseline(standings)
    for standing in standings:
        for protocol, axes in panels.items():
            if protocol == standing.entrant.protocol.name:
                _draw_curve(axes, standing, _style(standings, standing))
            elif standing is baseline:
                times, curves = _curves(standing)
                name = f"fastest synchronous: {standing.entrant.label}"
                axes.plot(times, curves.mean(axis=0), color="grey", linestyle=":", label=name)
    for protocol, axes in panels.items():
        axes.axhline(contest.target, color="grey", linewidth=0.6)
        axes.set(title=protocol, xlabel="simulated time", xlim=(0, contest.max_time), ylim=(0, 1))
    next(iter(panels.values())).set_ylabel("test accuracy")
    note = "lines: mean over seeds, bands: worst to best, ×: a seed diverged, "
    note += f"thin line: target {contest.target:g}"
    _finish(figure, panels, path, note)


def _fastest_baseline(standings: Sequence[Standing]) -> Standing | None:
    """The baseline that speed-ups count from; if none reached the target, the most accurate."""
    baselines = [standing for standing in standings if standing.entrant.baseline]
    return min(
        baselines,
        key=_by_time_then_accuracy,
        default=None,
    )


def _by_time_then_accuracy(standing: Standing) -> tuple[float, float]:
    time = standing.time_to_target
    accuracy = float(np.mean(standing.final_accuracies))
    return np.inf if time is None else time, -accuracy


def _curves(standing: Standing) -> tuple[np.ndarray, np.ndarray]:
    """Times, and accuracies ``[num_seeds, num_times]`` up to where the first seed diverges."""
    length = min(len(run.accuracy) for run in standing.best)
    return standing.best[0].time[:length], np.stack(
        [run.accuracy[:length] for run in standing.best]
    )


def _draw_curve(axes: Any, standing: Standing, style: dict[str, Any]) -> None:
    times, curves = _curves(standing)
    if not len(times):
        return  # not even the start was finite: the table says where it diverged
    mean = curves.mean(axis=0)
    axes.plot(times, mean, linewidth=1.5, **style)
    low, high = curves.min(axis=0), curves.max(axis=0)
    axes.fill_between(times, low, high, color=style["color"], alpha=0.12, linewidth=0)
    if any(run.diverged for run in standing.best):
        axes.plot(times[-1], mean[-1], "x", color=style["color"], markersize=9, markeredgewidth=2)


def plot_robustness(path: Path, contest: Contest, standings: Sequence[Standing]) -> None:
    """Draws the mean final accuracy of every entrant over the learning rate.

    Args:
      path: a picture file.
      contest: the setting.
      standings: from :func:`async_optax.contest.run_contest`.
    """
    figure, panels = _panels(standings)
    for standing in standings:
        axes = panels[standing.entrant.protocol.name]
        means = standing.mean_accuracies()
        style = _style(standings, standing)
        marker = _MARKERS[_COLORS.index(style["color"])]
        axes.plot(list(means), list(means.values()), marker=marker, markersize=4, **style)
        best = standing.learning_rate
        axes.plot(best, means[best], "o", color=style["color"], markersize=10, fillstyle="none")
    rates = list(contest.learning_rates)
    shown = rates[:: max(1, len(rates) // 6)]
    for protocol, axes in panels.items():
        axes.set_xscale("log")
        axes.set_xticks(shown, [format_rate(rate) for rate in shown], fontsize=8)
        axes.minorticks_off()
        axes.set(title=protocol, xlabel="learning rate", ylim=(0, 1))
    next(iter(panels.values())).set_ylabel("final test accuracy")
    _finish(
        figure, panels, path, "mean over seeds, a diverged run counts as 0; ring: the best rate"
    )


def _panels(standings: Sequence[Standing]) -> tuple[Figure, dict[str, Any]]:
    protocols = list(dict.fromkeys(standing.entrant.protocol.name for standing in standings))
    figure = Figure(figsize=(3.6 * len(protocols), 4.4), layout="constrained")
    axes = figure.subplots(1, len(protocols), sharey=True, squeeze=False)[0]
    for panel in axes:
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, dict(zip(protocols, axes, strict=True))


def _style(standings: Sequence[Standing], standing: Standing) -> dict[str, Any]:
    labels = list(dict.fromkeys(other.entrant.label for other in standings))
    index = labels.index(standing.entrant.label)
    return {
        "color": _COLORS[index % len(_COLORS)],
        "linestyle": _LINES[index % 2],
        "label": standing.entrant.label,
    }


def _finish(figure: Figure, panels: dict[str, Any], path: Path, note: str) -> None:
    handles: dict[str, Any] = {}
    for axes in panels.values():
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    columns = min(4, len(handles))
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=columns, title=note
    )
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path | str) -> None:
    """Writes a figure; equal figures give equal files."""
    path = Path(path)
    with matplotlib.rc_context({"svg.hashsalt": "async_optax"}):
        metadata = {"Software": None} if path.suffix == ".png" else None
        figure.savefig(path, dpi=150, metadata=metadata)


def require_some(timelines: Mapping[str, Any]) -> None:
    """Raises ``ValueError`` if there is nothing to draw."""
    if not timelines:
        raise ValueError("timelines is empty: give at least one, by its title")
