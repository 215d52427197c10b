"""The tables of the README: ``python -m experiments.optimizers_under_delay.tables``."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from async_optax.report import format_rate
from experiments.markdown import spread, table_head, table_row
from experiments.optimizers_under_delay.config import (
    ADAM,
    CLIPPING,
    COMPENSATION,
    MUON,
    NONE,
)

RESULTS = Path(__file__).parent / "results"
STORED = ("cpu",)
TOLERATED = 0.01  # nats: what counts as no difference
FRESH = "uniform 0"


def losses(summary: Mapping[str, Any], optimizer: str, delay: str, remedy: str = NONE) -> Any:
    """Returns final losses on fresh seeds, ``[num_seeds]``; ``None`` if it was not run."""
    row = find(summary, optimizer, delay, remedy)
    return None if row is None else np.array(row["losses"])


def find(
    summary: Mapping[str, Any], optimizer: str, delay: str, remedy: str = NONE
) -> Mapping[str, Any] | None:
    """Returns a row of the results, or ``None``."""
    wanted = (optimizer, delay, remedy)
    for row in summary["rows"]:
        if (row["optimizer"], row["delay"], row["remedy"]) == wanted:
            return row
    return None


def delay_names(summary: Mapping[str, Any]) -> list[str]:
    """Returns the names of the delays at which optimizers are compared."""
    return list(dict.fromkeys(row["delay"] for row in summary["rows"] if row["remedy"] == NONE))


def cost(summary: Mapping[str, Any], optimizer: str, delay: str) -> np.ndarray:
    """Returns what a delay costs: the final loss less that without delay, by seed, in nats."""
    return losses(summary, optimizer, delay) - losses(summary, optimizer, FRESH)


def loss_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns one line per optimizer: final losses over delays, and the learning rates."""
    delays = delay_names(summary)
    lines = table_head(["optimizer", *delays])
    for optimizer in summary["preset"]["optimizers"]:
        cells = []
        for delay in delays:
            row = find(summary, optimizer, delay)
            edge = "*" if row["at_edge"] else ""
            rate = f"{format_rate(row['learning_rate'])}{edge}"
            cells.append(f"{spread(row['losses'], 3)} ({rate})")
        lines.append(table_row([optimizer, *cells]))
    return lines


