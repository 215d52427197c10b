"""Checks of what the theory is asked about: steps, staleness, momentum, kernels."""

from typing import Any

import numpy as np

from async_optax.timelines import Timeline
from async_optax.validation import require_number, require_staleness


def checked_numbers(name: str, values: Any, **bounds: float) -> np.ndarray:
    """Returns finite numbers within bounds as float64.

    Args:
      name: the argument's name, for the message.
      values: a number or an array-like of numbers.
      **bounds: of :func:`async_optax.validation.require_number`.

    Raises:
      TypeError: if they are not real numbers.
      ValueError: if one is not finite or out of bounds.

    Example:
      >>> checked_numbers("step", [0.5, 1], at_least=0)
      array([0.5, 1. ])
    """
    numbers = np.asarray(values)
    require_number(name, numbers if numbers.shape else values, scalar=False, **bounds)
    return numbers.astype(np.float64)


def checked_row(name: str, values: Any, **bounds: float) -> np.ndarray:
    """As :func:`checked_numbers`, but raises ``ValueError`` unless there is one row of some."""
    numbers = checked_numbers(name, values, **bounds)
    if numbers.ndim != 1 or not numbers.size:
        raise ValueError(f"{name} must be one row of numbers, got shape {numbers.shape}")
    return numbers


def checked_staleness(staleness: Any) -> np.ndarray:
    """Returns staleness as float64; raises unless all are integers >= 0."""
    values = np.asarray(staleness)
    if values.dtype.kind not in "iu":
        raise TypeError(f"staleness must be an integer >= 0, got {staleness!r}")
    require_staleness(values)
    return values.astype(np.float64)


def checked_momentum(momentum: Any) -> np.ndarray:
    """Returns momentum as float64; raises unless all are in [0, 1)."""
    return checked_numbers("momentum", momentum, at_least=0, below=1)


def checked_kernel(kernel: Any) -> np.ndarray:
    """Returns a staleness kernel as float64, cut after its last entry that is not 0.

    Raises:
      TypeError: if it is not made of numbers.
      ValueError: if it is not one row of finite numbers >= 0, or all of them are 0.
    """
    weights = checked_row("kernel", kernel, at_least=0)
    if not weights.any():
        raise ValueError("kernel must have an entry > 0, got only zeros")
    return weights[: np.flatnonzero(weights)[-1] + 1]


def require_timeline(timeline: Any) -> None:
    """Raises ``TypeError`` unless it is a timeline."""
    if not isinstance(timeline, Timeline):
        raise TypeError(f"timeline must be an async_optax.Timeline, got {type(timeline).__name__}")


def as_number(values: np.ndarray) -> Any:
    """Returns a Python number for an array without dimensions, and any other array as it is."""
    return values.item() if values.ndim == 0 else values
