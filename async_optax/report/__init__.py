"""Reports: tables, pictures and files. Needs the extra ``experiments``."""

from async_optax.report.files import all_or_nothing, require_writable
from async_optax.report.methods import (
    MethodDescription,
    describe_method,
    format_parameter,
    methods_page,
)
from async_optax.report.plots import plot_accuracy, plot_robustness, save_figure
from async_optax.report.summary import (
    describe_divergence,
    format_rate,
    legend,
    rows,
    standings_table,
    write_summary,
)
from async_optax.report.timelines import draw_timeline, plot_timelines

__all__ = [
    "MethodDescription",
    "all_or_nothing",
    "describe_divergence",
    "describe_method",
    "draw_timeline",
    "format_parameter",
    "format_rate",
    "legend",
    "methods_page",
    "plot_accuracy",
    "plot_robustness",
    "plot_timelines",
    "require_writable",
    "rows",
    "save_figure",
    "standings_table",
    "write_summary",
]
