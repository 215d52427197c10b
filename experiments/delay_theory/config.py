"""What is measured, and the presets."""

import dataclasses
from collections.abc import Mapping, Sequence

from async_optax import protocols, runtimes
from async_optax.timelines.protocols import Protocol
from async_optax.timelines.runtimes import RuntimeModel

NUM_WORKERS = 16  # but where their number is what is varied

TIMES: Mapping[str, RuntimeModel] = {
    "equal": runtimes.deterministic(),
    "gamma, cv 0.1": runtimes.gamma(cv=0.1),
    "gamma, cv 0.5": runtimes.gamma(cv=0.5),
    "exponential": runtimes.exponential(),
    "half 8 times slower": runtimes.two_speed(8.0, law=runtimes.gamma(cv=0.1)),
    "pareto 1.5": runtimes.pareto(1.5),
}
PROTOCOLS: Mapping[str, Protocol] = {
    "asynchronous": protocols.asynchronous(),
    "buffered(4)": protocols.buffered(4),
    "ringmaster(8)": protocols.ringmaster(8),
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """How much is measured.

    Attributes:
      staleness: constant staleness of the boundary.
      momenta: of the server, for the boundary.
      map_steps: steps of the map, from 0.01 to 2.5.
      turns: length of the boundary's runs, in units of ``staleness + 1`` commits.
      timeline_commits: length of runs on simulated timelines.
      timeline_seeds: how many timelines for each compute time and protocol.
      worker_rates: learning rates at which the number of workers is varied.
      worker_duration: length of these runs, in mean compute times.
      floor_staleness: constant staleness under noise.
      floor_coordinates: independent modes over which a variance is taken.
      floor_commits: length of these runs.
      slowdowns: of half of the workers, for the clipping experiment.
      straggler_commits: length of these runs.
      tails: indices alpha of the noise.
      horizons: lengths of runs under alpha-stable noise.
      seeds: of runs with noise.
      times: names of ``TIMES``, for the simulated timelines.
      protocols: names of ``PROTOCOLS``, for the simulated timelines.
      worker_times: names of ``TIMES``, where the number of workers is varied.
    """

    staleness: Sequence[int]
    momenta: Sequence[float]
    map_steps: int
    turns: int
    timeline_commits: int
    timeline_seeds: int
    worker_rates: Sequence[float]
    worker_duration: float
    floor_staleness: Sequence[int]
    floor_coordinates: int
    floor_commits: int
    slowdowns: Sequence[int]
    straggler_commits: int
    tails: Sequence[float]
    horizons: Sequence[int]
    seeds: Sequence[int]
    times: Sequence[str] = tuple(TIMES)
    protocols: Sequence[str] = tuple(PROTOCOLS)
    worker_times: Sequence[str] = ("equal", "gamma, cv 0.5", "exponential")


PRESETS = {
    "smoke": Setting(
        staleness=(0, 3, 7),
        momenta=(0.0,),
        map_steps=8,
        turns=100,
        timeline_commits=1000,
        timeline_seeds=1,
        worker_rates=(0.4,),
        worker_duration=60.0,
        floor_staleness=(4,),
        floor_coordinates=128,
        floor_commits=600,
        slowdowns=(1, 16),
        straggler_commits=1000,
        tails=(1.5,),
        horizons=(128, 512),
        seeds=range(1),
        times=("equal", "exponential"),
        protocols=("asynchronous",),
        worker_times=("equal",),
    ),
    "cpu": Setting(
        staleness=(0, 1, 2, 3, 5, 7, 11, 15, 23, 31),
        momenta=(0.0, 0.9),
        map_steps=40,
        turns=400,
        timeline_commits=5000,
        timeline_seeds=3,
        worker_rates=(0.1, 0.05),
        worker_duration=150.0,
        floor_staleness=(4, 16),
        floor_coordinates=1024,
        floor_commits=6000,
        slowdowns=(1, 4, 16, 64, 256, 320, 384, 512),
        straggler_commits=6000,
        tails=(1.2, 1.5, 1.8),
        horizons=tuple(2**k for k in range(8, 17)),
        seeds=range(5),
    ),
    "gpu": Setting(
        staleness=(0, 1, 2, 3, 5, 7, 11, 15, 23, 31, 47, 63, 95, 127),
        momenta=(0.0, 0.5, 0.9),
        map_steps=80,
        turns=800,
        timeline_commits=20_000,
        timeline_seeds=5,
        worker_rates=(0.1, 0.05, 0.02),
        worker_duration=300.0,
        floor_staleness=(4, 16, 64),
        floor_coordinates=8192,
        floor_commits=20_000,
        slowdowns=(1, 4, 16, 64, 256, 1024),
        straggler_commits=20_000,
        tails=(1.2, 1.4, 1.6, 1.8, 2.0),
        horizons=tuple(2**k for k in range(8, 21)),
        seeds=range(10),
    ),
}
