"""Contests of methods and protocols on one problem, over learning rates and seeds."""

from async_optax.contest.running import run_contest
from async_optax.contest.setting import Contest, Entrant
from async_optax.contest.standing import Run, Standing, mean_time_to_target

__all__ = ["Contest", "Entrant", "Run", "Standing", "mean_time_to_target", "run_contest"]
