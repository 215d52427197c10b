"""The tables of the README, from stored results: ``python -m experiments.heavy_tailed.tables``."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from async_optax.report import format_rate
from experiments.heavy_tailed.curves import best_rate, mean_time
from experiments.heavy_tailed.standings import (
    OURS,
    arrivals,
    at_best,
    claims,
    is_open,
    width,
)
from experiments.markdown import deviation, table_head, table_row

__all__ = ["RESULTS", "claims", "tables"]

RESULTS = Path(__file__).parent / "results"

_RANGES = ("task", "ours", "its range", "best baseline", "its range", "widest baseline")
_CLAIMS = ("task", "target", "ours", "its time", "first baseline", "its time", "lead", "ours first")
_OTHERS = ("at the best ends", "first other", "its time", "ours before it")
_ABLATION = ("task", "method", "accuracy", "difference", "learning rates")
_STALENESS = ("task", "protocol", "commits", "gradients", "mean", "90 %", "largest")
_TAILS = ("task", "time", "norms", "index", "coordinates", "index", "theta")
_FINETUNING = ("step", "training loss", "accuracy", "validation loss", "seconds")


def claim_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns a line for each task and target: who is there first."""
    lines = table_head((*_CLAIMS, *_OTHERS))
    num_seeds = len(summary["fresh"])
    for task, found in summary["claims"].items():
        for row in found["targets"]:
            ours, baseline, other = row["ours"], row["baseline"], row["other"]
            name = _name(ours).removeprefix("ours, ")
            cells = [task, f"{row['target']:g}", name, _entry(ours, num_seeds)]
            cells += [_name(baseline), _entry(baseline, num_seeds)]
            cells += [f"{ours['lead']:+.0f} ± {ours['error']:.0f}"]
            cells += [_yes(ours["holds"]), _yes(row["holds_at_best"])]
            cells += [_name(other), _entry(other, num_seeds), _yes(ours["holds_over_others"])]
            lines.append(table_row(cells))
    return lines


def range_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns a line for each task: over how many learning rates the methods are good."""
    lines = table_head((*_RANGES, "its range", "as wide"))
    for task, found in summary["claims"].items():
        row = found["range"]
        cells = [task, _name(row).removeprefix("ours, "), row["ours"]]
        cells += [row["baseline"], row["baseline_width"], row["widest"]]
        cells += [row["widest_width"], f"{_yes(row['holds'])} / {_yes(row['holds_over_widest'])}"]
        lines.append(table_row(cells))
    return lines


def result_lines(summary: Mapping[str, Any], name: str) -> list[str]:
    """Returns a line for each method on a task: the best of its grid, on the fresh seeds."""
    task = summary["tasks"][name]
    targets = task["setting"]["targets"]
    columns = ["method", "protocol", "choice", "rate", "accuracy", "learning rates"]
    lines = table_head([*columns, *(f"to {target:g}" for target in targets)])
    for method, measured in task["methods"].items():
        cells: list[Any] = [method, measured["protocol"], choice_label(measured)]
        rate = measured["rates"][best_rate(measured)]
        cells.append(f"{format_rate(rate)}{'*' if is_open(measured) else ''}")
        cells += [_mean(at_best(measured)), width(measured)]
        for number in range(len(targets)):
            reached = arrivals(task, method, number)
            entry = {
                "time": float(mean_time(reached, task["times"][-1])),
                "reached": int(np.isfinite(reached).sum()),
            }
            cells.append(_entry(entry, len(reached)))
        lines.append(table_row(cells))
    return lines


def ablation_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns a line for each variant of ours: its end against the whole method's, by seed."""
    lines = table_head(_ABLATION)
    for name, task in summary["tasks"].items():
        for method, measured in task["methods"].items():
            if measured["role"] == "baseline" or OURS not in task["methods"]:
                continue
            gain = 100 * (at_best(measured) - at_best(task["methods"][OURS]))
            cells = [name, method, _mean(at_best(measured))]
            cells.append("-" if method == OURS else _gain(gain))
            lines.append(table_row([*cells, width(measured)]))
    return lines


