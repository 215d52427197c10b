"""Advice, and the learning rates that it is measured against."""

import dataclasses
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from async_optax import optimizers
from async_optax.advice import Advice, Measured, advise, measure_problem
from async_optax.engine import Problem, simulate
from async_optax.timelines import Timeline, simulate_timeline
from async_optax.transforms import weights
from experiments.advice.config import ADVISED, PROBLEMS, PROTOCOLS, RUNTIMES, Setting

Progress = Callable[[], None]
_EVALUATIONS = 40
_LAST = _EVALUATIONS // 5  # of the evaluations, whose mean is the loss at the end


def final_loss(
    problem: Problem,
    method: str,
    arguments: dict[str, Any],
    learning_rate: float,
    timeline: Timeline,
    seed: int,
) -> float:
    """Returns the loss on all data, mean over the last fifth of a run; infinity if it diverges."""
    given = dict(arguments)
    if "weight_fn" in given:
        name, number = given["weight_fn"], timeline.num_workers
        given["weight_fn"] = weights.inverse() if name == "inverse" else weights.concurrency(number)
    result = simulate(
        problem,
        optimizers.make(method, learning_rate=learning_rate, **given),
        timeline,
        key=jax.random.key(seed),
        lanes=1,
        evaluate_at=np.linspace(0, timeline.end_time, _EVALUATIONS + 1).tolist(),
    )
    losses = result.evaluations["loss"]
    if result.diverged or len(losses) < _EVALUATIONS + 1:
        return math.inf
    return float(np.mean(losses[-_LAST:]))


def measured_once(setting: Setting, problem: Problem, seed: int) -> Measured:
    """Measures a problem as the advisor does; it serves for all runtime models."""
    return measure_problem(
        problem,
        key=jax.random.key(seed),
        num_workers=setting.num_workers,
        warm_up_steps=setting.warm_up_steps,
        num_samples=setting.num_samples,
    )


def advice_for(
    setting: Setting, problem: Problem, runtime: str, measured: Measured, seed: int
) -> Advice:
    """Asks the advisor once."""
    return advise(
        problem,
        RUNTIMES[runtime],
        setting.num_workers,
        protocols=list(PROTOCOLS.values()),
        max_time=setting.max_time,
        measured=measured,
        seed=seed,
    )


def num_parts(setting: Setting) -> int:
    """Returns the number of measurements and of cells of runs."""
    advice = len(setting.problems) * len(setting.advice_seeds)
    cells = len(setting.problems) * len(RUNTIMES) * len(PROTOCOLS)
    return advice + cells * (len(setting.exponents) + len(ADVISED))


def measure(setting: Setting, threads: int, progress: Progress) -> list[dict[str, Any]]:
    """Returns a row for each problem, runtime model and protocol.

    Args:
      setting: how much.
      threads: runs at a time.
      progress: called after each measurement and each cell of runs.

    Returns:
      Rows with ``problem``, ``runtimes``, ``protocol``; ``method`` and ``arguments`` of the first
      advice; ``advised``, a list of what each advice says; ``rates`` and ``losses``
      ``[num_rates, num_seeds]`` of the grid; and ``advised_rates`` with ``advised_losses``, of runs
      at the least of the advised rates, their geometric mean and their largest.
    """
    rows = []
    for name in setting.problems:
        problem = PROBLEMS[name]()
        measured = _measured(setting, problem, threads, progress)
        for runtime in RUNTIMES:
            given = [
                advice_for(setting, problem, runtime, found, seed)
                for found, seed in zip(measured, setting.advice_seeds, strict=True)
            ]
            for protocol in PROTOCOLS:
                rows.append(
                    {"problem": name, "runtimes": runtime, "protocol": protocol}
                    | _against_the_grid(
                        setting, problem, runtime, protocol, given, threads, progress
                    )
                )
    return rows


def _measured(
    setting: Setting, problem: Problem, threads: int, progress: Progress
) -> list[Measured]:
    """Measures with every seed; the first alone, as it compiles the programs of all."""

    def once(seed: int) -> Measured:
        found = measured_once(setting, problem, seed)
        progress()
        return found

    first, *others = setting.advice_seeds
    with ThreadPoolExecutor(threads) as pool:
        return [once(first), *pool.map(once, others)]


def _against_the_grid(
    setting: Setting,
    problem: Problem,
    runtime: str,
    protocol: str,
    given: list[Advice],
    threads: int,
    progress: Progress,
) -> dict[str, Any]:
    found = [
        next(row for row in advice.protocols if row.protocol == PROTOCOLS[protocol].name)
        for advice in given
    ]
    advised = [
        {
            "learning_rate": row.rate.learning_rate,
            "largest": row.rate.largest,
            "limited_by": row.rate.limited_by,
            "expected_loss": row.rate.loss,
            "curvature": advice.measured.curvature,
            "curvature_start": advice.measured.curvature_start,
            "verdict": advice.measured.norms.verdict,
            "method": row.method,
            "arguments": row.arguments,
            "num_gradients": advice.measured.num_gradients,
        }
        for row, advice in zip(found, given, strict=True)
        if row.rate is not None
    ]
    method, arguments = advised[0]["method"], advised[0]["arguments"]
    timelines = [
        simulate_timeline(
            PROTOCOLS[protocol],
            RUNTIMES[runtime],
            setting.num_workers,
            max_time=setting.max_time,
            seed=seed,
        )
        for seed in setting.seeds
    ]
    given_rates = np.array([one["learning_rate"] for one in advised])
    advised_rates = [choose(given_rates) for choose in ADVISED.values()]
    losses = []
    with ThreadPoolExecutor(threads) as pool:
        for learning_rate in [*setting.rates, *advised_rates]:
            runs = [
                pool.submit(final_loss, problem, method, arguments, learning_rate, timeline, seed)
                for seed, timeline in zip(setting.seeds, timelines, strict=True)
            ]
            losses.append([run.result() for run in runs])
            progress()
    return {
        "method": method,
        "arguments": arguments,
        "num_gradients": int(np.count_nonzero(timelines[0].accepted)),
        "advised": advised,
        "rates": setting.rates,
        "losses": _finite(losses[: len(setting.rates)]),
        "advised_rates": dict(zip(ADVISED, advised_rates, strict=True)),
        "advised_losses": dict(zip(ADVISED, _finite(losses[len(setting.rates) :]), strict=True)),
    }


def _finite(losses: list[list[float]]) -> list[list[float | None]]:
    """JSON knows no infinity."""
    return [[x if math.isfinite(x) else None for x in row] for row in losses]


def described(setting: Setting) -> dict[str, Any]:
    """Returns a setting as plain data."""
    data = dataclasses.asdict(setting)
    lists = ("problems", "exponents", "seeds", "advice_seeds")
    return (
        data
        | {name: list(data[name]) for name in lists}
        | {"runtimes": {name: model.name for name, model in RUNTIMES.items()}}
    )
