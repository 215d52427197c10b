"""Running the modes: the same batches and compute times for all of them."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
import optax

from async_optax import optimizers
from async_optax.engine import Problem, simulate
from experiments.gba.config import (
    ASYNCHRONOUS,
    GBA_SWITCHING,
    MODES,
    SYNCHRONOUS,
    Mode,
    Setting,
)
from experiments.gba.log_order import GradientOfTheDay, read_in_order
from experiments.gba.schedule import time_of_day, timeline_of

Progress = Callable[[], None]
_SLACK = 1e-9


def is_table(path: str) -> bool:
    """Whether a parameter is a table of embeddings."""
    return path.startswith("tables/")


# What happens to rows of tables: as in the comparison of modes, and what it does otherwise.
PER_ID_LAZY = "per ID, lazy"
ROW_RULES: dict[str, dict[str, Any]] = {
    PER_ID_LAZY: {"per_row": is_table, "lazy": True},
    "per ID": {"per_row": is_table},
    "like the rest": {},
}


def optimizer_of(
    setting: Setting, learning_rate: float, rows: str = PER_ID_LAZY
) -> optax.GradientTransformation:
    """Returns the one optimizer of all modes: Adam on global batches."""
    # What is too old is dropped by the protocol.
    method = optimizers.gba(learning_rate, None, optax.adam, **ROW_RULES[rows])
    return read_in_order(method, setting.arrivals_per_day)


def run_once(
    problem: Problem,
    setting: Setting,
    mode: Mode,
    learning_rate: float,
    seed: int,
    rows: str = PER_ID_LAZY,
) -> dict[str, Any]:
    """Trains on the whole log once.

    Returns:
      ``day``, ``time``, ``auc`` and ``loss`` of the evaluations, on clicks of the day that is
      under way (at its beginning: of the day to come); and how fast it went.
    """
    timeline, per_day = timeline_of(mode, setting, seed), setting.arrivals_per_day
    number = setting.num_days * setting.evaluations_per_day
    days = np.arange(number + 1) / setting.evaluations_per_day
    times = time_of_day(timeline, per_day, days)
    result = simulate(
        problem,
        optimizer_of(setting, learning_rate, rows),
        timeline,
        key=jax.random.key(seed),
        worker=GradientOfTheDay(),
        lanes=1,
        evaluate_at=times.tolist(),
    )
    if result.diverged:
        raise RuntimeError(f"{mode.name} at rate {learning_rate:g}, seed {seed}: {result.diverged}")
    table = result.evaluations
    places = np.searchsorted(table["time"], times)
    under_way = np.floor(days + _SLACK).astype(int)
    from_day, to_day = time_of_day(timeline, per_day, np.array(setting.switches, float))
    days_between = setting.switches[1] - setting.switches[0]
    accepted = timeline.accepted
    return {
        "day": days.tolist(),
        "time": times.tolist(),
        "auc": [float(table[f"auc_day_{d}"][i]) for d, i in zip(under_way, places, strict=True)],
        "loss": [float(table[f"loss_day_{d}"][i]) for d, i in zip(under_way, places, strict=True)],
        "samples_per_time": float(accepted.sum() * setting.batch_size / timeline.end_time),
        "samples_per_time_between": float(
            days_between * per_day * setting.batch_size / (to_day - from_day)
        ),
        "dropped": float(np.mean(~accepted | (timeline.weight == 0))),
        "mean_staleness": float(timeline.staleness[accepted].mean()),
        "commits": timeline.num_commits,
    }


def _runs(
    problem: Problem,
    setting: Setting,
    cells: Sequence[tuple[Mode, float]],
    threads: int,
    progress: Progress,
    rows: str = PER_ID_LAZY,
) -> list[list[dict[str, Any]]]:
    """Returns for each cell its runs, one per seed."""

    def run(job: tuple[Mode, float, int]) -> dict[str, Any]:
        outcome = run_once(problem, setting, *job, rows)
        progress()
        return outcome

    jobs = [(*cell, seed) for cell in cells for seed in setting.seeds]
    with ThreadPoolExecutor(threads) as pool:
        outcomes = list(pool.map(run, jobs))
    length = len(setting.seeds)
    return [outcomes[i : i + length] for i in range(0, len(jobs), length)]


def next_day_auc(setting: Setting, run: dict[str, Any]) -> float:
    """Returns the mean AUC on the next day, from the first switch on."""
    return float(np.mean([run["auc"][row] for row in day_rows(setting, setting.switches[0])]))


def day_rows(setting: Setting, first_day: int) -> range:
    """Returns the rows of evaluations at the beginnings of days, the end of the log included."""
    each = setting.evaluations_per_day
    return range(first_day * each, setting.num_days * each + 1, each)


def num_runs(setting: Setting) -> int:
    """Returns the number of runs."""
    tuning = 2 * len(setting.learning_rates)
    cells = tuning + len(MODES) - 2 + 2 * (len(ROW_RULES) - 1) + 1
    return cells * len(setting.seeds)


def tune(
    problem: Problem, setting: Setting, mode: Mode, threads: int, progress: Progress
) -> dict[str, Any]:
    """Returns a mode's runs at all learning rates, and the rate of the best mean AUC."""
    rates = list(setting.learning_rates)
    runs = _runs(problem, setting, [(mode, rate) for rate in rates], threads, progress)
    aucs = [[next_day_auc(setting, run) for run in at_rate] for at_rate in runs]
    best = int(np.argmax(np.mean(aucs, axis=1)))
    return {
        "learning_rates": rates,
        "auc": aucs,
        "learning_rate": rates[best],
        "at_grid_edge": best in (0, len(rates) - 1),
        "runs": runs[best],
        "all_runs": dict(zip(rates, runs, strict=True)),
    }


