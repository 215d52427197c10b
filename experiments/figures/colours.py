"""Colours, markers and lines that all readers tell apart, on a screen or on grey paper."""

from typing import Any

from async_optax.validation import require_count

COLOURS: tuple[str, ...] = (
    "#0072B2",  # blue
    "#D55E00",  # vermilion
    "#009E73",  # green
    "#CC79A7",  # purple
    "#E69F00",  # orange
    "#56B4E9",  # sky
    "#000000",  # black
)
"""The colours of Okabe and Ito, but for their yellow, which is lost on white paper."""

MARKERS: tuple[str, ...] = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h")
_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)))


def series(number: int) -> dict[str, Any]:
    """Returns what the curve of that number looks like: colour, marker and line.

    Colours come again after seven curves, with other dashes; markers after ten. No two of the first
    21 curves share both colour and line, none of the first 70 both colour and marker.

    Args:
      number: 0, 1, 2, ... in the order of the legend.

    Returns:
      Keyword arguments of ``Axes.plot``.

    Raises:
      ValueError: if ``number`` is negative.

    Example:
      >>> series(8)["color"] == series(1)["color"], series(8)["marker"] == series(1)["marker"]
      (True, False)
    """
    require_count("number", number, at_least=0)
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": _DASHES[number // len(COLOURS) % len(_DASHES)],
    }
