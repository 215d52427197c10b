"""What the runs say: ends, times to targets, ranges of good learning rates, and the verdicts.

Everything is chosen on the tuning seeds and judged on the fresh ones.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.heavy_tailed.curves import best_rate, ending, mean_time, times_to
from experiments.heavy_tailed.grids import num_near

OURS = "ours, adaptive clip, Adam"  # what is taken apart in the ablation

RIVAL = "asynchronous Adam"  # nearest to ours, and our addition: verdicts without it as well


def ends(measured: Mapping[str, Any]) -> np.ndarray:
    """Returns where a method ends on the tuning seeds, ``[num_rates, num_seeds]``."""
    return ending(np.array(measured["accuracy"]))


def at_best(measured: Mapping[str, Any]) -> np.ndarray:
    """Returns where a method ends at its best learning rate, by fresh seed."""
    return ending(np.array(measured["fresh"][str(best_rate(measured))]))


def width(measured: Mapping[str, Any]) -> int:
    """Returns how many learning rates, a factor of 2 apart, end within two points of the best."""
    return num_near(ends(measured).mean(1).tolist())


def is_open(measured: Mapping[str, Any]) -> bool:
    """Whether the best learning rate is at an end of the grid: a wider one may do better."""
    return best_rate(measured) in (0, len(measured["rates"]) - 1)


def arrivals(
    task: Mapping[str, Any], name: str, number: int, *, fastest: bool = True
) -> np.ndarray:
    """Returns the simulated times at which a method first reaches a target, by fresh seed.

    Args:
      task: what was measured on a task.
      name: of the method.
      number: of the target.
      fastest: at the learning rate that is fastest to this target on the tuning seeds; else at the
        one that ends best there, as always for variants and ablations.
    """
    measured = task["methods"][name]
    choice = fastest and measured["role"] in ("baseline", "ours")
    rate = measured["fastest"][number] if choice else best_rate(measured)
    target = task["setting"]["targets"][number]
    return times_to(measured["fresh"][str(rate)], task["times"], target)


def chosen(task: Mapping[str, Any]) -> str:
    """Returns which of ours ends best on the tuning seeds: clip and server are tuned as well."""
    measured = task["methods"]
    return max(_named(task, "ours"), key=lambda name: ends(measured[name]).mean(1).max())


def claims(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Judges the claims on each task.

    Returns:
      By task: ``targets``, for each what :func:`_target` returns, and ``range``: the widths of
      ours, of the baseline that ends best on the tuning seeds, and of the widest baseline within 5
      points of that one, whether ours is at least as wide as the first (``holds``) and the second
      (``holds_over_widest``).
    """
    return {
        name: {
            "targets": [_target(task, i) for i in range(len(task["setting"]["targets"]))],
            "range": _range(task),
        }
        for name, task in summary["tasks"].items()
        if _named(task, "ours") and _named(task, "baseline")
    }


def _named(task: Mapping[str, Any], role: str) -> list[str]:
    return [name for name, found in task["methods"].items() if found["role"] == role]


def _target(task: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Who is first at a target.

    Returns:
      ``ours`` (:func:`chosen`), and the first on the fresh seeds of each: ``baseline``, ``other``
      (but for :data:`RIVAL`) and ``synchronous``, all with ``name``, mean ``time``, and the number
      of fresh seeds that ``reached`` it. For ours the ``lead`` over the first baseline, a mean over
      seeds, its standard ``error``, and whether it is first (``holds``), and before the other
      (``holds_over_others``). ``holds_at_best``: is it first, with all methods at the learning
      rates that end best?
    """
    baselines = _named(task, "baseline")
    synchronous = [name for name in baselines if task["methods"][name]["protocol"] == "synchronous"]
    found: dict[str, Any] = {"target": task["setting"]["targets"][number]}
    others = [name for name in baselines if name != RIVAL]
    kinds = (("baseline", baselines), ("other", others), ("synchronous", synchronous))
    for kind, names in kinds:
        first = _first(task, names, number)
        found[kind] = None if first is None else _entry(task, first, number)
    found["ours"] = _entry(task, chosen(task), number) | _lead(task, baselines, number)
    found["ours"]["holds_over_others"] = _lead(task, others, number)["holds"]
    found["holds_at_best"] = _lead(task, baselines, number, fastest=False)["holds"]
    return found


def _mean(task: Mapping[str, Any], name: str, number: int, fastest: bool = True) -> float:
    return float(mean_time(arrivals(task, name, number, fastest=fastest), task["times"][-1]))


def _first(
    task: Mapping[str, Any], names: Sequence[str], number: int, fastest: bool = True
) -> str | None:
    """Those that never get there are left out."""
    there = [n for n in names if np.isfinite(arrivals(task, n, number, fastest=fastest)).any()]
    return min(there, key=lambda name: _mean(task, name, number, fastest), default=None)


def _entry(task: Mapping[str, Any], name: str, number: int) -> dict[str, Any]:
    reached = int(np.isfinite(arrivals(task, name, number)).sum())
    return {"name": name, "time": round(_mean(task, name, number), 2), "reached": reached}


def _lead(
    task: Mapping[str, Any], baselines: Sequence[str], number: int, fastest: bool = True
) -> dict[str, Any]:
    horizon = task["times"][-1]
    own = arrivals(task, chosen(task), number, fastest=fastest)
    first = _first(task, baselines, number, fastest)
    theirs = np.inf if first is None else arrivals(task, first, number, fastest=fastest)
    gain = np.minimum(theirs, horizon) - np.minimum(own, horizon)
    error = float(gain.std(ddof=1) / len(gain) ** 0.5) if len(gain) > 1 else 0.0
    return {
        "lead": round(float(gain.mean()), 2),
        "error": round(error, 2),
        "holds": bool(np.isfinite(own).any() and gain.mean() > 0),
    }


def _range(task: Mapping[str, Any]) -> dict[str, Any]:
    measured = task["methods"]
    means = {name: float(ends(found).mean(1).max()) for name, found in measured.items()}
    baselines = _named(task, "baseline")
    best = max(baselines, key=lambda name: means[name])
    rivals = [name for name in baselines if means[name] >= means[best] - 0.05]
    widest = max(rivals, key=lambda name: width(measured[name]))
    own = width(measured[chosen(task)])
    return {
        "name": chosen(task),
        "ours": own,
        "baseline": best,
        "baseline_width": width(measured[best]),
        "widest": widest,
        "widest_width": width(measured[widest]),
        "holds": own >= width(measured[best]),
        "holds_over_widest": own >= width(measured[widest]),
    }
