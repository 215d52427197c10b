"""When a simulation ends: after so many commits, or at a time."""

import numpy as np

from async_optax.validation import require_count, require_number


def require_horizon(num_commits: int | None, max_time: float | None) -> float:
    """Returns the time at which to stop at the latest: ``max_time``, or infinity.

    Raises:
      TypeError: if what is given is no number.
      ValueError: if not exactly one is given, or it is out of range.

    Example:
      >>> require_horizon(num_commits=None, max_time=20)
      20.0
    """
    if (num_commits is None) == (max_time is None):
        raise ValueError(
            "give exactly one of num_commits and max_time, "
            f"got num_commits={num_commits} and max_time={max_time}"
        )
    if max_time is None:
        require_count("num_commits", num_commits)
        return np.inf
    require_number("max_time", max_time, above=0)
    return float(max_time)
