"""How the gradient shrinks with the length of a run under alpha-stable noise."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import async_optax as ao
from async_optax import theory
from async_optax.engine import Problem
from experiments.delay_theory.config import Setting
from experiments.delay_theory.quadratics import bowl, waves

NUM_WORKERS, SIZE, START, SCALE = 8, 16, 2.0, 1.0
PROBLEMS = {
    "quadratic": (bowl(jnp.ones(SIZE), START), SIZE * START**2 / 2),
    "waves": (waves(SIZE, START), SIZE * (1 - float(np.cos(START)))),
}


@cache
def _timeline(num_commits: int, seed: int) -> ao.Timeline:
    return ao.simulate_timeline(
        ao.protocols.asynchronous(),
        ao.runtimes.gamma(cv=0.5),
        NUM_WORKERS,
        num_commits=num_commits,
        seed=seed,
    )


def mean_gradient(
    problem: Problem, optimizer: optax.GradientTransformation, num_commits: int, seed: int
) -> float:
    """Returns the mean of norm(gradient) over a run."""
    result = ao.simulate(
        problem,
        optimizer,
        _timeline(num_commits, seed),
        key=jax.random.key(seed),
        lanes=1,
        evaluate_every=max(1, num_commits // 128),
    )
    return float(np.mean(result.evaluations["gradient"]))


def measure_rates(setting: Setting, done: Callable[[], None]) -> list[dict[str, Any]]:
    """Returns mean gradient norms over the length of runs, and fitted and predicted exponents.

    Threshold and learning rate are those of :func:`theory.clipping_for_moments` for each length;
    plain SGD has the same learning rate.
    """
    rows = []
    for name, (plain, gap) in PROBLEMS.items():
        for alpha in setting.tails:
            problem = plain.with_noise(ao.noise.alpha_stable(alpha, SCALE))
            curves: dict[str, list[float]] = {"clipped": [], "plain": []}
            parameters = []
            for horizon in setting.horizons:
                found = theory.clipping_for_moments(
                    alpha, SCALE * SIZE ** (1 / alpha), 1.0, gap, horizon, concurrency=NUM_WORKERS
                )
                # Beyond any gradient where no threshold is called for: a number for JSON.
                max_norm = min(found.max_norm, 1e30)
                parameters.append([found.learning_rate, max_norm])
                for label, optimizer in (
                    ("clipped", ao.optimizers.clipped_sgd(found.learning_rate, max_norm)),
                    ("plain", ao.optimizers.sgd(found.learning_rate)),
                ):
                    with ThreadPoolExecutor(2) as pool:
                        runs = pool.map(
                            lambda seed, p=problem, tx=optimizer, n=horizon: mean_gradient(
                                p, tx, n, seed
                            ),
                            setting.seeds,
                        )
                        curves[label].append(float(np.mean(list(runs))))
            logs = np.log(setting.horizons)
            rows.append(
                {
                    "problem": name,
                    "alpha": alpha,
                    "horizons": list(setting.horizons),
                    "parameters": parameters,
                    **curves,
                    "measured": -float(np.polyfit(logs, np.log(curves["clipped"]), 1)[0]),
                    "late": -float(np.polyfit(logs[-5:], np.log(curves["clipped"][-5:]), 1)[0]),
                    "predicted": theory.clipped_rate(alpha),
                }
            )
            done()
    return rows
