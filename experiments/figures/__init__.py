"""How all experiments draw: one style, colours that can be told apart, files for print and page."""

from experiments.figures.colours import COLOURS, MARKERS, series
from experiments.figures.panels import label_panels, legend_below, panels
from experiments.figures.saving import save
from experiments.figures.style import COLUMN, DOUBLE, style

__all__ = [
    "COLOURS",
    "COLUMN",
    "DOUBLE",
    "MARKERS",
    "label_panels",
    "legend_below",
    "panels",
    "save",
    "series",
    "style",
]
