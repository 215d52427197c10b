"""Staleness along the runs, and how heavy the tails of the gradients are along one of them."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

import async_optax as ao
from async_optax.theory import tails
from experiments.heavy_tailed.config import RUNTIMES, Preset, TaskSetting
from experiments.heavy_tailed.curves import best_rate
from experiments.heavy_tailed.measure import chosen_methods
from experiments.heavy_tailed.methods import protocol_of
from experiments.heavy_tailed.standings import OURS

_PLACES = (0.0, 0.25, 0.5, 1.0)  # of the simulated time
_WINDOWS = 5
_COORDINATES = 200


def staleness(preset: Preset, setting: TaskSetting) -> dict[str, Any]:
    """Returns for each protocol the staleness of the gradients of the first seed.

    Args:
      preset: how much is computed.
      setting: the task.

    Returns:
      By protocol: ``commits``, ``gradients`` (of those that were taken), ``mean``, ``90 %`` and
      ``largest``, and ``along``, means over fifths of the time.
    """
    found = {}
    for protocol in dict.fromkeys(m.protocol for m in chosen_methods(preset, setting)):
        timeline = ao.simulate_timeline(
            protocol_of(protocol, preset),
            RUNTIMES,
            preset.num_workers,
            max_time=setting.max_time,
            seed=preset.seeds[0],
        )
        taken = timeline.accepted
        tau, when = timeline.staleness[taken], timeline.time[taken]
        window = np.minimum(when / setting.max_time * _WINDOWS, _WINDOWS - 1).astype(int)
        means = [tau[window == i].mean() if np.any(window == i) else 0.0 for i in range(_WINDOWS)]
        found[protocol] = {
            "commits": int(timeline.num_commits),
            "gradients": int(taken.sum()),
            "mean": round(float(tau.mean()), 2) if len(tau) else 0.0,
            "90 %": float(np.quantile(tau, 0.9)) if len(tau) else 0.0,
            "largest": int(tau.max()) if len(tau) else 0,
            "along": [round(float(x), 2) for x in means],
        }
    return found


def tail_index(
    preset: Preset, setting: TaskSetting, problem: ao.Problem, measured: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Returns how heavy the tails of the gradient noise are, along the run of our method.

    The run is that of :data:`~experiments.heavy_tailed.standings.OURS` at its best learning rate,
    first seed. What is judged are the differences of single gradients to their mean at the
    parameters of one moment: their norms, and 200 of their coordinates.

    Args:
      preset: how much is computed.
      setting: the task.
      problem: of the task.
      measured: from :func:`experiments.heavy_tailed.measure.measure`.

    Returns:
      For each moment: ``time``, ``loss``, and for ``norms`` and ``coordinates`` the ``verdict``,
      Hill's ``index`` with its 95 % ``interval``, and sub-Weibull ``theta``.
    """
    (method,) = (m for m in chosen_methods(preset, setting) if m.name == OURS)
    own = measured["methods"][method.name]
    optimizer = method.make(own["rates"][best_rate(own)], **method.choices[own["chosen"]])
    seed, found = preset.seeds[0], []
    key = jax.random.key(seed)
    for place in _PLACES:
        params = problem.init(jax.random.split(key)[0])
        if place > 0:
            # The same seed up to an earlier time: the beginning of the same timeline.
            timeline = ao.simulate_timeline(
                protocol_of(method.protocol, preset),
                RUNTIMES,
                preset.num_workers,
                max_time=place * setting.max_time,
                seed=seed,
            )
            params = ao.simulate(problem, optimizer, timeline, key=key, lanes=preset.lanes).params
        noise = tails.gradient_noise(
            problem,
            params,
            key=key,
            num_samples=setting.num_samples,
            num_coordinates=_COORDINATES,
            num_workers=preset.num_workers,
        )
        entry: dict[str, Any] = {"time": place * setting.max_time, "loss": round(noise.loss, 4)}
        for name, samples in (("norms", noise.norms), ("coordinates", noise.coordinates)):
            report = tails.judge_tail(samples, signed=name == "coordinates")
            entry[name] = {
                "verdict": report.verdict,
                "index": _number(report.index),
                "interval": _ends(report.index_interval),
                "theta": _number(report.theta),
            }
        found.append(entry)
    return found


def _ends(interval: tails.Interval | None) -> list[float | None]:
    return [] if interval is None else [_number(interval.low), _number(interval.high)]


def _number(value: float) -> float | None:
    """JSON knows no NaN and no infinity."""
    return round(float(value), 3) if np.isfinite(value) else None
