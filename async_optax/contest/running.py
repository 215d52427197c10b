"""Running a contest: every entrant at every learning rate and seed."""

import contextlib
import functools
from collections.abc import Callable

import jax
import numpy as np

from async_optax import optimizers
from async_optax.contest.setting import Contest
from async_optax.contest.standing import Run, Standing, standings
from async_optax.engine import simulate
from async_optax.sweeps.pool import Advance, available_cores, run_jobs

_Cell = tuple[int, float, int]  # index of the entrant, learning rate, seed


def run_contest(
    contest: Contest, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Standing]:
    """Runs all entrants at all learning rates and seeds.

    Entrants under one protocol share its timeline; all share batches and noise by job. Runs
    go one by one through as many threads as there are cores, with one lane each.

    Args:
      contest: the setting.
      progress: called with the number of runs done and in all.

    Returns:
      One standing per entrant, in their order.

    Raises:
      ValueError: if the setting is not valid.
    """
    contest.check()
    protocols = {entrant.protocol for entrant in contest.entrants}
    timelines = {
        (protocol, seed): contest.timeline(protocol, seed)
        for protocol in protocols
        for seed in contest.seeds
    }
    cells = [
        (entrant, learning_rate, seed)
        for entrant in range(len(contest.entrants))
        for learning_rate in contest.learning_rates
        for seed in contest.seeds
    ]
    progress(0, len(cells))
    evaluate_at = np.linspace(0, contest.max_time, contest.num_evaluations + 1).tolist()

    def run(cell: _Cell, advance: Advance) -> tuple[_Cell, Run]:
        entrant, learning_rate, seed = contest.entrants[cell[0]], *cell[1:]
        result = simulate(
            contest.problem,
            optimizers.make(entrant.method, learning_rate=learning_rate, **entrant.arguments),
            timelines[entrant.protocol, seed],
            key=jax.random.key(seed),
            lanes=1,
            evaluate_at=evaluate_at,
            progress=lambda done, _: advance(done),
        )
        return cell, Run(
            seed=seed,
            time=result.evaluations["time"],
            accuracy=result.evaluations["accuracy"],
            time_to_target=None if result.diverged else result.time_to("accuracy", contest.target),
            diverged=result.diverged,
        )

    runs: dict[_Cell, Run] = {}
    jobs = [functools.partial(run, cell) for cell in cells]
    ended = run_jobs(jobs, available_cores(), report=lambda num_arrivals: None)
    with contextlib.closing(ended):
        for cell, outcome in ended:
            runs[cell] = outcome
            progress(len(runs), len(cells))
    return standings(contest, runs)
