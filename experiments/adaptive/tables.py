"""The tables of the README, from the summary: ``python -m experiments.adaptive.tables``."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.markdown import table_head, table_row

RESULTS = Path(__file__).parent / "results"

_HEADINGS = ("setting", "method", "rate", "accuracy", "time", "fastest", "near", "usable", "lost")


def line(row: Mapping[str, Any]) -> str:
    """Returns a row of a study as a line of Markdown."""
    cells = [row["setting"], row["method"]]
    cells += [f"{row['learning_rate']:.2g}{'*' if row['at_grid_edge'] else ''}"]
    cells += [f"{row['accuracy']:.3f} ± {row['spread']:.3f}"]
    cells += [_time(row["time"]), _time(row["fastest"])]
    cells += [str(row["near"]), str(row["usable"]), str(row["lost"])]
    return table_row(cells)


def carried_lines(carried: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns one line per method and setting it came from: accuracy in each other setting."""
    lines = []
    for source in dict.fromkeys(row["from"] for row in carried):
        rows = [row for row in carried if row["from"] == source]
        settings = list(dict.fromkeys(row["setting"] for row in rows))
        changes = [setting.split(", ")[-1] for setting in settings]
        lines += table_head(["tuned on", "method", "rate", *changes])
        for method in dict.fromkeys(row["method"] for row in rows):
            by_setting = {row["setting"]: row for row in rows if row["method"] == method}
            rate = f"{by_setting[settings[0]]['learning_rate']:.2g}"
            cells = [f"{by_setting[s]['accuracy']:.3f}" for s in settings]
            lines.append(table_row([source, method, rate, *cells]))
        lines.append("")
    return lines


def strength_lines(strengths: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns one line per setting and learning rate: fitted curvature at six times."""
    lines = []
    for row in strengths:
        values = [f"{value:.2g}" for value in row["curvatures"]]
        lines.append(table_row([row["setting"], f"{row['learning_rate']:g}", *values]))
    return lines


def tables(summary: Mapping[str, Any]) -> str:
    """Returns all tables as Markdown."""
    lines = []
    for name, study in summary["studies"].items():
        lines += [f"### {name}", "", *table_head(_HEADINGS)]
        lines += [line(row) for row in study["rows"]] + [""]
        if study["carried"]:
            lines += [f"### {name}, carried", "", *carried_lines(study["carried"])]
    sixths = [f"{k}/6" for k in range(1, 7)]
    lines += ["### strengths", "", *table_head(["setting", "rate", *sixths])]
    lines += strength_lines(summary["strengths"])
    return "\n".join(lines)


def _time(value: float | None) -> str:
    return "never" if value is None else f"{value:.0f}"


if __name__ == "__main__":
    print(tables(json.loads((RESULTS / "summary.json").read_text())))
