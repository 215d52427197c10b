"""What a curve of accuracies says: where it ends, and when it first reaches a target."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_LAST = 0.1  # of the evaluations: what a run ends at is their mean


def ending(accuracy: Sequence[float] | np.ndarray) -> Any:
    """Returns the mean over the last tenth of the evaluations, the last axis.

    Example:
      >>> ending([0.1] * 19 + [0.5, 0.75])
      0.625
    """
    curve = np.asarray(accuracy)
    last = max(1, round(_LAST * (curve.shape[-1] - 1)))
    found = curve[..., -last:].mean(-1)
    return float(found) if curve.ndim == 1 else found


def times_to(
    accuracy: Sequence[Any] | np.ndarray, times: Sequence[float], target: float
) -> np.ndarray:
    """Returns the time of the first evaluation at the target or above; infinite if there is none.

    Args:
      accuracy: ``[..., num_evaluations]``.
      times: ``[num_evaluations]``.
      target: an accuracy.

    Example:
      >>> print(times_to([[0.1, 0.6, 0.5], [0.1, 0.2, 0.3]], [0, 8, 16], 0.5))
      [ 8. inf]
    """
    reached = np.asarray(accuracy) >= target
    return np.where(reached.any(-1), np.asarray(times, float)[reached.argmax(-1)], np.inf)


def mean_time(reached: np.ndarray, horizon: float) -> Any:
    """Returns the mean over seeds, the last axis; where the target is never reached, the horizon.

    That is in favour of who never gets there.

    Example:
      >>> float(mean_time(np.array([8.0, np.inf]), 24.0))
      16.0
    """
    return np.minimum(reached, horizon).mean(-1)


def best_rate(measured: Mapping[str, Any]) -> int:
    """Returns the index of the learning rate with the best end, a mean over the tuning seeds."""
    return int(np.argmax(ending(np.array(measured["accuracy"])).mean(1)))


def fastest_rate(measured: Mapping[str, Any], times: Sequence[float], target: float) -> int:
    """Returns the index of the learning rate that is first at a target, a mean over tuning seeds.

    Of those that are equally fast, or never get there, it is the one that ends best.
    """
    accuracy = np.array(measured["accuracy"])
    means = mean_time(times_to(accuracy, times, target), times[-1])
    return int(np.lexsort((-ending(accuracy).mean(1), means))[0])
