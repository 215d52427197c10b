"""The one style of all figures."""

import contextlib
from collections.abc import Iterator
from typing import Any

from experiments.figures.colours import COLOURS

COLUMN, DOUBLE = 3.5, 7.2  # inches: one column of a journal's page, and both

_SETTINGS: dict[str, Any] = {
    "figure.figsize": (COLUMN, 2.6),
    "figure.constrained_layout.use": True,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with Matplotlib: the same everywhere
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.88",
    "grid.linewidth": 0.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.2,
    "lines.markeredgewidth": 0.4,
    "legend.fontsize": 6.8,
    "legend.title_fontsize": 6.8,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "patch.linewidth": 0.6,
    "errorbar.capsize": 1.5,
    "pdf.fonttype": 42,  # letters stay letters: they can be searched, and journals ask for it
    "svg.hashsalt": "async_optax",
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draws everything inside the block in the style of the experiments, and nothing after it.

    Letters are 7 to 8 points high at the width of a column (``COLUMN`` = 3.5 inches) or of the page
    (``DOUBLE`` = 7.2), so that figures go to print as they are.

    Raises:
      ImportError: if Matplotlib is not installed.

    Example:
      >>> import matplotlib.pyplot as plt
      >>> with style():
      ...     figure, axes = plt.subplots(figsize=(COLUMN, 2.0))
      >>> axes.spines["top"].get_visible()
      False
      >>> plt.close(figure)
    """
    try:
        import matplotlib
        from cycler import cycler
    except ImportError as error:
        raise ImportError(
            "figures need matplotlib: pip install 'async_optax[experiments]'"
        ) from error
    with matplotlib.rc_context(_SETTINGS | {"axes.prop_cycle": cycler(color=COLOURS)}):
        yield
