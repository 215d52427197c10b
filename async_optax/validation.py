"""Checks of arguments: concrete values only, since a number may be a tracer."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def require_number(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    scalar: bool = True,
) -> None:
    """Raises unless ``value`` is a finite number within the bounds given.

    Args:
      name: the argument's name, for the message.
      value: a number or array; tracers pass unseen.
      above: exclusive lower bound.
      at_least: inclusive lower bound.
      at_most: inclusive upper bound.
      below: exclusive upper bound.
      scalar: whether arrays of more than no dimensions are refused.

    Raises:
      TypeError: if ``value`` is not a real number.
      ValueError: if it is NaN, infinite, out of bounds, or an array where a scalar is due.

    Example:
      >>> require_number("learning_rate", -1.0, above=0)
      Traceback (most recent call last):
      ...
      ValueError: learning_rate must be a finite number > 0, got -1.0
    """
    if isinstance(value, jax.core.Tracer):
        return
    bounds = [
        f"{sign} {bound}"
        for sign, bound in ((">", above), (">=", at_least), ("<=", at_most), ("<", below))
        if bound is not None
    ]
    allowed = " ".join(["a finite number", " and ".join(bounds)]).strip()
    kind = getattr(value, "dtype", None)
    numeric = isinstance(value, int | float) if kind is None else kind.kind not in "bOUSMmc"
    if isinstance(value, bool) or not numeric:
        raise TypeError(f"{name} must be {allowed}, got {value!r} of type {type(value).__name__}")
    if scalar and np.shape(value):
        raise ValueError(f"{name} must be {allowed}, got an array of shape {np.shape(value)}")
    # ml_dtypes such as bfloat16 are widened first: NumPy cannot compare all of them.
    numbers = np.asarray(value).astype(np.float64)
    inside = np.isfinite(numbers)
    if above is not None:
        inside &= numbers > above
    if at_least is not None:
        inside &= numbers >= at_least
    if at_most is not None:
        inside &= numbers <= at_most
    if below is not None:
        inside &= numbers < below
    if not inside.all():
        raise ValueError(f"{name} must be {allowed}, got {value}")


def require_seed(seed: Any) -> None:
    """Raises unless ``seed`` is an integer in [0, 2**31), where generators tell seeds apart."""
    require_count("seed", seed, at_least=0)
    if seed >= 2**31:
        raise ValueError(f"seed must be an integer >= 0 and < 2**31, got {seed}")


def require_count(name: str, value: Any, *, at_least: int = 1) -> None:
    """Raises unless ``value`` is an integer of at least ``at_least``.

    Raises:
      TypeError: if ``value`` is not an integer.
      ValueError: if it is too small.

    Example:
      >>> require_count("num_workers", 0)
      Traceback (most recent call last):
      ...
      ValueError: num_workers must be an integer >= 1, got 0
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(
            f"{name} must be an integer >= {at_least}, got {value!r} of type {type(value).__name__}"
        )
    if value < at_least:
        raise ValueError(f"{name} must be an integer >= {at_least}, got {value}")


def require_choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raises unless ``value`` is one of the strings ``allowed``.

    Example:
      >>> require_choice("order", "last", ("first", "second"))
      Traceback (most recent call last):
      ...
      ValueError: order must be one of first, second; got 'last'
    """
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")


def require_learning_rate(learning_rate: Any, name: str = "learning_rate") -> None:
    """Raises unless ``learning_rate`` is a schedule, a tracer or a finite number > 0."""
    if not callable(learning_rate):
        require_number(name, learning_rate, above=0)


def first_line(error: BaseException) -> str:
    r"""Returns what an error says first: the first line of its message that is not empty.

    Example:
      >>> first_line(ValueError("\n  no such row\nin the table"))
      'no such row'
      >>> first_line(ZeroDivisionError())
      'ZeroDivisionError()'
    """
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), repr(error))


def require_staleness(staleness: Any) -> None:
    """Raises unless ``staleness`` is an integer >= 0 (the sign is checked when concrete).

    Raises:
      TypeError: if the dtype is not an integer, traced or not.
      ValueError: if a concrete value is negative.

    Example:
      >>> require_staleness(-1)
      Traceback (most recent call last):
      ...
      ValueError: staleness must be an integer >= 0, got -1
    """
    dtype = jnp.result_type(staleness)
    if not jnp.issubdtype(dtype, jnp.integer):
        raise TypeError(f"staleness must be an integer >= 0 (int32), got dtype {dtype}")
    if not isinstance(staleness, jax.core.Tracer) and np.min(np.asarray(staleness)) < 0:
        raise ValueError(f"staleness must be an integer >= 0, got {np.min(staleness)}")
