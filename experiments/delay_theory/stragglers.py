"""Does clipped asynchronous SGD depend on the largest delay?"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

import async_optax as ao
from experiments.delay_theory.config import NUM_WORKERS, Setting
from experiments.delay_theory.quadratics import bowl

MAX_NORM = 2.0
METHODS = {
    "sgd": ao.optimizers.sgd,
    "clipped_sgd": lambda learning_rate: ao.optimizers.clipped_sgd(learning_rate, MAX_NORM),
    "delay_adaptive_sgd": lambda learning_rate: ao.optimizers.delay_adaptive_sgd(
        learning_rate, NUM_WORKERS
    ),
}
RATE = 1 / 64  # of all methods: only the rule differs
START = 10.0  # of each of 16 coordinates: gradients at the start are a hundred times the noise
NOISE = 0.1


def timeline(slowdown: int, num_commits: int, seed: int) -> ao.Timeline:
    """Half of the workers are so many times slower."""
    law = ao.runtimes.gamma(cv=0.1)
    times = ao.runtimes.two_speed(float(slowdown), law=law) if slowdown > 1 else law
    return ao.simulate_timeline(
        ao.protocols.asynchronous(), times, NUM_WORKERS, num_commits=num_commits, seed=seed
    )


def measure_stragglers(setting: Setting, done: Callable[[], None]) -> list[dict[str, Any]]:
    """Returns gradient norms after the first third of runs: without stragglers all has settled."""
    problem = bowl(jnp.geomspace(0.2, 1, 16), START).with_noise(ao.noise.sub_weibull(1.0, NOISE))
    rows: list[dict[str, Any]] = []
    for slowdown in setting.slowdowns:
        dataset = ao.sweep(
            problem,
            METHODS,
            lambda seed, slowdown=slowdown: timeline(slowdown, setting.straggler_commits, seed),
            seeds=setting.seeds,
            grid={"learning_rate": [RATE]},
            evaluate_every=5,
            strategy="threads",
        )
        norms = np.nan_to_num(dataset["gradient"].values[:, 0, :, 0], nan=1e30)
        late = norms[..., norms.shape[-1] // 3 :]  # method, seed, evaluation
        longest = int(timeline(slowdown, setting.straggler_commits, 0).staleness.max())
        for i, method in enumerate(METHODS):
            rows.append(
                {
                    "slowdown": slowdown,
                    "max_staleness": longest,
                    "method": method,
                    "median": float(np.median(late[i])),
                    "worst": float(np.median(late[i].max(axis=-1))),
                }
            )
        done()
    return rows
