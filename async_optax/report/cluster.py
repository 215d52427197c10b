"""Whether asynchrony would help a cluster: the comparison as a table and as plain data."""

import dataclasses
import importlib.metadata
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rich.box
from rich.markup import escape
from rich.table import Table

from async_optax.cluster import ProtocolStatistics, TraceFacts, verdict

_NAME_WIDTH = 21
_MAX_NAMES = 6


def comparison_table(statistics: Sequence[ProtocolStatistics]) -> Table:
    """Returns the comparison as a table, at most 100 columns wide; the legend explains it.

    Args:
      statistics: from :func:`async_optax.cluster.compare_protocols`.
    """
    table = Table(box=rich.box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("protocol", min_width=_NAME_WIDTH, max_width=_NAME_WIDTH, overflow="fold")
    headings = ["grads", "gain", "steps", "busy", "least", "waits", "waste"]
    headings += ["stale", "p99", "max", "missed", "unused", "lost"]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in statistics:
        name = row.protocol
        name = escape(name if len(name) <= _NAME_WIDTH else name.replace("(", "\n  (", 1))
        if row.problem:
            table.add_row(name, *["-"] * len(headings))
            continue
        shares = (row.utilisation, row.least_utilisation, row.waiting, row.aborted)
        staleness = (row.staleness_p99, row.staleness_max)
        counts = (row.gradients_lost_to_waiting, row.num_rejected, row.num_lost)
        table.add_row(
            name,
            _short(row.throughput),
            format_gain(row.speedup),
            _short(row.commit_rate),
            *(f"{100 * abs(share):.0f}%" for share in shares),
            _short(row.staleness_mean),
            *(_short(value, whole=True) for value in (*staleness, *counts)),
        )
    return table


def comparison_legend(statistics: Sequence[ProtocolStatistics]) -> list[str]:
    """Returns what the columns of :func:`comparison_table` mean, then what did not run and why."""
    lines = [
        "grads   gradients accepted per unit of time (the unit of the job times)",
        "gain    the same over that of synchronous",
        "steps   commits per unit of time",
        "busy    of the time a worker is there, on jobs that arrive or still run (mean)",
        "least   the same for the worker with the least",
        "waits   of its time, for others or for the server; waste: on jobs that never arrive",
        "stale   staleness of accepted gradients, in commits: mean, p99 and max",
        "missed  gradients that the workers had computed in addition, had nobody waited",
        "unused  gradients that arrived and were not accepted; lost: jobs that never arrived",
    ]
    return lines + [
        f"{row.protocol} does not run: {row.problem}" for row in statistics if row.problem
    ]


def describe_facts(facts: TraceFacts) -> list[str]:
    """Returns what is known of a measured run, in words."""
    slower = facts.slowest_time / facts.fastest_time
    few = ", ".join(facts.few_jobs[:_MAX_NAMES])
    few += f" and {len(facts.few_jobs) - _MAX_NAMES} more" * (len(facts.few_jobs) > _MAX_NAMES)
    warning = f"fewer than 20 jobs, so known but roughly, and as if there all the time: {few}"
    return [
        f"measured: {facts.num_workers} workers, {facts.num_jobs} jobs in {facts.duration:.6g}; "
        f"a job takes {facts.median_time:.4g} (median), {facts.p99_time:.4g} (p99)",
        f"fastest worker {facts.fastest_worker} ({facts.fastest_time:.4g} per job), "
        f"slowest {facts.slowest_worker} ({facts.slowest_time:.4g}, {slower:.3g} times as long)",
        f"in that run workers spent {100 * facts.computing:.0f} % of their time on jobs",
    ] + [warning] * bool(few)


def format_gain(speedup: float) -> str:
    """Two digits, as one run can tell: ``0.87x``, ``4.8x``, ``12x``."""
    return "-" if math.isnan(speedup) else f"{float(f'{speedup:.2g}'):g}x"


def _short(value: float, whole: bool = False) -> str:
    """At most five characters: ``0.071``, ``12.3``, ``6738``, ``86.9k``."""
    if math.isnan(value):
        return "-"
    if value == 0 or (whole and value < 9999.5):
        return f"{value:.0f}"
    if value < 0.001:
        return f"{value:.0e}"
    if value < 9999.5:
        digits = 3 - sum(value >= bound for bound in (0.9995, 9.995, 99.95))
        return f"{value:.{digits}f}"
    thousand = value < 999_500
    scaled = value / (1e3 if thousand else 1e6)
    return f"{scaled:.{1 if scaled < 99.95 else 0}f}{'k' if thousand else 'M'}"


def write_comparison(
    path: Path,
    statistics: Sequence[ProtocolStatistics],
    setting: Mapping[str, Any],
    facts: TraceFacts | None = None,
) -> None:
    """Writes the setting, the numbers and the verdict as JSON.

    Args:
      path: the file.
      statistics: from :func:`async_optax.cluster.compare_protocols`.
      setting: how they were made, as plain data.
      facts: of the measured run, if there is one.
    """
    content = {
        "setting": dict(setting),
        "versions": {
            name: importlib.metadata.version(name) for name in ("async_optax", "numpy", "scipy")
        },
        "trace": None if facts is None else dataclasses.asdict(facts),
        "rows": [row.as_dict() for row in statistics],
        "verdict": verdict(statistics),
    }
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
