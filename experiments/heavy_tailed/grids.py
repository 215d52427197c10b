"""Grids of learning rates that go on until the best is no edge."""

from collections.abc import Callable, Sequence

import numpy as np

from experiments.heavy_tailed.config import NEAR

MOST = 9


def tune(accuracy: Callable[[int], float], scan: Sequence[int], furthest: int) -> int:
    """Finds a good exponent of the learning rate.

    Those of ``scan`` are tried, then those further out while the best is the outermost.

    Args:
      accuracy: of a run at an exponent of 2.
      scan: increasing exponents, evenly spaced.
      furthest: exponents from ``-furthest`` to ``furthest`` are tried.

    Example:
      >>> tune(lambda k: -abs(k - 6), (-2, 0, 2), 8)
      6
    """
    found = {k: accuracy(k) for k in scan}
    stride = scan[1] - scan[0] if len(scan) > 1 else 1
    while True:
        best = max(found, key=lambda k: found[k])
        beyond = {min(found): min(found) - stride, max(found): max(found) + stride}.get(best)
        if beyond is None or abs(beyond) > furthest:
            return best
        found[beyond] = accuracy(beyond)


def around(accuracy: Callable[[int], float], start: int, furthest: int) -> list[int]:
    """Returns exponents without gaps, from below the best to above it, as far as they are good.

    The range grows from ``start`` until both ends are more than two points (``NEAR``) below the
    best, or ``furthest`` from 0, or there are ``MOST``: where nothing is learnt, all are alike.

    Args:
      accuracy: mean over seeds at an exponent.
      start: where it begins.
      furthest: as of :func:`tune`.

    Example:
      >>> around(lambda k: 0.9 - 0.015 * abs(k - 1), 0, 8)
      [-1, 0, 1, 2, 3]
    """
    found = {start: accuracy(start)}
    while True:
        best = max(found.values())
        ends = [
            (end, end + side)
            for end, side in ((min(found), -1), (max(found), 1))
            if found[end] >= best - NEAR and abs(end + side) <= furthest
        ]
        if not ends or len(found) >= MOST:
            return sorted(found)
        for _, beyond in ends:
            found[beyond] = accuracy(beyond)


def num_near(accuracies: Sequence[float]) -> int:
    """Returns how many learning rates beside each other, the best one among them, are good.

    Example:
      >>> num_near([0.5, 0.89, 0.9, 0.885, 0.8, 0.89])
      3
    """
    values = np.asarray(accuracies)
    best = int(np.argmax(values))
    good = values >= values[best] - NEAR
    first = last = best
    while first > 0 and good[first - 1]:
        first -= 1
    while last < len(values) - 1 and good[last + 1]:
        last += 1
    return last - first + 1
