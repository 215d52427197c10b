"""The tables of the README, from stored results: ``python -m experiments.heavy_tailed.tables``."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from async_optax.report import format_rate
from experiments.heavy_tailed.measure import best_rate
from experiments.heavy_tailed.standings import OURS, at_best, claims, is_open, time_to, width

__all__ = ["RESULTS", "claims", "tables"]

RESULTS = Path(__file__).parent / "results"

_RANGES = ("task", "ours", "best baseline", "its range", "widest baseline", "its range", "holds")
_CLAIMS = ("task", "target", "ours", "first baseline", "its time", "first synchronous", "its time")
_ABLATION = ("task", "method", "accuracy", "difference", "learning rates")
_STALENESS = ("task", "protocol", "commits", "gradients", "mean", "90 %", "largest")
_TAILS = ("task", "time", "norms", "index", "coordinates", "index", "theta")
_FINETUNING = ("step", "training loss", "accuracy", "validation loss", "seconds")


def claim_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns a line for each task and target: who is there first."""
    lines = _header((*_CLAIMS, "holds", "at the best ends"))
    for task, found in summary["claims"].items():
        for row in found["targets"]:
            cells = [task, f"{row['target']:g}", _time(row["ours"])]
            for kind in ("baseline", "synchronous"):
                cells += [row[kind]["name"] or "none", _time(row[kind]["time"])]
            cells += [_yes(row["holds"]), _yes(row["holds_at_best"])]
            lines.append(_markdown(cells))
    return lines


def range_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns a line for each task: over how many learning rates the methods are good."""
    lines = _header(_RANGES)
    for task, found in summary["claims"].items():
        row = found["range"]
        cells = [task, row["ours"], row["baseline"], row["baseline_width"], row["widest"]]
        cells += [row["widest_width"], f"{_yes(row['holds'])} / {_yes(row['holds_over_widest'])}"]
        lines.append(_markdown(cells))
    return lines


def result_lines(summary: Mapping[str, Any], name: str) -> list[str]:
    """Returns a line for each method on a task: the best of its grid."""
    task = summary["tasks"][name]
    targets = task["setting"]["targets"]
    columns = ["method", "protocol", "choice", "rate", "accuracy", "learning rates"]
    lines = _header([*columns, *(f"to {target:g}" for target in targets)])
    for method, measured in task["methods"].items():
        cells: list[Any] = [method, measured["protocol"], choice_label(measured)]
        rate = measured["rates"][best_rate(measured)]
        cells.append(f"{format_rate(rate)}{'*' if is_open(measured) else ''}")
        cells += [_mean(at_best(measured)), width(measured)]
        cells += [_time(time_to(task, method, target)) for target in targets]
        lines.append(_markdown(cells))
    return lines


def ablation_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns a line for each variant of ours: its end against the whole method's, by seed."""
    lines = _header(_ABLATION)
    for name, task in summary["tasks"].items():
        for method, measured in task["methods"].items():
            if measured["role"] == "baseline" or OURS not in task["methods"]:
                continue
            gain = 100 * (at_best(measured) - at_best(task["methods"][OURS]))
            cells = [name, method, _mean(at_best(measured))]
            cells.append("-" if method == OURS else f"{gain.mean():+.1f} ± {_deviation(gain):.1f}")
            lines.append(_markdown([*cells, width(measured)]))
    return lines


def threshold_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns a line for each method with something to choose: where the first seed ended."""
    lines = _header(("task", "method", "choice", "best end", "rate", "within two points"))
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
                lines.append(_markdown([*cells, f"{near} of {len(rates)}"]))
    return lines


def staleness_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns a line for each task and protocol."""
    lines = _header((*_STALENESS, "means over fifths of the time"))
    for name, task in summary["tasks"].items():
        for protocol, row in task["staleness"].items():
            cells = [name, protocol, row["commits"], row["gradients"], f"{row['mean']:.1f}"]
            cells += [f"{row['90 %']:.0f}", row["largest"]]
            cells.append(", ".join(f"{value:.1f}" for value in row["along"]))
            lines.append(_markdown(cells))
    return lines


def tail_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns a line for each task and moment."""
    lines = _header(_TAILS)
    for name, task in summary["tasks"].items():
        for row in task["tails"]:
            cells = [name, f"{row['time']:g}"]
            for kind in ("norms", "coordinates"):
                cells += [row[kind]["verdict"], _index(row[kind])]
            theta = row["coordinates"]["theta"]
            lines.append(_markdown([*cells, "-" if theta is None else f"{theta:.2f}"]))
    return lines


def finetuning_lines(results: Mapping[str, Any]) -> list[str]:
    """Returns a line for each evaluation."""
    lines = _header(_FINETUNING)
    for row in results["evaluations"]:
        cells = [f"{row['step']:.0f}", f"{row['train_loss']:.3f}", f"{row['accuracy']:.4f}"]
        lines.append(_markdown([*cells, f"{row['test_loss']:.3f}", f"{row['seconds']:.0f}"]))
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
    spread = f" ± {_deviation(values):.3f}" if len(values) > 1 else ""
    return f"{values.mean():.3f}{spread}"


def _deviation(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _time(value: float | None) -> str:
    return "never" if value is None or not np.isfinite(value) else f"{value:.0f}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _header(columns: Sequence[str]) -> list[str]:
    return [_markdown(columns), _markdown(["---"] * len(columns))]


def _markdown(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


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
