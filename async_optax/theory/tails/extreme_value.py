"""The extreme value index by the moment estimator: it can also say that a tail is light."""

from typing import Any

import numpy as np

from async_optax.theory.tails.samples import sizes_of
from async_optax.validation import require_count


def extreme_value_index(samples: Any, num_largest: int) -> float:
    """Returns the moment estimate of the extreme value index g.

    With the magnitudes ``x_1 >= x_2 >= ...``, k = ``num_largest`` and
    ``M_j = mean over i <= k of (log(x_i) - log(x_{k+1}))**j``::

        g = M_1 + 1 - (1 / 2) / (1 - M_1**2 / M_2)

    A tail ``t**-index`` has g = 1 / index; tails lighter than any power (Gaussian, Weibull) have
    g = 0, bounded laws g < 0. The variance is infinite for g of 1/2 and above. Unlike Hill's
    estimate, it does not suppose that the tail is a power.

    Args:
      samples: real numbers of any shape, whose magnitudes are taken; zeros are left out.
      num_largest: k >= 2.

    Returns:
      g, any real number. Its standard error is ``sqrt(1 + g**2) / sqrt(k)`` for g >= 0.

    Raises:
      TypeError: if ``samples`` are not real numbers.
      ValueError: if there are too few, or the k largest are all equal.

    Example:
      >>> import numpy as np
      >>> uniforms = np.random.default_rng(0).random(100_000)
      >>> round(extreme_value_index(uniforms ** (-1 / 2.0), 5000), 1)  # Pareto, index 2
      0.5
      >>> round(extreme_value_index(-np.log(uniforms), 5000), 1)  # exponential: tends to 0
      0.1

    References:
      Dekkers, Einmahl, de Haan, `A Moment Estimator for the Index of an Extreme-Value Distribution
      <https://doi.org/10.1214/aos/1176347397>`_, 1989. Certainty: our reading.
    """
    require_count("num_largest", num_largest, at_least=2)
    logs = np.log(sizes_of(samples, num_largest + 1)[: num_largest + 1])
    excess = logs[:-1] - logs[-1]
    first, second = excess.mean(), np.square(excess).mean()
    if first**2 >= second:
        raise ValueError(f"the {num_largest} largest samples must differ, got {np.exp(logs[0]):g}")
    return float(first + 1 - 0.5 / (1 - first**2 / second))