def measure(setting: Setting, threads: int, progress: Progress) -> dict[str, Any]:
    """Runs everything.

    Args:
      setting: what and how.
      threads: runs at a time.
      progress: called after each run.

    Returns:
      ``tuning`` of synchronous and of asynchronous training; ``modes``, the runs of each mode at
      the learning rate of synchronous training; ``retuned``, asynchronous training at its own; and
      ``by_rows``, two modes under each rule for rows of tables; and ``never_stale``, one worker
      that commits every gradient.
    """
    problem = setting.problem()
    modes = {mode.name: mode for mode in MODES}
    for mode in MODES:
        for seed in setting.seeds:
            timeline_of(mode, setting, seed)
    tuned = {
        name: tune(problem, setting, modes[name], threads, progress)
        for name in (SYNCHRONOUS, ASYNCHRONOUS)
    }
    rate = tuned[SYNCHRONOUS]["learning_rate"]
    runs = {name: tuning["all_runs"][rate] for name, tuning in tuned.items()}
    others = [mode for mode in MODES if mode.name not in runs]
    found = _runs(problem, setting, [(mode, rate) for mode in others], threads, progress)
    runs |= {mode.name: outcome for mode, outcome in zip(others, found, strict=True)}
    judged = [modes[SYNCHRONOUS], modes[GBA_SWITCHING]]
    by_rows = {PER_ID_LAZY: {mode.name: runs[mode.name] for mode in judged}}
    for rows in list(ROW_RULES)[1:]:
        cells = [(mode, rate) for mode in judged]
        found = _runs(problem, setting, cells, threads, progress, rows)
        by_rows[rows] = {mode.name: outcome for mode, outcome in zip(judged, found, strict=True)}
    alone = dataclasses.replace(setting, num_workers=1)
    (never_stale,) = _runs(problem, alone, [(modes[ASYNCHRONOUS], rate)], threads, progress)
    kept = ("learning_rates", "auc", "learning_rate", "at_grid_edge")
    return {
        "learning_rate": rate,
        "tuning": {name: {k: tuning[k] for k in kept} for name, tuning in tuned.items()},
        "modes": {mode.name: runs[mode.name] for mode in MODES},
        "retuned": tuned[ASYNCHRONOUS]["runs"],
        "by_rows": by_rows,
        "never_stale": never_stale,
    }


@functools.cache
def described(setting: Setting) -> dict[str, Any]:
    """Returns the numbers of a setting, for the summary."""
    fields = {f.name: getattr(setting, f.name) for f in dataclasses.fields(setting)}
    fields["runtimes"] = setting.runtimes.name
    fields["seeds"], fields["switches"] = list(setting.seeds), list(setting.switches)
    fields["learning_rates"] = list(setting.learning_rates)
    del fields["problem"]
    return fields
