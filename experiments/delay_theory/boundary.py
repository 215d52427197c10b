"""Where runs of the engine stop converging, at constant staleness and on simulated timelines."""

from collections.abc import Callable
from typing import Any

import numpy as np

import async_optax as ao
from async_optax import theory
from experiments.delay_theory.config import NUM_WORKERS, PROTOCOLS, TIMES, Setting
from experiments.delay_theory.quadratics import crossing, growth, modes

Progress = Callable[[], None]
FINE = 40  # steps, within 10 % of the predicted limit, which is none of them
COARSE = 36  # steps, from 0.02 to 2.5, then as many between two of them


def engine_growth(timeline: ao.Timeline, steps: np.ndarray, momentum: float, every: int) -> Any:
    """Returns the growth per commit of a mode of curvature 1, ``[num_steps]``, by a sweep."""
    dataset = ao.sweep(
        modes(np.ones(1)),
        ao.optimizers.momentum_sgd if momentum else ao.optimizers.sgd,
        timeline,
        seeds=[0],
        grid={"learning_rate": steps.tolist()} | ({"momentum": [momentum]} if momentum else {}),
        evaluate_every=every,
        strategy="threads",
    )
    sizes = dataset["mode_0"].values.reshape(len(steps), -1)
    versions = dataset["version"].values.ravel()
    rates = np.array([growth(row[np.isfinite(row)], versions) for row in sizes])
    # A late gradient may push up a mode that has almost died out: that is no divergence.
    died_out = sizes[:, -(len(versions) // 24 + 1) :].max(axis=1) < np.exp(-2)
    return np.where(died_out, np.minimum(rates, 0.0), rates)


def constant(staleness: int, num_commits: int) -> ao.Timeline:
    """Returns a timeline of constant staleness, but for its start."""
    return ao.Timeline.from_staleness(np.minimum(np.arange(num_commits), staleness))


def measure_boundary(setting: Setting, done: Progress) -> list[dict[str, Any]]:
    """Returns the boundary of the engine at constant staleness beside the predicted limit."""
    rows = []
    for momentum in setting.momenta:
        for staleness in setting.staleness:
            limit = theory.stability_limit(staleness, momentum)
            steps = limit * np.linspace(0.9, 1.1, FINE)
            timeline = constant(staleness, setting.turns * (staleness + 1))
            rates = engine_growth(timeline, steps, momentum, max(1, (staleness + 1) // 2))
            measured = crossing(steps, rates)
            rows.append(
                {
                    "momentum": momentum,
                    "staleness": staleness,
                    "predicted": limit,
                    "measured": measured,
                    "error": measured / limit - 1,
                }
            )
            done()
    return rows


def measure_map(setting: Setting, done: Progress) -> dict[str, Any]:
    """Returns the growth per commit for all steps and staleness, without momentum."""
    steps = np.geomspace(0.01, 2.5, setting.map_steps)
    rates = []
    for staleness in setting.staleness:
        timeline = constant(staleness, 40 * (staleness + 1))
        rates.append(engine_growth(timeline, steps, 0.0, max(1, (staleness + 1) // 4)))
        done()
    # In turns: what it does in the time that a gradient takes; infinities are off the scale.
    turns = np.array(rates) * (np.array(setting.staleness) + 1)[:, None]
    return {"steps": steps.tolist(), "growth": np.clip(turns, -9, 9).tolist()}


def measure_timelines(setting: Setting, done: Progress) -> list[dict[str, Any]]:
    """Returns the boundary of the engine on simulated timelines beside three predictions."""
    rows = []
    for times in setting.times:
        for name in setting.protocols:
            protocol, model = PROTOCOLS[name], TIMES[times]

            def timeline(seed: int, protocol: Any = protocol, model: Any = model) -> ao.Timeline:
                return ao.simulate_timeline(
                    protocol, model, NUM_WORKERS, num_commits=setting.timeline_commits, seed=seed
                )

            known = timeline(0)
            measured = [_search(timeline(seed + 1)) for seed in range(setting.timeline_seeds)]
            rows.append(
                {
                    "times": times,
                    "protocol": name,
                    "measured": measured,
                    "replayed": theory.replayed_limit(known),
                    "mean": theory.kernel_stability_limit(theory.staleness_kernel(known)),
                    "mean_staleness": float(known.staleness[known.accepted].mean()),
                }
            )
            done()
    return rows


def _search(timeline: ao.Timeline) -> float | None:
    """The step from which on a mode grows, or nothing if there is none."""
    low, high, found = 0.02, 2.5, np.nan
    for _ in range(2):
        steps = np.geomspace(low, high, COARSE)
        rates = engine_growth(timeline, steps, 0.0, 8)
        found = crossing(steps, rates)
        if np.isnan(found):
            return None
        last = int(np.flatnonzero(rates <= 0)[-1])
        low, high = steps[last] * 0.98, steps[last + 1] * 1.02
    return found
