"""Advice before a run: which method, protocol, clip and learning rate, and why."""

from async_optax.advice.advisor import Advice, Reason, advise
from async_optax.advice.clips import Clip, choose_clip
from async_optax.advice.measuring import Measured, Rung, measure_problem
from async_optax.advice.progress_curve import ProgressCurve, fit_progress_curve
from async_optax.advice.rates import (
    Drive,
    RateAdvice,
    advise_rate,
    expected_losses,
    largest_rate,
    time_to_match,
)
from async_optax.advice.settings import ProtocolAdvice, advise_protocol

__all__ = [
    "Advice",
    "Clip",
    "Drive",
    "Measured",
    "ProgressCurve",
    "ProtocolAdvice",
    "RateAdvice",
    "Reason",
    "Rung",
    "advise",
    "advise_protocol",
    "advise_rate",
    "choose_clip",
    "expected_losses",
    "fit_progress_curve",
    "largest_rate",
    "measure_problem",
    "time_to_match",
]
