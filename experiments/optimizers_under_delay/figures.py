"""The figures, from stored results: ``python -m experiments.optimizers_under_delay.figures``."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.figures import (
    DOUBLE,
    label_panels,
    legend_below,
    panels,
    save,
    series,
    style,
)
from experiments.optimizers_under_delay.config import OPTIMIZERS
from experiments.optimizers_under_delay.tables import (
    FRESH,
    RESULTS,
    STORED,
    cost,
    delay_names,
    find,
    losses,
    remedies,
    stored,
)

_SERIES = {name: series(i) for i, name in enumerate(OPTIMIZERS)}


def draw(folder: Path, summary: Mapping[str, Any]) -> None:
    """Writes all figures of a summary into a folder.

    Args:
      folder: where they go.
      summary: of the experiment.
    """
    name = summary["name"]
    with style():
        save(_delays(summary), folder, f"{name}-delays")
        save(_rates(summary), folder, f"{name}-rates")
        save(_remedies(summary), folder, f"{name}-remedies")


def _delays(summary: Mapping[str, Any]) -> Any:
    """Final losses, and what delays cost, over uniform delays and over those of stages."""
    figure, (left, right) = panels(2, height=2.5)
    optimizers = summary["preset"]["optimizers"]
    for by_stage in (False, True):
        kind = "stages" if by_stage else "uniform"
        names = [name for name in delay_names(summary) if name.startswith(kind)]
        if by_stage:
            names = [FRESH, *names]
        most = [int(name.split()[1].split("..")[0]) for name in names]
        for optimizer in optimizers:
            look = _SERIES[optimizer] | {"linestyle": ":" if by_stage else "-"}
            label = f"{optimizer}, by stage" if by_stage else optimizer
            if by_stage:
                look = look | {"markerfacecolor": "white"}
            final = np.array([losses(summary, optimizer, name) for name in names])
            late = np.array([cost(summary, optimizer, name) for name in names])
            for panel, values in ((left, final), (right, late)):
                panel.plot(most, values.mean(1), label=label, **look)
                panel.fill_between(
                    most, values.min(1), values.max(1), color=look["color"], alpha=0.12, lw=0
                )
    left.set(xlabel="delay (largest)", ylabel="final loss, nats", title="loss")
    right.set(xlabel="delay (largest)", ylabel="loss over no delay, nats", title="cost")
    label_panels((left, right))
    legend_below(figure, 5)
    return figure


def _rates(summary: Mapping[str, Any]) -> Any:
    """The losses that each search for a learning rate has seen, at uniform delays."""
    optimizers = summary["preset"]["optimizers"]
    names = [name for name in delay_names(summary) if name.startswith("uniform")]
    figure, axes = panels(len(optimizers), 3)
    for panel, optimizer in zip(axes, optimizers, strict=True):
        for i, name in enumerate(names):
            rates, values = zip(*find(summary, optimizer, name)["by_rate"], strict=True)
            panel.plot(rates, values, label=name, **series(i))
        panel.set_xscale("log", base=2)
        panel.set(title=optimizer, xlabel="learning rate", ylabel="loss, nats")
    label_panels(axes)
    legend_below(figure, 5)
    return figure


def _remedies(summary: Mapping[str, Any]) -> Any:
    """What each remedy gains, and the least and largest over seeds."""
    judged = remedies(summary)
    delays = list(dict.fromkeys(row["delay"] for row in judged))
    figure, axes = panels(len(delays), 2, width=DOUBLE, height=2.4, sharey=True)
    optimizers = summary["preset"]["optimizers"]
    names = summary["preset"]["remedies"]
    for panel, delay in zip(axes, delays, strict=True):
        for i, remedy in enumerate(names):
            rows = [r for r in judged if (r["delay"], r["remedy"]) == (delay, remedy)]
            gains = np.array([row["gain"] for row in rows])
            places = np.arange(len(rows)) + (i - (len(names) - 1) / 2) * 0.18
            errors = np.abs(np.array([gains.min(1), gains.max(1)]) - gains.mean(1))
            look = series(i) | {"linestyle": "none"}
            panel.errorbar(places, gains.mean(1), errors, label=remedy, **look)
        panel.axhline(0, color="0.4", lw=0.7)
        panel.set_xticks(range(len(optimizers)), optimizers)
        panel.set(title=delay, ylabel="loss saved, nats")
    label_panels(axes)
    legend_below(figure, 4)
    return figure


if __name__ == "__main__":
    for preset in sys.argv[1:] or STORED:
        draw(RESULTS, stored(preset))
