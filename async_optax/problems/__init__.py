"""Ready-made problems on embedded data."""

from async_optax.problems.attention import attention
from async_optax.problems.auc import auc
from async_optax.problems.click_logs import Clicks, click_logs, click_loss, evaluate_days, ideal_auc
from async_optax.problems.deep_fm import deep_fm_logits, init_deep_fm
from async_optax.problems.digits import digits

__all__ = [
    "Clicks",
    "attention",
    "auc",
    "click_logs",
    "click_loss",
    "deep_fm_logits",
    "digits",
    "evaluate_days",
    "ideal_auc",
    "init_deep_fm",
]
