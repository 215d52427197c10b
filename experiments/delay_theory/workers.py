"""The best number of workers: measured by the engine and predicted."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

import async_optax as ao
from async_optax import theory
from experiments.delay_theory.config import TIMES, Setting
from experiments.delay_theory.quadratics import growth, modes

CURVATURES = (0.1, 1.0)


def engine_rate(rate: float, num_workers: int, times: str, duration: float, seed: int) -> float:
    """Returns how fast the slowest mode dies out in a run, per mean compute time."""
    timeline = ao.simulate_timeline(
        ao.protocols.asynchronous(),
        TIMES[times],
        num_workers,
        num_commits=int(duration * num_workers),
        seed=seed,
    )
    result = ao.simulate(
        modes(np.array(CURVATURES)),
        ao.optimizers.sgd(rate),
        timeline,
        key=jax.random.key(0),
        lanes=1,
        evaluate_every=max(1, num_workers // 4),
    )
    evaluations = result.evaluations
    whole = len(evaluations["time"]) + bool(result.diverged)
    each = [
        growth(evaluations[f"mode_{i}"], np.append(evaluations["time"], np.inf)[:whole])
        for i in range(len(CURVATURES))
    ]
    return -max(each)


def measure_workers(setting: Setting, done: Callable[[], None]) -> list[dict[str, Any]]:
    """Returns measured and predicted rates over the number of workers."""
    rows = []
    for rate in setting.worker_rates:
        cap = theory.best_num_workers(rate, CURVATURES).cap
        for times in setting.worker_times:
            most = int(cap * (1.15 if times == "equal" else 1.6 if "gamma" in times else 3.0)) + 1
            number = sorted({*range(1, 4), *np.linspace(4, most, 16).astype(int).tolist()})
            with ThreadPoolExecutor(2) as pool:
                measured = list(
                    pool.map(
                        lambda m, rate=rate, times=times: engine_rate(
                            rate, m, times, setting.worker_duration, seed=1
                        ),
                        number,
                    )
                )
            predicted = theory.simulated_worker_rates(
                ao.protocols.asynchronous(), TIMES[times], rate, CURVATURES, number
            )
            rows.append(
                {
                    "rate": rate,
                    "times": times,
                    "num_workers": number,
                    "measured": _finite(measured),
                    "predicted": _finite(predicted),
                    "formula": _best(theory.best_num_workers(rate, CURVATURES)),
                    "continuum": _best(
                        theory.best_num_workers(rate, CURVATURES, model="continuum")
                    ),
                }
            )
            done()
    return rows


def _finite(values: Any) -> list[float | None]:
    """Replaces what has overflown, a divergence, by nothing: JSON knows no infinities."""
    return [float(value) if np.isfinite(value) else None for value in values]


def _best(found: theory.BestWorkers) -> dict[str, float]:
    return {"num_workers": found.num_workers, "rate": found.rate, "cap": found.cap}