def cost_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns one line per optimizer: what delays cost."""
    delays = [delay for delay in delay_names(summary) if delay != FRESH]
    lines = table_head(["optimizer", *delays])
    for optimizer in summary["preset"]["optimizers"]:
        cells = [spread(cost(summary, optimizer, delay), 3) for delay in delays]
        lines.append(table_row([optimizer, *cells]))
    return lines


def pipeline_ratios(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns how many times more a uniform delay costs than stages late by at most as much.

    ``same_mean``: the same for the uniform delay that is the mean over the stages, if it was run.
    """
    rows, delays = [], delay_names(summary)
    for optimizer in summary["preset"]["optimizers"]:
        for delay in delays:
            if not delay.startswith("stages"):
                continue
            most = int(delay.split()[1].split("..")[0])
            by_stage = cost(summary, optimizer, delay).mean()
            ratios = {}
            for kind, uniform in (("same_most", most), ("same_mean", most // 2)):
                name = f"uniform {uniform}"
                whole = cost(summary, optimizer, name).mean() if name in delays else None
                ratios[kind] = None if whole is None else float(whole / by_stage)
            rows.append({"optimizer": optimizer, "most": most, **ratios})
    return rows


def pipeline_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns one line per optimizer: :func:`pipeline_ratios`."""
    rows = pipeline_ratios(summary)
    all_most = sorted({row["most"] for row in rows})
    heads = ["optimizer"]
    for most in all_most:
        heads += [f"uniform {most} / stages {most}..0", f"uniform {most // 2} / stages {most}..0"]
    lines = table_head(heads)
    for optimizer in summary["preset"]["optimizers"]:
        cells = []
        for row in rows:
            if row["optimizer"] == optimizer:
                ratios = (row["same_most"], row["same_mean"])
                cells += ["-" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
        lines.append(table_row([optimizer, *cells]))
    return lines


def robustness(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns by delay how many times more it costs Adam than Muon, in all and by seed."""
    rows = []
    for delay in delay_names(summary):
        if delay == FRESH or not {ADAM, MUON} <= set(summary["preset"]["optimizers"]):
            continue
        adam, muon = (cost(summary, optimizer, delay) for optimizer in (ADAM, MUON))
        rows.append(
            {
                "delay": delay,
                "ratio": float(adam.mean() / muon.mean()),
                "by_seed": (adam / muon).tolist(),
            }
        )
    return rows


def robustness_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns one line per delay: :func:`robustness`."""
    lines = table_head(["delay", "Adam's cost over Muon's", "by seed"])
    for row in robustness(summary):
        low, high = min(row["by_seed"]), max(row["by_seed"])
        lines.append(table_row([row["delay"], f"{row['ratio']:.2f}", f"{low:.2f} to {high:.2f}"]))
    return lines


def remedies(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Judges remedies: how much lower the final loss is than without, by seed.

    It is ``better`` if the mean gain exceeds ``TOLERATED`` and no seed says otherwise, ``worse``
    likewise, else there is ``no`` difference. ``healed`` is the share of the delay's cost.
    """
    rows = []
    for row in summary["rows"]:
        if row["remedy"] == NONE:
            continue
        without = losses(summary, row["optimizer"], row["delay"])
        gain = without - np.array(row["losses"])
        verdict = "no"
        if gain.mean() > TOLERATED and gain.min() > 0:
            verdict = "better"
        elif gain.mean() < -TOLERATED and gain.max() < 0:
            verdict = "worse"
        rows.append(
            {name: row[name] for name in ("optimizer", "delay", "remedy", "extra", "learning_rate")}
            | {
                "gain": gain.tolist(),
                "healed": float(gain.mean() / cost(summary, row["optimizer"], row["delay"]).mean()),
                "verdict": verdict,
            }
        )
    return rows


def remedy_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns one line per delay and optimizer: :func:`remedies`."""
    judged = remedies(summary)
    lines = table_head(["delay", "optimizer", *summary["preset"]["remedies"]])
    marks = {"better": " +", "worse": " -", "no": ""}
    for delay in dict.fromkeys(row["delay"] for row in judged):
        for optimizer in summary["preset"]["optimizers"]:
            cells = []
            for remedy in summary["preset"]["remedies"]:
                wanted = (delay, optimizer, remedy)
                (row,) = (r for r in judged if (r["delay"], r["optimizer"], r["remedy"]) == wanted)
                tuned = f" ({row['extra']:g})" if remedy in (COMPENSATION, CLIPPING) else ""
                cells.append(f"{spread(row['gain'], 3, '+')}{tuned}{marks[row['verdict']]}")
            lines.append(table_row([delay, optimizer, *cells]))
    return lines


def strengths(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns what each strength of the compensation gains on the seed of the search, in nats.

    All are at the learning rate that is best without a remedy.
    """
    rows = []
    for row in summary["rows"]:
        if row["remedy"] != COMPENSATION:
            continue
        without = find(summary, row["optimizer"], row["delay"])
        base = dict(map(tuple, without["by_rate"]))[without["learning_rate"]]
        gains = {f"{extra:g}": round(base - loss, 4) for extra, loss in row["by_extra"]}
        rows.append({"optimizer": row["optimizer"], "delay": row["delay"], "gains": gains})
    return rows


def strength_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns one line per delay and optimizer: :func:`strengths`."""
    rows = strengths(summary)
    names = list(rows[0]["gains"]) if rows else []
    lines = table_head(["delay", "optimizer", *(f"strength {name}" for name in names)])
    for row in rows:
        cells = [f"{row['gains'][name]:+.3f}" for name in names]
        lines.append(table_row([row["delay"], row["optimizer"], *cells]))
    return lines


TABLES = (
    loss_lines,
    cost_lines,
    robustness_lines,
    pipeline_lines,
    remedy_lines,
    strength_lines,
)


def tables(summary: Mapping[str, Any]) -> str:
    """Returns all tables in Markdown, in the order of the page."""
    return "\n\n".join("\n".join(table(summary)) for table in TABLES)


def stored(name: str) -> dict[str, Any]:
    """Returns stored results of a preset."""
    return json.loads((RESULTS / f"{name}.json").read_text())


if __name__ == "__main__":
    for preset in sys.argv[1:] or STORED:
        print(f"{tables(stored(preset))}\n")
