"""The runs: every method tuned, then judged on fresh seeds at what was chosen."""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import async_optax as ao
from async_optax.engine import Problem
from experiments.heavy_tailed.config import RUNTIMES, Preset, TaskSetting, described
from experiments.heavy_tailed.curves import best_rate, ending, fastest_rate
from experiments.heavy_tailed.grids import around, tune
from experiments.heavy_tailed.methods import START, Method, methods, protocol_of
from experiments.ledger import Ledger


def measure(
    preset: Preset,
    setting: TaskSetting,
    problem: Problem,
    ledger: Ledger,
    report: Callable[[], None],
) -> dict[str, Any]:
    """Runs all methods on a task.

    Args:
      preset: how much is computed.
      setting: the task.
      problem: of the task.
      ledger: runs that are done.
      report: called after each run.

    Returns:
      ``times`` of the evaluations, ``num_runs`` and their processor ``seconds``, and by method: its
      ``choices``, the ``tuning`` (for each choice and learning rate, where the first seed ended),
      and at the choice that won (``chosen``) the ``rates`` with accuracies
      ``[num_rates, num_seeds, num_evaluations]``; and judged on seeds on which nothing was chosen:
      ``fastest``, of baselines and ours the index of the learning rate for each target, and
      ``fresh``, by index of those and of the one that ends best, accuracies
      ``[num_fresh_seeds, num_evaluations]``.
    """
    course = Course(preset, setting, problem, ledger, report)
    measured: dict[str, Any] = {}
    for method in chosen_methods(preset, setting):
        taken = None if method.like is None else measured[method.like]["chosen"]
        measured[method.name] = course.of(method, taken)
    return {
        "times": course.times.tolist(),
        "num_runs": len(course.seconds),
        "seconds": round(sum(course.seconds.values())),
        "methods": measured,
    }


def chosen_methods(preset: Preset, setting: TaskSetting) -> list[Method]:
    """Returns the methods that run on a task."""
    return [
        method
        for method in methods(preset)
        if not setting.methods or method.name in setting.methods
    ]


class Course:
    """The runs of one task.

    Args:
      preset: how much is computed.
      setting: the task.
      problem: of the task.
      ledger: runs that are done.
      report: called after each run.
    """

    def __init__(
        self,
        preset: Preset,
        setting: TaskSetting,
        problem: Problem,
        ledger: Ledger,
        report: Callable[[], None],
    ):
        self._preset, self._setting, self._problem = preset, setting, problem
        self._ledger, self._report = ledger, report
        self.seconds: dict[str, float] = {}
        self.times = np.linspace(0, setting.max_time, setting.num_evaluations + 1)

    def of(self, method: Method, taken: int | None = None) -> dict[str, Any]:
        """Tunes a method, at the choice of that number if one is taken over, and runs it."""
        preset, tuning = self._preset, []
        found = []
        for number in range(len(method.choices)) if taken is None else (taken,):
            seen: dict[int, float] = {}

            def end(k: int, number: int = number, seen: dict[int, float] = seen) -> float:
                seen[k] = ending(self.run(method, number, k, preset.seeds[0]))
                return seen[k]

            exponent = tune(end, preset.scan, preset.furthest)
            found.append((seen[exponent], number, exponent))
            ends = {f"{self.rate(method, k):.6g}": round(seen[k], 4) for k in sorted(seen)}
            tuning.append({"choice": number, "ends": ends})
        _, number, exponent = max(found)

        def mean(k: int) -> float:
            runs = [self.run(method, number, k, seed) for seed in preset.seeds]
            return float(np.mean([ending(run) for run in runs]))

        exponents = around(mean, exponent, preset.furthest)
        accuracy = [[self.run(method, number, k, seed) for seed in preset.seeds] for k in exponents]
        measured = {"accuracy": accuracy}
        times = self.times.tolist()
        fastest = []
        if method.role in ("baseline", "ours"):  # of the others, the ends are looked at
            fastest = [fastest_rate(measured, times, target) for target in self._setting.targets]
        judged = sorted({best_rate(measured), *fastest})
        return {
            "protocol": method.protocol,
            "role": method.role,
            "unit": method.unit,
            "choices": [dict(choice) for choice in method.choices],
            "chosen": number,
            "tuning": tuning,
            "rates": [self.rate(method, k) for k in exponents],
            "accuracy": accuracy,
            "fastest": fastest,
            "fresh": {
                str(i): [self.run(method, number, exponents[i], seed) for seed in preset.fresh]
                for i in judged
            },
        }

    def rate(self, method: Method, exponent: int) -> float:
        """Returns the learning rate at an exponent."""
        factor = self._setting.rate_factors.get(method.unit, 1.0)
        return START[method.unit] * factor * 2.0**exponent

    def run(self, method: Method, number: int, exponent: int, seed: int) -> list[float]:
        """Returns the accuracies of a run; 0 from where it diverged."""
        rate, choice = self.rate(method, exponent), dict(method.choices[number])
        description = described(self._preset, self._setting)
        description |= {"method": method.name, "rate": rate, "choice": choice, "seed": seed}

        def compute() -> dict[str, Any]:
            started = time.process_time()
            accuracy = self.simulate(method.protocol, method.make(rate, **choice), seed)
            self._report()
            return {"accuracy": accuracy, "seconds": round(time.process_time() - started, 2)}

        outcome = self._ledger.run(description, compute)
        self.seconds[f"{method.name}|{number}|{exponent}|{seed}"] = outcome["seconds"]
        return outcome["accuracy"]

    def simulate(self, protocol: str, optimizer: Any, seed: int) -> list[float]:
        """Returns the accuracy at each of ``times``."""
        timeline = self.timeline(protocol, seed)
        inner = [float(t) for t in self.times if 0 < t <= timeline.end_time]
        result = ao.simulate(
            self._problem,
            optimizer,
            timeline,
            key=jax.random.key(seed),
            lanes=self._preset.lanes,
            evaluate_at=inner,
        )
        table = result.evaluations
        # What is evaluated last holds until the end: the next commit would have been later.
        last = np.searchsorted(table["time"], self.times + 1e-9, side="right") - 1
        accuracy = np.asarray(table["accuracy"], float)[last]
        if result.diverged:
            accuracy = np.where(self.times > result.diverged.time - 1e-9, 0.0, accuracy)
        return [round(float(x), 4) for x in accuracy]

    @functools.cache  # noqa: B019 one course lives as long as its preset runs
    def timeline(self, protocol: str, seed: int) -> ao.Timeline:
        """Returns who computes when."""
        return ao.simulate_timeline(
            protocol_of(protocol, self._preset),
            RUNTIMES,
            self._preset.num_workers,
            max_time=self._setting.max_time,
            seed=seed,
        )
