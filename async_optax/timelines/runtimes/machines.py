"""Machines of different speeds, by rule."""

import numpy as np

from async_optax.timelines.runtimes.laws import deterministic
from async_optax.timelines.runtimes.model import RuntimeModel, require_law
from async_optax.validation import require_number


def two_speed(
    slow_factor: float,
    *,
    slow_fraction: float = 0.5,
    fast_time: float = 1.0,
    law: RuntimeModel | None = None,
) -> RuntimeModel:
    """Some workers are slower than the others by a constant factor.

    The first workers take ``fast_time`` per job, the last ``round(slow_fraction * n)`` of the
    n workers ``slow_factor * fast_time``; with a ``law``, these are scales of random times.

    Args:
      slow_factor: D >= 1.
      slow_fraction: share of slow workers, in [0, 1].
      fast_time: time unit of the fast workers, > 0.
      law: a model whose job times multiply the scale, such as ``exponential()``; its own
        machine scales are not used. ``None`` is deterministic.

    Returns:
      A runtime model.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> times = two_speed(8.0).job_times(num_workers=4, seed=0)
      >>> [next(t) for t in times]
      [1.0, 1.0, 8.0, 8.0]

    References:
      The straggler model of Erickson, Johansson, `Clipping Makes Distributed and Federated
      Asynchronous SGD Robust to Stragglers <https://arxiv.org/abs/2606.13287>`_, 2026.
    """
    require_number("slow_factor", slow_factor, at_least=1)
    require_number("slow_fraction", slow_fraction, at_least=0, at_most=1)
    require_number("fast_time", fast_time, above=0)
    if law is not None:
        require_law("law", law)

    def machine_scales(draws: np.ndarray) -> np.ndarray:
        slow = np.arange(len(draws)) >= len(draws) - round(slow_fraction * len(draws))
        return np.where(slow, slow_factor * fast_time, fast_time)

    name = f"two_speed({slow_factor:g}, slow_fraction={slow_fraction:g}, fast_time={fast_time:g}"
    name += f", law={law.name})" if law else ")"
    return RuntimeModel(name, machine_scales, (law or deterministic()).quantile)


def power_law(
    exponent: float, *, fast_time: float = 1.0, law: RuntimeModel | None = None
) -> RuntimeModel:
    """Worker i of 1, 2, ... takes ``fast_time * i ** exponent`` per job.

    Args:
      exponent: 0 is equal speeds, 0.5 the square roots and 1 the linear times of the literature.
      fast_time: time of the first worker, > 0.
      law: a model whose job times multiply the scale; its own machine scales are not used.
        ``None`` is deterministic.

    Returns:
      A runtime model.

    Raises:
      TypeError: if ``law`` is not a runtime model.
      ValueError: if a number is out of range.

    Example:
      >>> [next(t) for t in power_law(0.5).job_times(num_workers=4, seed=0)][::3]
      [1.0, 2.0]

    References:
      Maranjyan, Tyurin, Richtarik, `Ringmaster ASGD <https://arxiv.org/abs/2501.16168>`_, 2025.
    """
    require_number("exponent", exponent, at_least=0)
    require_number("fast_time", fast_time, above=0)
    if law is not None:
        require_law("law", law)
    shown = f", law={law.name})" if law else ")"
    return RuntimeModel(
        f"power_law({exponent:g}, fast_time={fast_time:g}{shown}",
        lambda draws: fast_time * np.arange(1.0, len(draws) + 1) ** exponent,
        (law or deterministic()).quantile,
    )
