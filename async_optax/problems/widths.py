"""Checks of the widths of hidden layers."""

from collections.abc import Sequence
from typing import Any

from async_optax.validation import require_count


def require_widths(hidden: Any) -> None:
    """Raises unless ``hidden`` is a sequence of integers >= 1.

    Example:
      >>> require_widths(32)
      Traceback (most recent call last):
      ...
      TypeError: hidden must be a sequence of widths such as (32,), got 32
    """
    if isinstance(hidden, str) or not isinstance(hidden, Sequence):
        raise TypeError(f"hidden must be a sequence of widths such as (32,), got {hidden!r}")
    for width in hidden:
        require_count("hidden", width)