def threshold_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns a line for each method with something to choose: where the first seed ended."""
    lines = table_head(("task", "method", "choice", "best end", "rate", "within two points"))
    for name, task in summary["tasks"].items():
        for method, measured in task["methods"].items():
            if len(measured["tuning"]) < 2:
                continue
            for row in measured["tuning"]:
                rates = {float(rate): end for rate, end in row["ends"].items()}
                best = max(rates, key=lambda rate: rates[rate])
                near = sum(end >= rates[best] - 0.02 for end in rates.values())
                label = choice_label(measured, row["choice"])
                cells = [name, method, label, f"{rates[best]:.3f}", format_rate(best)]
                lines.append(table_row([*cells, f"{near} of {len(rates)}"]))
    return lines


def staleness_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns a line for each task and protocol."""
    lines = table_head((*_STALENESS, "means over fifths of the time"))
    for name, task in summary["tasks"].items():
        for protocol, row in task["staleness"].items():
            cells = [name, protocol, row["commits"], row["gradients"], f"{row['mean']:.1f}"]
            cells += [f"{row['90 %']:.0f}", row["largest"]]
            cells.append(", ".join(f"{value:.1f}" for value in row["along"]))
            lines.append(table_row(cells))
    return lines


def tail_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns a line for each task and moment."""
    lines = table_head(_TAILS)
    for name, task in summary["tasks"].items():
        for row in task["tails"]:
            cells = [name, f"{row['time']:g}"]
            for kind in ("norms", "coordinates"):
                cells += [row[kind]["verdict"], _index(row[kind])]
            theta = row["coordinates"]["theta"]
            lines.append(table_row([*cells, "-" if theta is None else f"{theta:.2f}"]))
    return lines


def finetuning_lines(results: Mapping[str, Any]) -> list[str]:
    """Returns a line for each evaluation."""
    lines = table_head(_FINETUNING)
    for row in results["evaluations"]:
        cells = [f"{row['step']:.0f}", f"{row['train_loss']:.3f}", f"{row['accuracy']:.4f}"]
        lines.append(table_row([*cells, f"{row['test_loss']:.3f}", f"{row['seconds']:.0f}"]))
    return lines


def tables(summary: Mapping[str, Any]) -> str:
    """Returns all tables of a preset."""
    parts = [claim_lines(summary), range_lines(summary)]
    parts += [[f"{name}:", "", *result_lines(summary, name)] for name in summary["tasks"]]
    parts += [ablation_lines(summary), threshold_lines(summary)]
    parts += [staleness_lines(summary), tail_lines(summary)]
    return "\n\n".join("\n".join(part) for part in parts)


def choice_label(measured: Mapping[str, Any], number: int | None = None) -> str:
    """Returns what a method was run with, but for what is the same for all of its choices."""
    choices = measured["choices"]
    choice = choices[measured["chosen"] if number is None else number]
    varied = [name for name in choice if len({other[name] for other in choices}) > 1]
    return ", ".join(f"{name} {choice[name]:g}" for name in varied) or "-"


def _index(row: Mapping[str, Any]) -> str:
    if row["index"] is None:
        return "-"
    interval = " to ".join("?" if x is None else f"{x:.1f}" for x in row["interval"])
    return f"{row['index']:.1f} ({interval})" if interval else f"{row['index']:.1f}"


def _mean(values: np.ndarray) -> str:
    spread = f" ± {deviation(values):.3f}" if len(values) > 1 else ""
    return f"{values.mean():.3f}{spread}"


def _gain(gain: np.ndarray) -> str:
    return f"{gain.mean():+.1f} ± {deviation(gain) / len(gain) ** 0.5:.1f}"


def _name(entry: Mapping[str, Any] | None) -> str:
    return "none" if entry is None else entry["name"]


def _entry(entry: Mapping[str, Any] | None, num_seeds: int) -> str:
    """A mean time, and where some seeds never get there how many do."""
    if entry is None or not entry["reached"]:
        return "never"
    part = "" if entry["reached"] == num_seeds else f" ({entry['reached']} of {num_seeds})"
    return f"{entry['time']:.0f}{part}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def main() -> None:
    """Prints the tables of all results that are there."""
    for name in ("cpu", "cpu-real"):
        if (RESULTS / f"{name}.json").exists():
            print(tables(json.loads((RESULTS / f"{name}.json").read_text())), end="\n\n")
    if (RESULTS / "finetune-sst2.json").exists():
        results = json.loads((RESULTS / "finetune-sst2.json").read_text())
        print("\n".join(finetuning_lines(results)))


if __name__ == "__main__":
    main()
