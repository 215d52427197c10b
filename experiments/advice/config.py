"""What advice is given on, and what it is measured against."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial

from async_optax import noise, protocols, runtimes
from async_optax.engine import Problem
from async_optax.problems import attention, digits
from async_optax.timelines.protocols import Protocol
from async_optax.timelines.runtimes import RuntimeModel
from experiments.heavy_tailed_logistic.run import logistic

TOLERATED = 2.0  # factor between the advised learning rate and the best: the claim
AS_GOOD = 1.1  # factor between losses that are called as good

# What to make of the advice of several seeds.
ADVISED: Mapping[str, Callable[[np.ndarray], float]] = {
    "least": lambda rates: float(rates.min()),
    "middle": lambda rates: float(np.exp(np.log(rates).mean())),
    "largest": lambda rates: float(rates.max()),
}

RUNTIMES: Mapping[str, RuntimeModel] = {
    "two speeds": runtimes.two_speed(8.0, law=runtimes.gamma(cv=0.5)),
    "exponential": runtimes.exponential(),
}
PROTOCOLS: Mapping[str, Protocol] = {
    "asynchronous": protocols.asynchronous(),
    "synchronous": protocols.synchronous(),
}


def _loss_on_all(loss: Any, data: Any, params: Any) -> dict[str, jax.Array]:
    return {"loss": loss(params, data, None)}


def _on_training_data(problem: Problem) -> Problem:
    """The problem judged by what it minimises: the loss on all training data."""
    batch: Any = problem.batch  # a Partial of the batch size, images and labels
    _, *data = batch.args
    return dataclasses.replace(problem, evaluate=Partial(_loss_on_all, problem.loss, tuple(data)))


def _digits() -> Problem:
    return _on_training_data(digits(hidden=(32,)))


def _heavy_digits() -> Problem:
    return _digits().with_noise(noise.alpha_stable(1.2, scale=0.05))


def _attention() -> Problem:
    return _on_training_data(attention())


def _excess(evaluate: Any, params: Any) -> dict[str, jax.Array]:
    return {"loss": evaluate(params)["excess"]}


def _logistic() -> Problem:
    """Logistic regression judged by its loss above the minimum, which is far from 0."""
    problem = logistic()
    return dataclasses.replace(problem, evaluate=Partial(_excess, problem.evaluate))


PROBLEMS: Mapping[str, Callable[[], Problem]] = {
    "digits": _digits,
    "attention": _attention,
    "logistic": _logistic,
    "digits, heavy noise": _heavy_digits,
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """How much of everything.

    Attributes:
      problems: names in ``PROBLEMS``.
      num_workers: of all runs.
      max_time: simulated time of a run.
      exponents: of 2, the grid of learning rates.
      seeds: of runs: initialisation, batches, noise and compute times.
      advice_seeds: of advice; each is independent of the others.
      warm_up_steps: of the advisor.
      num_samples: of the advisor.
    """

    problems: Sequence[str]
    num_workers: int
    max_time: float
    exponents: Sequence[int]
    seeds: Sequence[int]
    advice_seeds: Sequence[int]
    warm_up_steps: int = 1000
    num_samples: int = 1000

    @property
    def rates(self) -> list[float]:
        """The grid."""
        return [2.0**k for k in self.exponents]


PRESETS = {
    "smoke": Setting(
        problems=("logistic",),
        num_workers=4,
        max_time=20.0,
        exponents=(-4, -1),
        seeds=range(1),
        advice_seeds=range(1),
        warm_up_steps=200,
        num_samples=200,
    ),
    "cpu": Setting(
        problems=tuple(PROBLEMS),
        num_workers=16,
        max_time=600.0,
        exponents=range(-9, 4),
        seeds=range(3),
        advice_seeds=range(10, 16),
    ),
    "gpu": Setting(
        problems=tuple(PROBLEMS),
        num_workers=64,
        max_time=2000.0,
        exponents=range(-11, 4),
        seeds=range(5),
        advice_seeds=range(10, 18),
    ),
}
