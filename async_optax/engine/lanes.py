"""The width of a wave: chosen by measuring."""

import time
from collections.abc import Callable

from async_optax.engine.result import LaneChoice
from async_optax.validation import require_count

_MIN_MEASURED = 0.02  # seconds of work behind one measurement
_MIN_WORTHWHILE = 2.0  # seconds; measuring compiles a program per width


def choose_lanes(
    lanes: int | str,
    num_arrivals: int,
    mean_wave: Callable[[int], float],
    measure: Callable[[int, int], float],
    max_lanes: int,
) -> LaneChoice:
    """Returns the width to run with.

    Widths 1, 2, 4, ... are tried until one is slower per arrival than the best so far, or
    until waves are no longer filled: on a CPU a vmap over parameter copies is often slower
    than a loop, on a GPU it is the whole point.

    Args:
      lanes: a width >= 1, or ``"auto"``.
      num_arrivals: length of the run.
      mean_wave: maps a width to the mean number of arrivals per wave.
      measure: ``measure(width, arrivals)`` runs about that many arrivals, compiled before,
        and returns seconds per arrival.
      max_lanes: widest wave allowed.

    Returns:
      The choice and its reason.

    Raises:
      TypeError: if ``lanes`` is neither an integer nor ``"auto"``.
      ValueError: if ``lanes < 1`` or ``lanes > max_lanes``.
    """
    if lanes != "auto":
        if isinstance(lanes, str):
            raise ValueError(f"lanes must be an integer >= 1 or 'auto', got {lanes!r}")
        require_count("lanes", lanes)
        if lanes > max_lanes:
            raise ValueError(f"lanes must be at most {max_lanes}, got {lanes}")
        return LaneChoice(lanes, "given")
    if mean_wave(2) < 1.5:
        return LaneChoice(1, "each arrival reads what the one before it wrote")
    measured = {1: _measured(measure, 1)}
    if measured[1] * num_arrivals < _MIN_WORTHWHILE:
        return LaneChoice(
            1, "the whole run is shorter than measuring wider waves would take", measured
        )
    best, width = 1, 2
    while width <= max_lanes and mean_wave(width) > 0.5 * width:
        measured[width] = _measured(measure, width)
        if measured[width] > measured[best]:
            break
        best, width = width, 2 * width
    return LaneChoice(best, "least measured time per arrival", measured)


def _measured(measure: Callable[[int, int], float], width: int) -> float:
    measure(width, width)  # compiles
    arrivals = width
    while True:
        started = time.perf_counter()
        per_arrival = measure(width, arrivals)
        if time.perf_counter() - started >= _MIN_MEASURED or arrivals >= 1024:
            return per_arrival
        arrivals *= 4
