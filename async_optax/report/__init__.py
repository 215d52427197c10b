"""Reports: tables, pictures and files. Needs the extra ``experiments``."""

from async_optax.report.files import require_writable, write_atomically
from async_optax.report.plots import plot_accuracy, plot_robustness, save_figure
from async_optax.report.summary import rows, standings_table, write_summary
from async_optax.report.timelines import draw_timeline, plot_timelines

__all__ = [
    "draw_timeline",
    "plot_accuracy",
    "plot_robustness",
    "plot_timelines",
    "require_writable",
    "rows",
    "save_figure",
    "standings_table",
    "write_atomically",
    "write_summary",
]
