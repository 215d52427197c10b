"""How heavy the tails of gradient noise are."""

from async_optax.theory.tails.bootstrap import Interval, bootstrap_interval
from async_optax.theory.tails.extreme_value import extreme_value_index
from async_optax.theory.tails.gradient_noise import (
    GradientNoise,
    gradient_noise,
    gradient_noise_along_run,
    train,
)
from async_optax.theory.tails.hill import HillPlot, hill_index, hill_plot
from async_optax.theory.tails.log_log_moments import log_log_moment_index
from async_optax.theory.tails.sub_weibull import SubWeibull, fit_sub_weibull
from async_optax.theory.tails.verdict import TailReport, judge_tail

__all__ = [
    "GradientNoise",
    "HillPlot",
    "Interval",
    "SubWeibull",
    "TailReport",
    "bootstrap_interval",
    "extreme_value_index",
    "fit_sub_weibull",
    "gradient_noise",
    "gradient_noise_along_run",
    "hill_index",
    "hill_plot",
    "judge_tail",
    "log_log_moment_index",
    "train",
]
