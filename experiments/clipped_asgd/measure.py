"""The runs: numbers chosen on some seeds, then judged on fresh ones."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

import async_optax as ao
from experiments.clipped_asgd import config
from experiments.clipped_asgd.config import METHODS, Preset, Task
from experiments.ledger import Ledger

Done = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Bench:
    """One task with half of the workers slower by a factor.

    Attributes:
      name: of the task.
      task: what is trained.
      slowdown: the factor.
      problem: of the task.
      lanes: of the simulation.
      ledger: where runs are stored.
    """

    name: str
    task: Task
    slowdown: int
    problem: ao.Problem
    lanes: int | str
    ledger: Ledger

    def run(self, method: str, extra: float, rate: float, seed: int) -> dict[str, Any]:
        """Returns ``time`` to the target (``None``: never), the curve, and if it ``diverged``."""
        decides = dataclasses.asdict(self.task)
        for grid in ("learning_rates", "thresholds", "bounds", "horizons"):
            decides.pop(grid)
        description = {
            "task": self.name,
            **decides,
            "horizon": self.task.horizons[self.slowdown],
            "slowdown": self.slowdown,
            "method": method,
            "extra": extra,
            "learning_rate": rate,
            "seed": seed,
        }
        return self.ledger.run(description, lambda: self._computed(method, extra, rate, seed))

    def _computed(self, method: str, extra: float, rate: float, seed: int) -> dict[str, Any]:
        started = time.perf_counter()
        horizon, count = self.task.horizons[self.slowdown], self.task.num_evaluations
        result = ao.simulate(
            self.problem,
            config.make_optimizer(self.name, method, rate, extra),
            _timeline(self.name, horizon, method, self.slowdown, seed),
            key=jax.random.key(seed),
            lanes=self.lanes,
            evaluate_at=np.linspace(0, horizon, count + 1).tolist(),
        )
        metric = self.task.metric
        values = [
            float(f"{value:.5g}") if np.isfinite(value) else None
            for value in result.evaluations[metric].tolist()
        ]
        return {
            "time": result.time_to(metric, self.task.target, below=metric == "perplexity"),
            "values": values + [None] * (count + 1 - len(values)),
            "diverged": result.diverged is not None,
            "seconds": round(time.perf_counter() - started, 2),
        }


@functools.lru_cache(maxsize=64)
def _timeline(name: str, horizon: float, method: str, slowdown: int, seed: int) -> ao.Timeline:
    return config.make_timeline(name, horizon, method, slowdown, seed)


def measure(preset: Preset, ledger: Ledger, done: Done, tasks: Sequence[str]) -> dict[str, Any]:
    """Runs tasks of a preset.

    Args:
      preset: how much is computed.
      ledger: where runs are stored as they end.
      done: told what has been measured.
      tasks: names of the preset's tasks.

    Returns:
      ``settings``: for each task and slowdown, by their name, what :func:`measure_bench` returns.
    """
    settings = {}
    for name in tasks:
        task = preset.tasks[name]
        problem = config.make_problem(name, task, config.load(task))
        for slowdown in preset.slowdowns:
            bench = Bench(name, task, slowdown, problem, preset.lanes, ledger)
            settings[f"{name}, D = {slowdown}"] = measure_bench(preset, bench, done)
    return {"settings": settings}


def measure_bench(preset: Preset, bench: Bench, done: Done) -> dict[str, Any]:
    """Runs all methods on a task with one slowdown.

    All numbers are tried on the first seed; those within ``preset.kept`` times the best time
    there, on the other seeds as well. The best has the least mean time among those that reach the
    target on all seeds; it is run on fresh seeds.

    Returns:
      ``task``, ``slowdown`` and for each method its ``points`` (numbers, ``times`` by seed,
      ``diverged``), the ``best`` one, its ``fresh_times`` and ``curves`` on fresh seeds, and
      ``evaluated``, the times of a curve's values.
    """
    methods = {}
    for method in METHODS:
        methods[method] = _measure_method(preset, bench, method)
        best = methods[method]["best"]
        done(f"{bench.name}, D = {bench.slowdown}, {method}: {best}")
    horizon = bench.task.horizons[bench.slowdown]
    return {
        "task": bench.name,
        "slowdown": bench.slowdown,
        "horizon": horizon,
        "evaluated": np.linspace(0, horizon, bench.task.num_evaluations + 1).tolist(),
        "methods": methods,
    }


def _measure_method(preset: Preset, bench: Bench, method: str) -> dict[str, Any]:
    first, *others = preset.seeds
    points = [
        {"extra": extra, "learning_rate": rate}
        for extra in config.extras(bench.name, bench.task, method)
        for rate in bench.task.learning_rates
    ]
    runs = [[_run(bench, method, point, first)] for point in points]
    times = [run["time"] for (run,) in runs if run["time"] is not None]
    for point, of_point in zip(points, runs, strict=True):
        reached = of_point[0]["time"]
        if reached is not None and reached <= preset.kept * min(times):
            of_point += [_run(bench, method, point, seed) for seed in others]
        point["times"] = [run["time"] for run in of_point]
        point["diverged"] = sum(run["diverged"] for run in of_point)
    best = best_point(points, len(preset.seeds))
    fresh = []
    if best is not None:
        fresh = [_run(bench, method, best, seed) for seed in preset.fresh_seeds]
    return {
        "points": points,
        "best": best,
        "fresh_times": [run["time"] for run in fresh],
        "curves": [run["values"] for run in fresh],
        "seconds": [run["seconds"] for run in fresh],
    }


def _run(bench: Bench, method: str, point: Mapping[str, Any], seed: int) -> dict[str, Any]:
    return bench.run(method, point["extra"], point["learning_rate"], seed)


def best_point(points: Sequence[Mapping[str, Any]], num_seeds: int) -> Mapping[str, Any] | None:
    """Returns the point with the least mean time of those that reach the target on all seeds."""
    whole = [p for p in points if len(p["times"]) == num_seeds and None not in p["times"]]
    return min(whole, key=lambda point: np.mean(point["times"]), default=None)
