"""What the runs say: ends, times to targets, ranges of good learning rates, and the verdicts."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.heavy_tailed.grids import num_near
from experiments.heavy_tailed.measure import best_rate, ending

OURS = "ours, BiClip"  # the one that the claims are about, chosen before anything was run


def ends(measured: Mapping[str, Any]) -> np.ndarray:
    """Returns where a method ends, ``[num_rates, num_seeds]``."""
    return ending(np.array(measured["accuracy"]))


def at_best(measured: Mapping[str, Any]) -> np.ndarray:
    """Returns where a method ends at its best learning rate, ``[num_seeds]``."""
    return ends(measured)[best_rate(measured)]


def width(measured: Mapping[str, Any]) -> int:
    """Returns how many learning rates, a factor of 2 apart, end within two points of the best."""
    return num_near(ends(measured).mean(1).tolist())


def is_open(measured: Mapping[str, Any]) -> bool:
    """Whether the best learning rate is at an end of the grid: a wider one may do better."""
    return best_rate(measured) in (0, len(measured["rates"]) - 1)


def time_to(task: Mapping[str, Any], name: str, target: float, *, fastest: bool = True) -> float:
    """Returns the simulated time at which a method reaches a target, a mean over seeds.

    A seed's time is that of its first evaluation at the target or above; if one seed never gets
    there, it is infinite.

    Args:
      task: what was measured on a task.
      name: of the method.
      target: an accuracy.
      fastest: at the learning rate that is fastest to this target; else at the one that ends best.
    """
    measured = task["methods"][name]
    times = np.array(task["times"])
    reached = np.array(measured["accuracy"]) >= target
    first = np.where(reached.any(-1), times[reached.argmax(-1)], np.inf).mean(1)
    return float(first.min() if fastest else first[best_rate(measured)])


def claims(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Judges the claims on each task.

    Returns:
      By task: ``targets``, for each the time of ours, the first baseline and its time, the first
      synchronous one and its time, each at its fastest learning rate, whether ours is first
      (``holds``), and whether it is with all methods at the learning rates that end best
      (``holds_at_best``); and ``range``: the widths of ours, of the baseline that ends best, and
      of the widest baseline within 5 points of that one; and whether ours is at least as wide.
    """
    return {
        name: {
            "targets": [_target(task, target) for target in task["setting"]["targets"]],
            "range": _range(task),
        }
        for name, task in summary["tasks"].items()
        if OURS in task["methods"] and len(_baselines(task)) > 0
    }


def _baselines(task: Mapping[str, Any]) -> list[str]:
    return [name for name, found in task["methods"].items() if found["role"] == "baseline"]


def _target(task: Mapping[str, Any], target: float) -> dict[str, Any]:
    baselines = _baselines(task)
    synchronous = [name for name in baselines if task["methods"][name]["protocol"] == "synchronous"]
    found: dict[str, Any] = {"target": target, "ours": _finite(time_to(task, OURS, target))}
    for kind, names in (("baseline", baselines), ("synchronous", synchronous)):
        times = {name: time_to(task, name, target) for name in names}
        first = min(times, key=lambda name: times[name], default=None)
        reached = first is not None and np.isfinite(times[first])
        found[kind] = {
            "name": first if reached else None,
            "time": _finite(times[first]) if first is not None and reached else None,
        }
    own = time_to(task, OURS, target)
    others = [time_to(task, name, target) for name in baselines]
    found["holds"] = bool(np.isfinite(own) and own < min(others))
    own = time_to(task, OURS, target, fastest=False)
    others = [time_to(task, name, target, fastest=False) for name in baselines]
    found["holds_at_best"] = bool(np.isfinite(own) and own < min(others))
    return found


def _range(task: Mapping[str, Any]) -> dict[str, Any]:
    measured = task["methods"]
    means = {name: float(at_best(measured[name]).mean()) for name in _baselines(task)}
    best = max(means, key=lambda name: means[name])
    rivals = [name for name in means if means[name] >= means[best] - 0.05]
    widest = max(rivals, key=lambda name: width(measured[name]))
    own = width(measured[OURS])
    return {
        "ours": own,
        "baseline": best,
        "baseline_width": width(measured[best]),
        "widest": widest,
        "widest_width": width(measured[widest]),
        "holds": own >= width(measured[best]),
        "holds_over_widest": own >= width(measured[widest]),
    }


def _finite(value: float) -> float | None:
    return round(value, 2) if np.isfinite(value) else None
