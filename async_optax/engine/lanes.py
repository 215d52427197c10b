"""The width of a wave: chosen by what was measured, for the waves that a timeline has."""

import dataclasses
from collections.abc import Callable, Hashable

import numpy as np

from async_optax.engine.recent import Recent
from async_optax.engine.result import LaneChoice

_MIN_MEASURED = 0.02  # seconds of work behind one measurement
_REPEATS = 3
_WORSE = 1.1  # than the best width so far: wider ones will not do better
_MIN_WORTHWHILE = 2.0  # seconds; measuring compiles a program per width


@dataclasses.dataclass(frozen=True)
class WaveCost:
    """What a wave costs: ``per_wave + per_arrival * arrivals`` seconds, padding included.

    Attributes:
      per_wave: seconds for its gradients, however many of its lanes are filled.
      per_arrival: seconds for applying one arrival.
    """

    per_wave: float
    per_arrival: float

    def mean(self, arrivals_per_wave: float) -> float:
        """Seconds per arrival if waves hold so many on average."""
        return self.per_arrival + self.per_wave / arrivals_per_wave


_COSTS: Recent[dict[int, WaveCost]] = Recent()  # by problem, shapes and device; then by width


def check_lanes(lanes: int | str, max_lanes: int, multiple: int = 1) -> None:
    """Checks the width of a wave.

    Raises:
      TypeError: if ``lanes`` is neither an integer nor ``"auto"``.
      ValueError: if ``lanes`` is out of range, or no multiple of ``multiple``.
    """
    if isinstance(lanes, str) and lanes == "auto":
        return
    message = f"lanes must be 'auto' or an integer >= 1, got {lanes!r}"
    if isinstance(lanes, str):
        raise ValueError(message)
    if isinstance(lanes, bool) or not isinstance(lanes, int | np.integer):
        raise TypeError(message)
    if lanes < 1:
        raise ValueError(message)
    if lanes > max_lanes:
        raise ValueError(f"lanes must be at most {max_lanes}, got {lanes}")
    if lanes % multiple:
        raise ValueError(
            f"lanes must be a multiple of the {multiple} devices of the mesh, got {lanes}; use a "
            f"multiple such as {min(-(-lanes // multiple), max_lanes // multiple) * multiple}"
        )


def choose_lanes(
    lanes: int | str,
    num_arrivals: int,
    mean_wave: Callable[[int], float],
    measure: Callable[[int, int, int], float],
    *,
    max_lanes: int,
    setting: Hashable,
    multiple: int = 1,
) -> LaneChoice:
    """Returns the width to run with.

    Widths 1, 2, 4, ... are measured, once in a process for each setting: seconds of a full
    wave and of a wave with one arrival give what the gradients of a wave cost, filled or not,
    and what applying an arrival costs. With the waves that the timeline allows, this tells
    the time per arrival of a width, the cost of its empty lanes included. The search ends at
    a width that does worse than the best so far by a tenth, or whose waves stay half empty.

    Args:
      lanes: a width that has been checked, or ``"auto"``.
      num_arrivals: length of the run.
      mean_wave: maps a width to the mean number of arrivals per wave.
      measure: ``measure(width, arrivals, arrivals_per_wave)`` runs so many, compiled before,
        and returns seconds per wave.
      max_lanes: widest wave allowed.
      setting: what measurements hold for: the problem's structure, shapes and device.
      multiple: widths are multiples of this, the number of devices that share a wave.

    Returns:
      The choice and its reason.
    """
    if lanes != "auto":
        return LaneChoice(int(lanes), "given")
    if multiple == 1 and mean_wave(2) < 1.5:
        return LaneChoice(1, "each arrival reads what the one before it wrote")
    costs = _COSTS.setdefault(setting, {})
    seconds: dict[int, float] = {}
    width = best = multiple
    while width <= max_lanes and (width == multiple or mean_wave(width) > 0.5 * width):
        if width not in costs:
            if seconds and seconds[best] * num_arrivals < _MIN_WORTHWHILE:
                reason = "the run is shorter than measuring wider waves would take"
                return LaneChoice(best, reason, seconds)
            costs[width] = _measured(measure, width, max_lanes)
        seconds[width] = costs[width].mean(mean_wave(width))
        if seconds[width] > _WORSE * seconds[best]:
            break
        best, width = min(best, width, key=lambda tried: seconds[tried]), 2 * width
    return LaneChoice(best, "least time per arrival by the measured cost of waves", seconds)


def _measured(measure: Callable[[int, int, int], float], width: int, max_arrivals: int) -> WaveCost:
    """Separates what a wave costs from what an arrival costs."""
    measure(width, width, width)  # compiles
    num_waves = 1
    while 4 * num_waves * width <= max_arrivals:
        if measure(width, width * num_waves, width) * num_waves >= _MIN_MEASURED:
            break
        num_waves *= 4
    full = min(measure(width, width * num_waves, width) for _ in range(_REPEATS))
    if width == 1:
        return WaveCost(full, 0.0)
    single = min(measure(width, num_waves, 1) for _ in range(_REPEATS))
    # The noise of a measurement may exceed the difference; neither share is ever negative.
    per_arrival = min(max((full - single) / (width - 1), 0.0), full / width)
    return WaveCost(full - width * per_arrival, per_arrival)
