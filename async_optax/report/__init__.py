"""Reports: tables, pictures and files. Needs the extra ``experiments``."""

from async_optax.report.advice import (
    advice_legend,
    describe_measured,
    plot_advice,
    protocol_advice_table,
    reasons_table,
    write_advice,
)
from async_optax.report.cluster import (
    comparison_legend,
    comparison_table,
    describe_facts,
    write_comparison,
)
from async_optax.report.cluster_plots import plot_comparison, typical_timelines
from async_optax.report.files import all_or_nothing, require_writable
from async_optax.report.gantt import draw_timeline
from async_optax.report.methods import (
    MethodDescription,
    describe_method,
    format_parameter,
    methods_page,
)
from async_optax.report.plots import plot_accuracy, plot_robustness, save_figure
from async_optax.report.staleness import plot_staleness
from async_optax.report.summary import (
    describe_divergence,
    format_rate,
    legend,
    rows,
    standings_table,
    write_summary,
)
from async_optax.report.timelines import plot_timelines
from async_optax.report.utilisation import plot_utilisation

__all__ = [
    "MethodDescription",
    "advice_legend",
    "all_or_nothing",
    "comparison_legend",
    "comparison_table",
    "describe_divergence",
    "describe_facts",
    "describe_measured",
    "describe_method",
    "draw_timeline",
    "format_parameter",
    "format_rate",
    "legend",
    "methods_page",
    "plot_accuracy",
    "plot_advice",
    "plot_comparison",
    "plot_robustness",
    "plot_staleness",
    "plot_timelines",
    "plot_utilisation",
    "protocol_advice_table",
    "reasons_table",
    "require_writable",
    "rows",
    "save_figure",
    "standings_table",
    "typical_timelines",
    "write_advice",
    "write_comparison",
    "write_summary",
]
