"""Running the studies: every method at every learning rate and seed, on common random numbers."""

import concurrent.futures
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from async_optax import protocols
from async_optax.engine import simulate
from async_optax.timelines import Timeline, simulate_timeline
from experiments.adaptive.config import RUNTIMES, Method, Setting, Study

NEAR_BEST = 0.02  # accuracy
NUM_EVALUATIONS = 50
NUM_STRENGTHS = 6

Progress = Callable[[], None]


@functools.cache
def _timeline(num_workers: int, max_time: float, seed: int) -> Timeline:
    return simulate_timeline(
        protocols.asynchronous(), RUNTIMES, num_workers, max_time=max_time, seed=seed
    )


def run_once(setting: Setting, method: Method, learning_rate: float, seed: int) -> dict[str, Any]:
    """Returns the final ``accuracy``, the ``time`` to the target and whether it ``diverged``."""
    result = simulate(
        setting.problem,
        method.make(learning_rate),
        _timeline(setting.num_workers, setting.max_time, seed),
        key=jax.random.key(seed),
        lanes=1,
        evaluate_at=np.linspace(0, setting.max_time, NUM_EVALUATIONS + 1).tolist(),
    )
    if result.diverged:
        return {"accuracy": 0.0, "time": None, "diverged": True}
    accuracy = float(result.evaluations["accuracy"][-1])
    time = result.time_to("accuracy", setting.target)
    return {"accuracy": accuracy, "time": time, "diverged": False}


def _runs(
    cells: Sequence[tuple[Setting, Method, float]],
    seeds: Sequence[int],
    threads: int,
    progress: Progress,
) -> list[list[dict[str, Any]]]:
    """Returns for each cell its runs, one per seed."""

    def run(job: tuple[Setting, Method, float, int]) -> dict[str, Any]:
        outcome = run_once(*job)
        progress()
        return outcome

    jobs = [(*cell, seed) for cell in cells for seed in seeds]
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        outcomes = list(pool.map(run, jobs))
    return [outcomes[i : i + len(seeds)] for i in range(0, len(jobs), len(seeds))]


def _mean_time(runs: Sequence[dict[str, Any]]) -> float | None:
    times = [run["time"] for run in runs]
    return None if None in times else float(np.mean(times))


def _mean(runs: Sequence[dict[str, Any]]) -> float:
    return float(np.mean([run["accuracy"] for run in runs]))


def _spread(runs: Sequence[dict[str, Any]]) -> float:
    return float(np.std([run["accuracy"] for run in runs], ddof=1)) if len(runs) > 1 else 0.0


def _row(
    setting: Setting, method: Method, rates: Sequence[float], runs: Sequence[Any]
) -> dict[str, Any]:
    """Judges a method at its best learning rate, by mean final accuracy."""
    means = [_mean(at_rate) for at_rate in runs]
    times = [_mean_time(at_rate) for at_rate in runs]
    best = int(np.argmax(means))
    reached = [time for time in times if time is not None]
    return {
        "setting": setting.name,
        "method": method.name,
        "learning_rate": rates[best],
        "accuracy": means[best],
        "spread": _spread(runs[best]),
        "time": times[best],
        "fastest": min(reached, default=None),
        "near": sum(mean >= means[best] - NEAR_BEST - 1e-6 for mean in means),
        "usable": sum(mean >= setting.target for mean in means),
        "lost": sum(run["diverged"] for at_rate in runs for run in at_rate),
        "at_grid_edge": best in (0, len(rates) - 1),
        "grid": {
            "learning_rates": list(rates),
            "accuracies": [[run["accuracy"] for run in at_rate] for at_rate in runs],
        },
    }


def num_runs(studies: Sequence[Study], seeds: Sequence[int]) -> int:
    """Returns the number of runs, without those for the fitted strengths."""
    cells = 0
    for study in studies:
        for setting, methods in study.grids:
            carried = len(study.carried.get(setting.name, ()))
            cells += len(methods) * (len(setting.learning_rates) + carried)
    return cells * len(seeds)


def run_study(
    study: Study, seeds: Sequence[int], threads: int, progress: Progress
) -> dict[str, list[dict[str, Any]]]:
    """Runs a study.

    Args:
      study: methods on settings.
      seeds: of initialisation, batches, noise and compute times, for every method the same.
      threads: runs at a time.
      progress: called after each run.

    Returns:
      ``rows``, a method on a setting each, and ``carried``, a method carried to a setting.
    """
    for setting, _ in study.grids:
        for seed in seeds:
            _timeline(setting.num_workers, setting.max_time, seed)
    rows, carried = [], []
    for setting, methods in study.grids:
        grids = {m.name: [r * m.rate_unit for r in setting.learning_rates] for m in methods}
        cells = [(setting, method, rate) for method in methods for rate in grids[method.name]]
        runs = _runs(cells, seeds, threads, progress)
        length = len(setting.learning_rates)
        at_home = [
            _row(setting, method, grids[method.name], runs[i * length : (i + 1) * length])
            for i, method in enumerate(methods)
        ]
        rows += at_home
        for other in study.carried.get(setting.name, ()):
            cells = [
                (other, m, row["learning_rate"]) for m, row in zip(methods, at_home, strict=True)
            ]
            for cell, outcome in zip(cells, _runs(cells, seeds, threads, progress), strict=True):
                carried.append(
                    {
                        "from": setting.name,
                        "setting": other.name,
                        "method": cell[1].name,
                        "learning_rate": cell[2],
                        "accuracy": _mean(outcome),
                        "spread": _spread(outcome),
                    }
                )
    return {"rows": rows, "carried": carried}


def fitted_curvatures(study: Study, seed: int = 0) -> list[dict[str, Any]]:
    """Follows the strength that ``dynamic`` fits, as the mean curvature ``strength * h``.

    The state is looked at in the end only, so runs of growing length are made.
    """
    found = []
    for setting, methods in study.grids:
        method = next(m for m in methods if m.name == "dynamic")
        for learning_rate in (0.25, 2.0):
            times = [setting.max_time * (k + 1) / NUM_STRENGTHS for k in range(NUM_STRENGTHS)]
            values = []
            for time in times:
                timeline = _timeline(setting.num_workers, time, seed)
                result = simulate(
                    setting.problem,
                    method.make(learning_rate),
                    timeline,
                    key=jax.random.key(seed),
                    lanes=1,
                )
                _, state, _ = result.opt_state
                h = np.concatenate([np.ravel(x) for x in jax.tree.leaves(state.curvature)])
                strength = max(float(state.explained) / max(float(state.predicted), 1e-30), 0.0)
                values.append(strength * float(h.mean()))
            found.append(
                {
                    "setting": setting.name,
                    "learning_rate": learning_rate,
                    "times": times,
                    "curvatures": values,
                }
            )
    return found
