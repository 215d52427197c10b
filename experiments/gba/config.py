"""What is compared, and the presets."""

import dataclasses
from collections.abc import Callable, Sequence

from async_optax import protocols, runtimes
from async_optax.engine import Problem
from async_optax.problems import click_logs
from async_optax.timelines.protocols import Protocol
from async_optax.timelines.runtimes import RuntimeModel
from experiments.datasets import open_prepared
from experiments.gba.movielens import movielens

# A quarter of the workers are slow: what a shared cluster has when it is busy.
STRAGGLERS = runtimes.two_speed(5.0, slow_fraction=0.25, law=runtimes.gamma(cv=0.3))
TOLERANCE = 4  # of GBA, in global batches
BOUND = 2  # of the bounded staleness, in jobs

SYNCHRONOUS, ASYNCHRONOUS, GBA = "synchronous", "asynchronous", "GBA"
NAIVE_SWITCHING, GBA_SWITCHING = "naive switching", "GBA switching"


@dataclasses.dataclass(frozen=True)
class Mode:
    """How the workers are coordinated.

    Attributes:
      name: in tables.
      protocol: for a number of workers.
      switching: whether it is synchronous but for the days in the middle.
    """

    name: str
    protocol: Callable[[int], Protocol]
    switching: bool = False


def _tokens(num_workers: int) -> Protocol:
    # Batches are as large as in synchronous training, hence M gradients for M workers.
    return protocols.token_control(num_workers, TOLERANCE)


MODES = (
    Mode(SYNCHRONOUS, lambda num_workers: protocols.synchronous()),
    Mode(ASYNCHRONOUS, lambda num_workers: protocols.asynchronous()),
    Mode(GBA, _tokens),
    Mode("bounded staleness", lambda num_workers: protocols.bounded_staleness(BOUND)),
    Mode("backup workers", lambda num_workers: protocols.synchronous(backup=num_workers // 4)),
    Mode(NAIVE_SWITCHING, lambda num_workers: protocols.asynchronous(), switching=True),
    Mode(GBA_SWITCHING, _tokens, switching=True),
)


@dataclasses.dataclass(frozen=True)
class Setting:
    """A log, who trains on it, and which part of it asynchronously.

    Attributes:
      problem: makes the problem, whose log has ``num_days`` days and one more to test.
      num_days: of the log.
      arrivals_per_day: gradients.
      batch_size: impressions per gradient.
      num_workers: gradients of a synchronous step.
      switches: the days at which a switching mode becomes asynchronous, and synchronous again.
      evaluations_per_day: evenly spaced.
      learning_rates: of which the best for synchronous training is everyone's.
      seeds: of initialisation, batches and compute times.
      runtimes: how long a gradient takes.
    """

    problem: Callable[[], Problem]
    num_days: int
    arrivals_per_day: int
    batch_size: int
    num_workers: int
    switches: tuple[int, int]
    learning_rates: Sequence[float]
    seeds: Sequence[int]
    evaluations_per_day: int = 4
    runtimes: RuntimeModel = STRAGGLERS


def _generated(
    num_users: int,
    num_items: int,
    *,
    num_days: int,
    batch_size: int,
    test_size: int = 20_000,
    **setting: object,
) -> Setting:
    def problem() -> Problem:
        return click_logs(num_users, num_items, batch_size, num_days=num_days, test_size=test_size)

    return Setting(problem, num_days=num_days, batch_size=batch_size, **setting)


_RATES = (0.002, 0.004, 0.008, 0.016, 0.032)

CLICK_LOGS = {
    "smoke": _generated(
        300,
        100,
        num_days=3,
        batch_size=32,
        test_size=500,
        arrivals_per_day=64,
        num_workers=4,
        switches=(1, 2),
        learning_rates=(0.004, 0.016),
        seeds=range(2),
    ),
    "cpu": _generated(
        10_000,
        2_000,
        num_days=8,
        batch_size=128,
        arrivals_per_day=1600,
        num_workers=16,
        switches=(3, 6),
        learning_rates=_RATES,
        seeds=range(3),
    ),
    "gpu": _generated(
        200_000,
        20_000,
        num_days=8,
        batch_size=512,
        test_size=100_000,
        arrivals_per_day=6400,
        num_workers=64,
        switches=(3, 6),
        learning_rates=_RATES,
        seeds=range(3),
    ),
}


def _ratings(preset: Setting, variant: str, batch_size: int, arrivals_per_day: int) -> Setting:
    def problem() -> Problem:
        source = open_prepared(f"movielens/{variant}-ratings", "train")
        return movielens(source, batch_size, num_days=preset.num_days)

    return dataclasses.replace(
        preset, problem=problem, batch_size=batch_size, arrivals_per_day=arrivals_per_day
    )


# About four passes over the ratings of a day, as they are few.
MOVIELENS = {
    "smoke": _ratings(CLICK_LOGS["smoke"], "100k", 32, 64),
    "cpu": _ratings(CLICK_LOGS["cpu"], "100k", 32, 1388),
    "gpu": _ratings(CLICK_LOGS["gpu"], "1m", 32, 13_888),
}

DATA = {"click_logs": CLICK_LOGS, "movielens": MOVIELENS}
