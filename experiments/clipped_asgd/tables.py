"""The tables of the README, from stored results: ``python -m experiments.clipped_asgd.tables``."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from async_optax.report import format_rate
from experiments.clipped_asgd.config import CLIPPED, METHODS, PUBLISHED, RINGMASTER
from experiments.markdown import table_head, table_row

RESULTS = Path(__file__).parent / "results"
STORED = ("cpu", "cpu-real")
NEAR = 1.5  # times the best time of all methods: what counts as a good learning rate

_HEADS = ("task", "clipped over", "published", "chosen on 3 seeds", "fresh seeds", "by seed")
_HEADS += ("sooner",)
_RESULTS = ("task", "method", "rate", "threshold", "time", "fresh seeds", "good rates", "lost")


def mean_time(times: Sequence[float | None], horizon: float) -> float:
    """Returns the mean, where a run that never reached the target counts with its length."""
    return float(np.mean([horizon if time is None else time for time in times]))


def claims(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Judges how many times sooner the clipped method reaches the target than each other.

    ``chosen`` is the ratio of the least mean times over all numbers tried, which is the paper's
    measure and favours whoever tries more numbers; ``fresh`` that of the mean times of the chosen
    numbers on fresh seeds, and ``by_seed`` seed by seed, as seeds share batches. It ``holds`` if
    the clipped method is sooner on each fresh seed. A ratio is ``bounded`` where a run of the
    other never reached the target, and counts with its length.
    """
    judged = []
    for setting, found in summary["settings"].items():
        ours = found["methods"][CLIPPED]
        published = PUBLISHED.get((found["task"], found["slowdown"]), {})
        for method in METHODS[:-1]:
            other = found["methods"][method]
            if ours["best"] is None or other["best"] is None:
                continue
            chosen = [mean_time(who["best"]["times"], found["horizon"]) for who in (other, ours)]
            fresh = np.array(
                [
                    [found["horizon"] if time is None else time for time in who["fresh_times"]]
                    for who in (other, ours)
                ]
            )
            by_seed = fresh[0] / fresh[1]
            judged.append(
                {
                    "setting": setting,
                    "over": method,
                    "published": published.get(method),
                    "chosen": chosen[0] / chosen[1],
                    "fresh": float(fresh[0].mean() / fresh[1].mean()),
                    "by_seed": by_seed.tolist(),
                    "bounded": None in other["fresh_times"],
                    "holds": bool((by_seed > 1).all()),
                }
            )
    return judged


def claim_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns one line per setting and other method: speed-ups beside the published ones."""
    lines = table_head(_HEADS)
    for row in claims(summary):
        low, high = min(row["by_seed"]), max(row["by_seed"])
        sooner = "yes" if row["holds"] else "never" if high < 1 else "not on all seeds"
        cells = [row["setting"], row["over"]]
        cells.append("-" if row["published"] is None else f"{row['published']:.1f}")
        cells += [f"{row['chosen']:.2f}", f"{'> ' * row['bounded']}{row['fresh']:.2f}"]
        lines.append(table_row([*cells, f"{low:.2f} to {high:.2f}", sooner]))
    return lines


def good_rates(found: Mapping[str, Any], name: str) -> int:
    """Returns how many rates of a method, at its best threshold, are good on the first seed.

    That is, at most ``NEAR`` times as slow as the best of all methods at its best numbers.
    """

    def times(method: Mapping[str, Any]) -> list[float]:
        extra = (method["best"] or method["points"][0])["extra"]
        of_threshold = [p["times"][0] for p in method["points"] if p["extra"] == extra]
        return [time for time in of_threshold if time is not None]

    fastest = min(min(times(method), default=np.inf) for method in found["methods"].values())
    return sum(time <= NEAR * fastest for time in times(found["methods"][name]))


def result_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns one line per setting and method at its best numbers."""
    lines = table_head(_RESULTS)
    for setting, found in summary["settings"].items():
        task = summary["preset"]["tasks"][found["task"]]
        rates, thresholds = task["learning_rates"], task["thresholds"]
        for name, method in found["methods"].items():
            best, lost = method["best"], sum(p["diverged"] for p in method["points"])
            if best is None:
                lines.append(table_row([setting, name, "-", "-", "never", "-", "0", str(lost)]))
                continue
            edge = "*" if best["learning_rate"] in (rates[0], rates[-1]) else ""
            cells = [setting, name, f"{format_rate(best['learning_rate'])}{edge}"]
            edge = (
                "*"
                if name == CLIPPED and best["extra"] in (min(thresholds), max(thresholds))
                else ""
            )
            cells.append(f"{best['extra']:g}{edge}" if name in (CLIPPED, RINGMASTER) else "-")
            cells.append(f"{mean_time(best['times'], found['horizon']):.0f}")
            fresh = ["never" if time is None else f"{time:.0f}" for time in method["fresh_times"]]
            cells += [", ".join(fresh), str(good_rates(found, name)), str(lost)]
            lines.append(table_row(cells))
    return lines


def tables(summary: Mapping[str, Any]) -> str:
    """Returns both tables."""
    return "\n".join([*claim_lines(summary), "", *result_lines(summary)])


def stored(name: str) -> dict[str, Any]:
    """Returns stored results of a preset."""
    return json.loads((RESULTS / f"{name}.json").read_text())


if __name__ == "__main__":
    for preset in sys.argv[1:] or [name for name in STORED if (RESULTS / f"{name}.json").exists()]:
        print(f"{preset}\n\n{tables(stored(preset))}\n")
