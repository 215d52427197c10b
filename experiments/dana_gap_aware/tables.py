"""The tables of the README: ``python -m experiments.dana_gap_aware.tables``."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from async_optax.report import format_rate
from experiments.dana_gap_aware.config import (
    DANA,
    DANA_DC,
    DANA_GAP,
    GAP,
    MULTI,
    NAG,
    STALENESS,
)
from experiments.markdown import spread, table_head, table_row

RESULTS = Path(__file__).parent / "results"
STORED = ("cpu", "cpu-long")
TOLERATED = 0.005  # of accuracy: what counts as no difference
OWN, ALONE = "its own best rate", "one worker's best rate"
# What the papers claim of the first over the second.
PAIRS = (
    (MULTI, NAG),
    (DANA, MULTI),
    (DANA, NAG),
    (DANA_DC, DANA),
    (GAP, NAG),
    (GAP, STALENESS),
    (DANA_GAP, DANA),
    (DANA_GAP, GAP),
    (DANA_GAP, NAG),
)


def rates_of(summary: Mapping[str, Any], method: str) -> list[float]:
    """Returns the learning rates that a method tries, in their order."""
    preset = summary["preset"]
    return sorted([*preset["learning_rates"], *preset["more_rates"].get(method, [])])


def best_rate(found: Mapping[str, Any]) -> int:
    """Returns the index of the learning rate with the best mean accuracy."""
    return int(np.argmax(np.mean(found["accuracy"], axis=1)))


def gaps(summary: Mapping[str, Any], methods: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the gaps along a run by method, ``None`` for one that diverged.

    All have one rate: of those that all try, the one that is best for NAG-ASGD.
    """
    tried = rates_of(summary, NAG)
    accuracy = dict(zip(tried, np.mean(methods[NAG]["accuracy"], axis=1), strict=True))
    rate = max(summary["preset"]["learning_rates"], key=accuracy.__getitem__)
    return {
        name: found["gap"][rates_of(summary, name).index(rate)] for name, found in methods.items()
    }


class Group(NamedTuple):
    """All methods on one kind of machines with one number of workers, at one choice of rates.

    Attributes:
      machines: their kind.
      num_workers: their number.
      rates: ``OWN`` or ``ALONE``.
      accuracy: by method, ``[num_seeds]``.
      chosen: by method, the learning rate.
    """

    machines: str
    num_workers: int
    rates: str
    accuracy: Mapping[str, np.ndarray]
    chosen: Mapping[str, float]


def groups(summary: Mapping[str, Any]) -> Iterator[Group]:
    """Yields what the tables are made of."""
    alone = rates_of(summary, NAG)[best_rate(summary["alone"])]
    for rates in (ALONE, OWN):
        for machines, by_number in summary["settings"].items():
            for number, methods in by_number.items():
                chosen, accuracy = {}, {}
                for name, found in methods.items():
                    tried = rates_of(summary, name)
                    place = tried.index(alone) if rates == ALONE else best_rate(found)
                    chosen[name], accuracy[name] = tried[place], np.array(found["accuracy"][place])
                yield Group(machines, int(number), rates, accuracy, chosen)


def claims(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Judges what the papers say of pairs of methods.

    Differences in accuracy are by seed, as methods share starts, batches and times. The first is
    ``better`` if the mean difference exceeds ``TOLERATED`` and no seed says otherwise, ``worse``
    likewise, else there is ``no`` difference.
    """
    judged = []
    for group in groups(summary):
        for first, second in PAIRS:
            if not {first, second} <= set(group.accuracy):
                continue
            gain = group.accuracy[first] - group.accuracy[second]
            verdict = "no"
            if gain.mean() > TOLERATED and gain.min() > 0:
                verdict = "better"
            elif gain.mean() < -TOLERATED and gain.max() < 0:
                verdict = "worse"
            judged.append(
                {
                    "machines": group.machines,
                    "num_workers": group.num_workers,
                    "rates": group.rates,
                    "first": first,
                    "second": second,
                    "gain": gain.tolist(),
                    "verdict": verdict,
                }
            )
    return judged


def accuracy_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns one line per choice of rates, kind of machines and method: accuracy over workers."""
    numbers = [str(number) for number in summary["preset"]["num_workers"]]
    heads = ["rate", "machines", "method", *numbers]
    lines = table_head(heads)
    found = list(groups(summary))
    for kind in (ALONE, OWN):
        for machines in summary["settings"]:
            row = [g for g in found if (g.rates, g.machines) == (kind, machines)]
            for method in summary["preset"]["methods"]:
                cells = []
                for group in row:
                    values, chosen = group.accuracy[method], group.chosen[method]
                    tried = rates_of(summary, method)
                    edge = "*" if chosen in (tried[0], tried[-1]) else ""
                    rate = f" ({format_rate(chosen)}{edge})" if kind == OWN else ""
                    cells.append(f"{spread(100 * values, 1)}{rate}")
                lines.append(table_row([kind, machines, method, *cells]))
    return lines


def claim_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns one line per pair and choice of rates and machines: differences in points."""
    numbers = [str(number) for number in summary["preset"]["num_workers"]]
    heads = ["rate", "machines", "pair", *numbers]
    lines = table_head(heads)
    marks = {"better": " +", "worse": " -", "no": ""}
    rows: dict[tuple[str, ...], list[str]] = {}
    for row in claims(summary):
        name = (row["rates"], row["machines"], f"{row['first']} over {row['second']}")
        gain = np.array(row["gain"])
        cell = f"{spread(100 * gain, 1, '+')}{marks[row['verdict']]}"
        rows.setdefault(name, []).append(cell)
    return lines + [table_row([*name, *cells]) for name, cells in rows.items()]


def gap_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns one line per kind of machines and method: mean gaps, in thousandths."""
    numbers = [str(number) for number in summary["preset"]["num_workers"]]
    heads = ["machines", "method", *numbers]
    lines = table_head(heads)
    for machines, by_number in summary["settings"].items():
        found = [gaps(summary, by_number[number]) for number in numbers]
        for method in summary["preset"]["methods"]:
            cells = [
                "diverged" if gap[method] is None else f"{1000 * early_gap(gap[method]):.2f}"
                for gap in found
            ]
            lines.append(table_row([machines, method, *cells]))
    return lines


def early_gap(gap: Sequence[float]) -> float:
    """Returns the mean over the second quarter of a run: warmed up, and not yet decayed."""
    quarter = len(gap) // 4
    return float(np.mean(gap[quarter : 2 * quarter]))


def tables(summary: Mapping[str, Any]) -> str:
    """Returns the three tables."""
    parts = (accuracy_lines(summary), claim_lines(summary), gap_lines(summary))
    return "\n\n".join("\n".join(lines) for lines in parts)


def stored(name: str) -> dict[str, Any]:
    """Returns stored results of a preset."""
    return json.loads((RESULTS / f"{name}.json").read_text())


if __name__ == "__main__":
    for preset in sys.argv[1:] or STORED:
        print(f"{tables(stored(preset))}\n")
