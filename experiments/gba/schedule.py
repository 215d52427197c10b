"""Timelines that end, and switch, at given days of the log."""

import functools
import math

import numpy as np

from async_optax.timelines import Timeline, protocols, simulate_timeline
from async_optax.timelines.protocols import Protocol
from experiments.gba.config import Mode, Setting


def days_after(timeline: Timeline, arrivals_per_day: int) -> np.ndarray:
    """Returns the day that each commit reaches: arrivals let in so far, as a share of a day's."""
    return np.cumsum(timeline.accepted)[timeline.commit] / arrivals_per_day


def time_of_day(timeline: Timeline, arrivals_per_day: int, days: np.ndarray) -> np.ndarray:
    """Returns the simulated times of the first commits at or after these days; 0 for day 0.

    Args:
      timeline: reaches all of them.
      arrivals_per_day: of the log.
      days: float ``[num_days]``.
    """
    times = np.concatenate([[0.0], timeline.commit_times])
    return times[np.searchsorted(np.append(0.0, days_after(timeline, arrivals_per_day)), days)]


def until_day(protocol: Protocol, setting: Setting, seed: int, day: float) -> Timeline:
    """Returns the timeline that ends with the first commit at or after a day of the log."""
    num_commits = math.ceil(day * setting.arrivals_per_day / setting.num_workers)
    while True:
        timeline = simulate_timeline(
            protocol,
            setting.runtimes,
            setting.num_workers,
            num_commits=num_commits,
            seed=seed,
        )
        enough = days_after(timeline, setting.arrivals_per_day) >= day
        if enough[:-1].any():  # too long: how it begins does not depend on where it ends
            num_commits = int(np.argmax(enough)) + 1
        elif enough[-1]:
            return timeline
        else:
            num_commits *= 2


@functools.cache
def timeline_of(mode: Mode, setting: Setting, seed: int) -> Timeline:
    """Returns the timeline of a mode on the whole log of a setting."""
    protocol = mode.protocol(setting.num_workers)
    if mode.switching:
        synchronous = protocols.synchronous()
        stages = []
        for stage, day in zip((synchronous, protocol), setting.switches, strict=True):
            begun = protocols.switching([*stages, (None, stage)]) if stages else stage
            stages.append((until_day(begun, setting, seed, day).end_time, stage))
        protocol = protocols.switching([*stages, (None, synchronous)])
    return until_day(protocol, setting, seed, setting.num_days)
