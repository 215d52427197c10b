"""The pictures: theory as lines, the engine as marks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from async_optax import theory
from async_optax.report import save_figure
from experiments.delay_theory.tables import mean_of

# Okabe and Ito.
BLACK, ORANGE, SKY, GREEN, BLUE, RED, PINK = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
_LAWS = {"equal": BLACK, "gamma, cv 0.5": BLUE, "exponential": RED}
_METHODS = {"sgd": (RED, "s"), "clipped_sgd": (BLUE, "o"), "delay_adaptive_sgd": (ORANGE, "^")}
_TAILS = (RED, BLUE, GREEN, ORANGE, PINK)


def draw(folder: Path, summary: Mapping[str, Any]) -> None:
    """Draws all pictures of a summary into a folder."""
    plot_boundary(folder / "boundary.png", summary)
    plot_timelines(folder / "timelines.png", summary)
    plot_workers(folder / "workers.png", summary)
    plot_floor(folder / "floor.png", summary)
    plot_stragglers(folder / "stragglers.png", summary)
    plot_rates(folder / "rates.png", summary)


def plot_boundary(path: Path, summary: Mapping[str, Any]) -> None:
    """Draws the map of growth with the limit on top, and the error of the measured boundary."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(6, 5))
    staleness = np.array(summary["setting"]["staleness"])
    steps, values = summary["map"]["steps"], np.array(summary["map"]["growth"])
    drawn = left.pcolormesh(
        np.arange(len(staleness) + 1) - 0.5,
        _edges(np.array(steps)),
        values.T,
        cmap="PuOr_r",
        vmin=-2,
        vmax=2,
        rasterized=True,
    )
    figure.colorbar(drawn, ax=left, label="growth per staleness + 1 commits", extend="both")
    rows = [row for row in summary["boundary"] if row["momentum"] == 0]
    places = np.arange(len(staleness))
    left.plot(places, theory.stability_limit(staleness), color=BLACK, label="limit")
    left.plot(places, theory.best_step(staleness), color=BLACK, linestyle=":", label="best step")
    measured = [row["measured"] for row in rows]
    style = {"marker": "o", "color": "white", "edgecolors": BLACK, "s": 26, "zorder": 3}
    left.scatter(places, measured, label="measured boundary", **style)
    left.set(yscale="log", xlabel="staleness", ylabel="step: learning rate times curvature")
    left.set_xticks(places, [str(value) for value in staleness])
    left.legend(fontsize=8, loc="lower left", framealpha=0.9)
    right.axhline(0, color=BLACK, linewidth=0.8)
    marks = ("o", "s", "^")
    for i, momentum in enumerate(summary["setting"]["momenta"]):
        errors = [100 * r["error"] for r in summary["boundary"] if r["momentum"] == momentum]
        right.plot(
            places, errors, marks[i], color=(BLUE, RED, ORANGE)[i], label=f"momentum {momentum:g}"
        )
    right.set(xlabel="staleness", ylabel="measured against predicted limit, %", ylim=(-0.2, 0.2))
    right.set_xticks(places, [str(value) for value in staleness])
    right.legend(fontsize=8)
    _clean(right)
    save_figure(figure, path)


def plot_timelines(path: Path, summary: Mapping[str, Any]) -> None:
    """Draws measured against predicted limits on simulated timelines."""
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.subplots()
    for name, color, marker, label in (
        ("mean", ORANGE, "s", "mean equation"),
        ("replayed", BLUE, "o", "replayed mode, another seed"),
    ):
        for i, row in enumerate(summary["timelines"]):
            axes.plot(
                mean_of(row["measured"])[0],
                row[name],
                marker,
                color=color,
                markersize=6,
                fillstyle="none" if name == "mean" else "full",
                label=label if not i else None,
            )
    ends = np.array([0.08, 12.0])
    axes.plot(ends, ends, color=BLACK, linewidth=0.8)
    axes.fill_between(ends, ends / 1.1, ends * 1.1, color=GREEN, alpha=0.15, linewidth=0)
    largest = max(summary["timelines"], key=lambda row: row["mean"])
    axes.annotate(
        f"{largest['times']}, {largest['protocol']}",
        (mean_of(largest["measured"])[0], largest["mean"]),
        textcoords="offset points",
        xytext=(8, -4),
        fontsize=8,
    )
    axes.set(xscale="log", yscale="log", xlim=(0.08, 1.5), ylim=(0.08, 15))
    axes.set(xlabel="limit of the step, measured by the engine", ylabel="predicted limit")
    axes.legend(fontsize=8, title="band: within 10 %", title_fontsize=8)
    _clean(axes)
    save_figure(figure, path)


