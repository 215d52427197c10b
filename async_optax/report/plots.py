"""Pictures of a contest: accuracy over simulated time, and robustness over learning rates."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from async_optax.contest import Contest, Standing
from async_optax.report.files import write_atomically

# Distinct for readers with colour-vision deficiency (Okabe and Ito), one per method.
_COLORS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7")
_MARKERS = ("o", "s", "^", "v", "D", "P", "X")
_BASELINE_STYLE = (0, (5, 2))


def plot_accuracy(path: Path, contest: Contest, standings: Sequence[Standing]) -> None:
    """Draws the accuracy of every entrant over simulated time, at its best learning rate.

    One panel per protocol; the fastest baseline is repeated in every panel as a dashed line.
    Lines are means over seeds, bands run from the worst seed to the best; they end where the
    first seed diverges.

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
                _draw_curve(axes, standing, _style(standings, standing), band=True)
            elif standing is baseline:
                style = _style(standings, standing) | {"linestyle": _BASELINE_STYLE}
                _draw_curve(axes, standing, style, band=False)
    for protocol, axes in panels.items():
        axes.axhline(contest.target, color="grey", linewidth=0.8, linestyle=":")
        axes.set(title=protocol, xlabel="simulated time", xlim=(0, contest.max_time), ylim=(0, 1))
    next(iter(panels.values())).set_ylabel("test accuracy")
    note = f"dotted: target {contest.target:g}"
    _finish(figure, panels, path, note + ("; dashed: fastest synchronous" if baseline else ""))


def _fastest_baseline(standings: Sequence[Standing]) -> Standing | None:
    """The baseline that speed-ups count from; without one, the most accurate."""
    baselines = [standing for standing in standings if standing.entrant.baseline]
    return min(
        baselines,
        key=lambda s: (s.time_to_target or np.inf, -float(np.mean(s.final_accuracies))),
        default=None,
    )


def _draw_curve(axes: Any, standing: Standing, style: dict[str, Any], band: bool) -> None:
    length = min(len(run.accuracy) for run in standing.best)
    if not length:
        return  # not even the start was finite: the table says where it diverged
    times = standing.best[0].time[:length]
    curves = np.stack([run.accuracy[:length] for run in standing.best])
    axes.plot(times, curves.mean(axis=0), linewidth=1.6, **style)
    if band:
        low, high = curves.min(axis=0), curves.max(axis=0)
        axes.fill_between(times, low, high, color=style["color"], alpha=0.12, linewidth=0)


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
    for protocol, axes in panels.items():
        axes.set_xscale("log", base=2)
        axes.set(title=protocol, xlabel="learning rate", ylim=(0, 1))
    next(iter(panels.values())).set_ylabel("final test accuracy")
    _finish(figure, panels, path, "a diverged run counts as accuracy 0")


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
    label = standing.entrant.label
    return {"color": _COLORS[labels.index(label) % len(_COLORS)], "label": label}


def _finish(figure: Figure, panels: dict[str, Any], path: Path, note: str) -> None:
    handles: dict[str, Any] = {}
    for axes in panels.values():
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            if label not in handles or handle.get_linestyle() == "-":
                handles[label] = handle
    columns = min(4, len(handles))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns)
    figure.suptitle(note, fontsize=9, color="grey")
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure in one piece; equal figures give equal files."""
    with matplotlib.rc_context({"svg.hashsalt": "async_optax"}):
        metadata = {"Software": None} if path.suffix == ".png" else None
        write_atomically(path, lambda p: figure.savefig(p, dpi=150, metadata=metadata))
