"""The figure, from stored results: ``python -m experiments.real_workers.figures``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.figures import label_panels, legend_below, panels, save, series, style
from experiments.real_workers.tables import RESULTS, stored


def draw(folder: Path, summary: Mapping[str, Any]) -> None:
    """Writes the figure of a summary into a folder.

    Args:
      folder: that exists.
      summary: of :mod:`experiments.real_workers.run`.
    """
    numbers = list(dict.fromkeys(row["num_workers"] for row in summary["rows"]))
    target = summary["preset"]["target"]
    with style():
        figure, axes = panels(1 + len(numbers))
        for panel, number in zip(axes, numbers, strict=False):
            rows = [row for row in summary["rows"] if row["num_workers"] == number]
            draw_staleness(panel, rows)
            panel.set_title(f"{number} workers")
        draw_accuracy(axes[-1], summary["rows"], target)
        label_panels(axes)
        legend_below(figure)
        save(figure, folder, f"{summary['name']}-staleness")


def draw_staleness(panel: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draws the distribution functions of a fast and of the slow worker; one line per seed."""
    slow = str(rows[0]["num_workers"] - 1)
    for row in rows:
        for place, (worker, name) in enumerate((("0", "a fast worker"), (slow, "the slow worker"))):
            look = {"color": series(place)["color"], "where": "post", "linewidth": 0.8}
            found = row["measured"][worker]["counts"], row["predicted"][worker]["counts"]
            for counts, dashes, what in zip(
                found, ("-", "--"), ("measured", "predicted"), strict=True
            ):
                shares = np.cumsum(counts) / np.sum(counts)
                panel.step(
                    range(len(shares)), shares, linestyle=dashes, label=f"{name}, {what}", **look
                )
    panel.set(xlabel="staleness", ylabel="share of arrivals up to it", ylim=(0, 1.02))
    panel.set_xlim(0, 3 * max(row["measured"][slow]["mean"] for row in rows))


def draw_accuracy(panel: Any, rows: Sequence[Mapping[str, Any]], target: float) -> None:
    """Draws accuracy over real time; one line per seed."""
    numbers = list(dict.fromkeys(row["num_workers"] for row in rows))
    for row in rows:
        found, number = row["evaluations"], row["num_workers"]
        look = {"color": series(2 + numbers.index(number))["color"], "linewidth": 0.8}
        panel.plot(found["time"], found["accuracy"], label=f"{number} workers", **look)
    panel.axhline(target, color="0.4", linewidth=0.6, linestyle=":")
    panel.set(title="to the target", xlabel="seconds", ylabel="test accuracy")


if __name__ == "__main__":
    draw(RESULTS, stored())
