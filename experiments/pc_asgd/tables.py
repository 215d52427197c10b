"""The tables of the README, from the summary: ``python -m experiments.pc_asgd.tables``."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from async_optax.report import format_rate
from experiments.markdown import spread, table_head, table_row
from experiments.pc_asgd.config import (
    CLIP,
    OPPOSED,
    PRACTICAL,
    PREDICT,
    THETAS,
    theta_name,
)
from experiments.pc_asgd.measure import best_rate, ending

RESULTS = Path(__file__).parent / "results"
TOLERATED = 0.005  # of accuracy: what counts as no worse

_COLUMNS = ("setting", "method", "rate", "mean model", "agents", "worst agent", "distance", "lost")
_CLAIMS = ("setting", "better end", "its accuracy", "PC-ASGD", "theta", "difference", "PV", "holds")


def at_best(curves: Mapping[str, Any], metric: str = "accuracy") -> np.ndarray:
    """Returns what a method ends at with its best learning rate, ``[num_seeds]``."""
    return ending(np.array(curves[metric]))[best_rate(curves)]


def result_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns one line per setting and method."""
    rates = summary["preset"]["learning_rates"]
    lines = table_head(_COLUMNS)
    for setting, measured in summary["settings"].items():
        for method, curves in measured.items():
            best = best_rate(curves)
            edge = "*" if best in (0, len(rates) - 1) else ""
            accuracy = at_best(curves)
            cells = [setting, method, f"{format_rate(rates[best])}{edge}"]
            cells.append(spread(accuracy, 3))
            cells += [
                f"{at_best(curves, metric).mean():.3f}"
                for metric in ("mean_accuracy", "lowest_accuracy")
            ]
            cells.append(f"{at_best(curves, 'consensus_distance').mean():.2f}")
            cells.append(str(int(np.sum(curves["diverged"]))))
            lines.append(table_row(cells))
    return lines


def claims(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Judges in each setting whether PC-ASGD is no worse than the better of its ends.

    Differences are by seed, as methods share batches and starts, each method at its own best
    learning rate; theta is the best of the fixed ones.
    """
    judged = []
    for setting, measured in summary["settings"].items():
        end = max((PREDICT, CLIP), key=lambda name: at_best(measured[name]).mean())
        fixed = max(map(theta_name, THETAS), key=lambda name: at_best(measured[name]).mean())
        ours = {"fixed": fixed, "practical": PRACTICAL, "opposed": OPPOSED}
        gains = {
            kind: at_best(measured[name]) - at_best(measured[end]) for kind, name in ours.items()
        }
        judged.append(
            {
                "setting": setting,
                "end": end,
                "end_accuracy": float(at_best(measured[end]).mean()),
                "theta": float(fixed.split()[-1]),
                "accuracy": float(at_best(measured[fixed]).mean()),
                "gains": {kind: gain.tolist() for kind, gain in gains.items()},
                "holds": {kind: bool(gain.mean() >= -TOLERATED) for kind, gain in gains.items()},
            }
        )
    return judged


def claim_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns one line per setting: PC-ASGD over the better of its ends, in points."""
    lines = table_head(_CLAIMS)
    for row in claims(summary):
        fixed, practical = (np.array(row["gains"][kind]) for kind in ("fixed", "practical"))
        holds = " / ".join("yes" if row["holds"][kind] else "no" for kind in ("fixed", "practical"))
        cells = [row["setting"], row["end"], f"{row['end_accuracy']:.3f}"]
        cells += [f"{row['accuracy']:.3f}", f"{row['theta']:g}"]
        cells += [spread(100 * gains, 1, "+") for gains in (fixed, practical)]
        lines.append(table_row([*cells, holds]))
    return lines


def tables(summary: Mapping[str, Any]) -> str:
    """Returns both tables."""
    return "\n".join([*claim_lines(summary), "", *result_lines(summary)])


if __name__ == "__main__":
    print(tables(json.loads((RESULTS / "summary.json").read_text())))
