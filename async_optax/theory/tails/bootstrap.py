"""Intervals for what is estimated from samples, by drawing the samples anew."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from async_optax.theory.tails.samples import as_samples
from async_optax.validation import require_count, require_number, require_seed


@dataclasses.dataclass(frozen=True)
class Interval:
    """An interval.

    Attributes:
      low: its lower end.
      high: its upper end.
    """

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        """Whether a value lies in it, ends included."""
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:.3g} to {self.high:.3g}"


def bootstrap_interval(
    statistic: Callable[[np.ndarray], float],
    samples: Any,
    *,
    level: float = 0.95,
    num_draws: int = 100,
    seed: int = 0,
) -> Interval:
    """Returns the percentile interval of a statistic.

    ``num_draws`` times, as many rows as there are are drawn with replacement; the interval holds
    the middle ``level`` of what the statistic makes of them. Rows are what is independent: of
    coordinates ``[num_gradients, num_coordinates]`` whole gradients are drawn.

    Args:
      statistic: maps samples to a number.
      samples: real numbers, independent along the first axis.
      level: in (0, 1).
      num_draws: >= 20.
      seed: an integer >= 0.

    Returns:
      The interval.

    Raises:
      TypeError: if ``samples`` are not real numbers.
      ValueError: if a number is out of range.

    Example:
      >>> import numpy as np
      >>> samples = np.random.default_rng(0).standard_normal(400)
      >>> str(bootstrap_interval(np.mean, samples))
      '-0.155 to 0.0359'

    References:
      Efron, `Bootstrap Methods <https://doi.org/10.1214/aos/1176344552>`_, 1979.
    """
    rows = as_samples(samples)
    require_number("level", level, above=0, below=1)
    require_count("num_draws", num_draws, at_least=20)
    require_seed(seed)
    rng = np.random.Generator(np.random.PCG64(seed))
    values = [statistic(rows[rng.integers(0, len(rows), len(rows))]) for _ in range(num_draws)]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
