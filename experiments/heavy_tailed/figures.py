"""The figures, from stored results: ``python -m experiments.heavy_tailed.figures``."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.figures import COLUMN, label_panels, legend_below, panels, save, series, style
from experiments.heavy_tailed.curves import best_rate
from experiments.heavy_tailed.standings import OURS, ends
from experiments.heavy_tailed.tables import RESULTS

_SHOWN = (  # one look each, in all figures
    OURS,
    "asynchronous Adam",
    "FADAS",
    "clipped asynchronous SGD",
    "asynchronous SGD",
    "FedBuff",
    "Adam",
    "clipped Adam",
    "ours, BiClip",
)
_VARIANTS = (
    OURS,
    f"{OURS}, no weights",
    f"{OURS}, no compensation",
    f"{OURS}, clip alone",
    "ours, adaptive clip",
    "ours, BiClip, Adam",
    "ours, BiClip",
    "ours, BiClip, no wait",
    "ours, L2",
)


def draw(summary: Mapping[str, Any], folder: Path, prefix: str = "") -> list[str]:
    """Draws accuracy over time, over learning rates, the variants of ours, and the tails.

    Args:
      summary: of a preset.
      folder: where the files go.
      prefix: of their names.

    Returns:
      The names of the figures.
    """
    tasks = summary["tasks"]
    drawn = {}
    with style():
        figure, axes = panels(len(tasks))
        for panel, (name, task) in zip(axes, tasks.items(), strict=True):
            _over_time(panel, name, task)
        axes[0].set_ylabel("test accuracy")
        drawn["accuracy"] = figure, axes, 4
        whole = {name: task for name, task in tasks.items() if _VARIANTS[1] in task["methods"]}
        for file, methods, part in (("rates", _SHOWN, tasks), ("variants", _VARIANTS, whole)):
            if part:
                figure, axes = panels(len(part))
                for panel, (name, task) in zip(axes, part.items(), strict=True):
                    _over_rates(panel, name, task, methods)
                axes[0].set_ylabel("test accuracy at the end")
                drawn[file] = figure, axes, 4 if file == "rates" else 3
        judged = {name: task for name, task in tasks.items() if task["tails"]}
        if judged:
            figure, axes = panels(2, columns=2, width=2 * COLUMN)
            _along(*axes, tasks, judged)
            drawn["along"] = figure, axes, 3
        for file, (figure, axes, columns) in drawn.items():
            label_panels(axes)
            legend_below(figure, columns)
            save(figure, folder, f"{prefix}{file}")
    return [f"{prefix}{file}" for file in drawn]


def _over_time(panel: Any, name: str, task: Mapping[str, Any]) -> None:
    times = np.array(task["times"])
    for number, method in enumerate(_SHOWN):
        if method in task["methods"]:
            measured = task["methods"][method]
            curves = np.array(measured["fresh"][str(best_rate(measured))])
            look = series(number) | {"markevery": (number % 5, 5)}
            panel.plot(times, curves.mean(0), label=method, **_bold(method, look))
            if method == OURS:
                panel.fill_between(
                    times, curves.min(0), curves.max(0), color=look["color"], alpha=0.15, lw=0
                )
    panel.set(title=name, xlabel="simulated time", xlim=(0, times[-1]))


def _over_rates(panel: Any, name: str, task: Mapping[str, Any], shown: Sequence[str]) -> None:
    """Learning rates in units of each method's best, as they are in different ones."""
    for number, method in enumerate(shown):
        if method in task["methods"]:
            measured = task["methods"][method]
            rates = np.array(measured["rates"]) / measured["rates"][best_rate(measured)]
            look, label = _bold(method, series(number)), method
            if shown is _VARIANTS:
                label = method.removeprefix("ours, ")
            panel.plot(rates, ends(measured).mean(1), label=label, **look)
    panel.set(title=name, xlabel="learning rate / best learning rate")
    panel.set_xscale("log", base=2)


def _along(left: Any, right: Any, tasks: Mapping[str, Any], judged: Mapping[str, Any]) -> None:
    task = next(iter(tasks.values()))
    for number, (protocol, row) in enumerate(task["staleness"].items()):
        windows = (np.arange(len(row["along"])) + 0.5) / len(row["along"])
        left.plot(windows * task["times"][-1], row["along"], label=protocol, **series(number))
    left.set(title="staleness", xlabel="simulated time", ylabel="mean staleness")
    for number, (name, found) in enumerate(judged.items(), start=len(task["staleness"])):
        for kind, line in (("norms", "-"), ("coordinates", ":")):
            points = [(row["time"], row[kind]["index"]) for row in found["tails"]]
            known = np.array([point for point in points if point[1] is not None])
            if len(known):
                look = series(number) | {"linestyle": line}
                right.plot(*known.T, label=f"{name}, {kind}", **look)
    right.axhline(2, color="0.4", linewidth=0.6)
    right.set(title="tails of the gradients", xlabel="simulated time", ylabel="Hill's index")
    right.set_yscale("log")
    right.set_yticks([1, 2, 4, 8], ["1", "2", "4", "8"])
    right.minorticks_off()


def _bold(method: str, look: dict[str, Any]) -> dict[str, Any]:
    return look | {"linewidth": 1.9, "zorder": 3} if method == OURS else look


def _draw_finetuning(results: Mapping[str, Any], folder: Path) -> None:
    rows = results["evaluations"]
    with style():
        figure, (panel,) = panels(1, width=COLUMN, height=1.9)
        steps, accuracy = ([row[name] for row in rows] for name in ("step", "accuracy"))
        panel.plot(steps, accuracy, **series(0))
        panel.set(xlabel="step", ylabel="accuracy on sst2", xlim=(0, results["num_steps"]))
        save(figure, folder, "finetuning")


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws all results that are there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder with the results")
    folder = parser.parse_args(arguments).results
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    for name, summary in found.items():
        if "tasks" in summary:
            draw(summary, folder, "" if name == "cpu" else f"{name}-")
        else:
            _draw_finetuning(summary, folder)


if __name__ == "__main__":
    main()