def plot_workers(path: Path, summary: Mapping[str, Any]) -> None:
    """Draws the rate of the slowest mode over the number of workers."""
    settings = summary["setting"]["worker_rates"]
    figure = Figure(figsize=(5.5 * max(2, len(settings)), 4.2), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(settings)))
    for axes, rate in zip(panels, settings, strict=True):
        for row in (row for row in summary["workers"] if row["rate"] == rate):
            color = _LAWS[row["times"]]
            for kind, style in (("predicted", "-"), ("measured", "o")):
                pairs = [
                    (m, value)
                    for m, value in zip(row["num_workers"], row[kind], strict=True)
                    if value is not None
                ]
                label = row["times"] if kind == "predicted" else None
                axes.plot(*zip(*pairs, strict=True), style, color=color, markersize=4, label=label)
        best = row["formula"]["num_workers"]
        axes.axvline(best, color=BLACK, linestyle=":", linewidth=1)
        axes.annotate(
            f"formula for equal times: {best}",
            (best, 0.97),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            xytext=(-4, 0),
            ha="right",
            va="top",
            rotation=90,
            fontsize=8,
        )
        here = [r for r in summary["workers"] if r["rate"] == rate]
        top = max(v for r in here for kind in ("measured", "predicted") for v in r[kind] if v)
        axes.set(title=f"learning rate {rate:g}", xlabel="workers", ylim=(0, 1.05 * top))
        _clean(axes)
    panels[0].set_ylabel("rate of the slowest mode, per compute time")
    panels[0].legend(fontsize=8, title="lines: predicted, dots: engine", title_fontsize=8)
    save_figure(figure, path)


def plot_floor(path: Path, summary: Mapping[str, Any]) -> None:
    """Draws the variance under noise over the step."""
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes = figure.subplots()
    loads = np.linspace(0.01, 1.5, 300)
    for part, color, marker in zip(summary["floor"], (BLUE, RED, GREEN), "os^", strict=False):
        tau = part["staleness"]
        fine = loads / (tau + 0.5)
        exact = theory.stationary_variance(fine, tau) * 2 * fine
        axes.plot(loads, exact, color=color, linewidth=1.2, label=f"staleness {tau}: exact")
        plain = theory.continuum_inflation(fine, tau)
        axes.plot(loads, plain, ":", color=color, linewidth=1.2, label="continuum, delay tau")
        places = np.array(part["steps"]) * (tau + 0.5)
        axes.plot(places, part["measured"], marker, color=color, markersize=6, label="engine")
    half = theory.continuum_inflation(loads, 1.0)
    axes.plot(loads, half, "--", color=BLACK, linewidth=1, label="continuum, delay tau + 1/2")
    axes.set(yscale="log", xlim=(0, 1.5), ylim=(0.9, 40))
    axes.set(xlabel="step times (staleness + 1/2)", ylabel="variance, in units of eta^2 / (2 step)")
    axes.legend(fontsize=8)
    _clean(axes)
    save_figure(figure, path)


def plot_stragglers(path: Path, summary: Mapping[str, Any]) -> None:
    """Draws gradient norms late in a run over the largest staleness."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, kind, title in zip(
        panels,
        ("median", "worst"),
        ("median after a third of the run", "worst after a third of the run"),
        strict=True,
    ):
        for method, (color, marker) in _METHODS.items():
            rows = [row for row in summary["stragglers"] if row["method"] == method]
            axes.plot(
                [row["max_staleness"] for row in rows],
                [row[kind] for row in rows],
                color=color,
                marker=marker,
                markersize=5,
                label=method,
            )
        axes.set(title=title, xscale="log", yscale="log", xlabel="largest staleness, commits")
        _clean(axes)
    panels[0].set_ylabel("norm of the gradient")
    panels[0].legend(fontsize=8)
    save_figure(figure, path)


def plot_rates(path: Path, summary: Mapping[str, Any]) -> None:
    """Draws the mean gradient norm over the length of a run."""
    names = list(dict.fromkeys(row["problem"] for row in summary["rates"]))
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    panels = figure.subplots(1, len(names), sharex=True, sharey=True)
    for axes, name in zip(panels, names, strict=True):
        rows = [row for row in summary["rates"] if row["problem"] == name]
        for row, color in zip(rows, _TAILS, strict=False):
            horizons = np.array(row["horizons"], float)
            label = f"alpha {row['alpha']:g}: {row['measured']:.3f}, theory {row['predicted']:.3f}"
            axes.plot(horizons, row["clipped"], "o-", color=color, markersize=4, label=label)
            axes.plot(horizons, row["plain"], "x", color=color, markersize=5)
            slope = row["clipped"][-1] * (horizons / horizons[-1]) ** -row["predicted"]
            axes.plot(horizons, slope, "--", color=color, linewidth=1)
        axes.set(title=name, xscale="log", yscale="log", xlabel="commits of the run, T")
        axes.legend(fontsize=8, title="exponent of 1 / T", title_fontsize=8)
        _clean(axes)
    panels[0].set_ylabel("mean norm of the gradient")
    save_figure(figure, path)


def _edges(centres: np.ndarray) -> np.ndarray:
    logs = np.log(centres)
    half = (logs[1] - logs[0]) / 2
    return np.exp(np.append(logs - half, logs[-1] + half))


def _clean(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
