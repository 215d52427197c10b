"""How staleness raises the variance that noise leaves behind."""

from collections.abc import Callable
from typing import Any

import numpy as np

import async_optax as ao
from async_optax import theory
from experiments.delay_theory.boundary import constant
from experiments.delay_theory.config import Setting
from experiments.delay_theory.quadratics import floor

LOADS = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.1, 1.2, 1.3, 1.4)  # step times (staleness + 1/2)


def measure_floor(setting: Setting, done: Callable[[], None]) -> list[dict[str, Any]]:
    """Returns measured variances, as multiples of those of fresh gradients in the continuum."""
    rows = []
    problem = floor(setting.floor_coordinates).with_noise(ao.noise.gaussian(1.0))
    for staleness in setting.floor_staleness:
        steps = np.array(LOADS) / (staleness + 0.5)
        dataset = ao.sweep(
            problem,
            "sgd",
            constant(staleness, setting.floor_commits),
            seeds=[0],
            grid={"learning_rate": steps.tolist()},
            evaluate_every=10,
            strategy="threads",
        )
        variances = dataset["variance"].values.reshape(len(steps), -1)
        settled = variances[:, variances.shape[1] // 2 :].mean(axis=1)
        fresh = steps / 2  # (learning rate)^2 / (2 step), with curvature and noise 1
        rows.append(
            {
                "staleness": staleness,
                "steps": steps.tolist(),
                "measured": (settled / fresh).tolist(),
                "exact": (theory.stationary_variance(steps, staleness) * steps**2 / fresh).tolist(),
                "continuum": theory.continuum_inflation(steps, staleness).tolist(),
                "half": theory.continuum_inflation(steps, staleness + 0.5).tolist(),
            }
        )
        done()
    return rows
