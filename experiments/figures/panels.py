"""Figures of several panels, with one legend for all."""

import string
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from async_optax.validation import require_count
from experiments.figures.style import DOUBLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def panels(
    number: int, columns: int = 3, *, width: float = DOUBLE, height: float = 2.1, **arguments: Any
) -> tuple["Figure", list[Any]]:
    """Returns a figure with that many panels, row by row; places that are left over stay empty.

    Args:
      number: of panels, >= 1.
      columns: panels in a row, at most.
      width: of the figure, inches.
      height: of a row of panels, inches.
      **arguments: of ``plt.subplots``, such as ``sharey=True``.

    Returns:
      The figure, to be filled within :func:`experiments.figures.style`, and its axes.

    Raises:
      ValueError: if a number is below 1.

    Example:
      >>> import matplotlib.pyplot as plt
      >>> figure, axes = panels(5)
      >>> len(axes), len(figure.axes)
      (5, 5)
      >>> plt.close(figure)
    """
    import matplotlib.pyplot as plt

    require_count("number", number)
    require_count("columns", columns)
    columns = min(columns, number)
    rows = -(-number // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(width, rows * height), squeeze=False, **arguments
    )
    for spare in grid.flat[number:]:
        spare.remove()
    return figure, list(grid.flat[:number])


def label_panels(axes: Sequence[Any]) -> None:
    """Writes (a), (b), ... before the titles."""
    for letter, panel in zip(string.ascii_lowercase, axes, strict=False):
        panel.set_title(f"({letter}) {panel.get_title()}".rstrip())


def legend_below(figure: "Figure", columns: int = 4, **arguments: Any) -> None:
    """Puts one legend under all panels: each label once, in the order of its first panel.

    Args:
      figure: what was drawn.
      columns: of the legend.
      **arguments: of ``Figure.legend``, such as ``title``.
    """
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside lower center",
        ncols=columns,
        **arguments,
    )
