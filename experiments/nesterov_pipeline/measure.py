"""Running the methods: learning rates picked on the first seed, then all seeds."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray

import async_optax as ao
from experiments.nesterov_pipeline import config
from experiments.nesterov_pipeline.config import GPIPE, GPIPE_IN_TIME, Preset


class Entrants(NamedTuple):
    """Methods that share a problem and a timeline.

    Attributes:
      num_stages: of the pipeline.
      methods: from a learning rate to an optimizer, by name.
      timeline: of one row per update.
    """

    num_stages: int
    methods: Mapping[str, Callable[[float], Any]]
    timeline: ao.Timeline


def entrants(preset: Preset) -> Iterator[Entrants]:
    """Yields who is compared; what GPipe makes of the updates does not depend on the stages."""
    n = preset.num_updates
    for i, num_stages in enumerate(preset.all_num_stages):
        synchronous = {
            "num_micro_batches": preset.num_micro_batches,
            "synchronous": True,
            "whole_batches": True,
        }
        yield Entrants(num_stages, config.methods(n), ao.pipeline.timeline(num_stages, n))
        fewer = preset.gpipe_updates(num_stages)
        in_time = ao.pipeline.timeline(num_stages, fewer, **synchronous)
        yield Entrants(num_stages, {GPIPE_IN_TIME: config.gpipe(fewer)}, in_time)
        if i == 0:
            in_full = ao.pipeline.timeline(num_stages, n, **synchronous)
            yield Entrants(num_stages, {GPIPE: config.gpipe(n)}, in_full)


def measure(preset: Preset, done: Callable[[str], None]) -> list[dict[str, Any]]:
    """Returns a row per number of stages and method; says what is done."""
    rows = []
    for group in entrants(preset):
        problem = config.make_problem(preset, group.num_stages)
        tuned = _sweep(preset, problem, group, preset.seeds[:1], preset.learning_rates)
        finals = ao.sweeps.final(tuned, "perplexity").isel(timeline=0, seed=0)
        for name, make in group.methods.items():
            by_rate = _or_infinite(finals.sel(optimizer=name).values)
            rate = preset.learning_rates[int(np.argmin(by_rate))]
            first = tuned.sel(optimizer=[name], learning_rate=[rate])
            only = group._replace(methods={name: make})
            others = _sweep(preset, problem, only, preset.seeds[1:], [rate])
            both = xarray.concat([first, others], dim="seed", data_vars="all", join="outer")
            rows.append(_row(preset, group, name, rate, by_rate, both))
            done(f"{group.num_stages} stages, {name}: {rows[-1]['perplexity']}")
    return rows


def measure_momenta(preset: Preset, done: Callable[[str], None]) -> list[dict[str, Any]]:
    """Returns a row per method and b1, on the first seed, each at its best learning rate."""
    num_stages, rows = max(preset.all_num_stages), []
    problem = config.make_problem(preset, num_stages)
    for group in entrants(preset):
        if group.num_stages != num_stages or GPIPE in group.methods:
            continue
        n = group.timeline.num_commits
        methods = config.with_momenta(n)
        if GPIPE_IN_TIME in group.methods:
            methods = {GPIPE_IN_TIME: config.gpipe_with_momentum(n)}
        group = group._replace(methods=methods)
        tuned = _sweep(
            preset, problem, group, preset.seeds[:1], preset.learning_rates, b1=preset.momenta
        )
        finals = ao.sweeps.final(tuned, "perplexity").isel(timeline=0, seed=0)
        for name in group.methods:
            for b1 in preset.momenta:
                by_rate = _or_infinite(finals.sel(optimizer=name, b1=b1).values)
                best = int(np.argmin(by_rate))
                row = {"num_stages": num_stages, "method": name, "b1": b1}
                row |= {"learning_rate": preset.learning_rates[best]}
                rows.append(row | {"perplexity": _plain(by_rate)[best]})
                done(f"{name}, b1 {b1:g}: {rows[-1]['perplexity']}")
    return rows


def _sweep(
    preset: Preset, problem: ao.Problem, group: Entrants, seeds: Any, rates: Any, **grid: Any
) -> xarray.Dataset:
    return ao.sweep(
        problem,
        group.methods,
        {"pipeline": group.timeline},
        seeds=seeds,
        grid={"learning_rate": rates, **grid},
        worker=ao.pipeline.gradient(),
        evaluate_every=max(group.timeline.num_commits // preset.num_evaluations, 1),
        strategy=preset.strategy,
    )


def _row(
    preset: Preset,
    group: Entrants,
    name: str,
    rate: float,
    by_rate: np.ndarray,
    runs: xarray.Dataset,
) -> dict[str, Any]:
    curves = runs["perplexity"].isel(optimizer=0, timeline=0, learning_rate=0)
    curves = curves.transpose("seed", "evaluation").values
    place = {"timeline": 0, "seed": 0}
    finals = curves[:, -1]
    is_finite = bool(np.isfinite(finals).all())
    return {
        "num_stages": group.num_stages,
        "method": name,
        "num_updates": group.timeline.num_commits,
        "end_time": group.timeline.end_time,
        "learning_rate": rate,
        "at_grid_edge": rate in (preset.learning_rates[0], preset.learning_rates[-1]),
        "perplexity": float(finals.mean()) if is_finite else None,
        "spread": float(finals.std(ddof=1)) if is_finite else None,
        "by_seed": _plain(finals),
        "by_rate": _plain(by_rate),
        "updates": runs["version"].isel(place).values.tolist(),
        "times": runs["time"].isel(place).values.tolist(),
        "curves": [_plain(curve) for curve in curves],
    }


def _or_infinite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.inf)


def _plain(values: np.ndarray) -> list[float | None]:
    """Numbers for JSON; ``None`` where a run has diverged."""
    return [float(value) if np.isfinite(value) else None for value in values]
