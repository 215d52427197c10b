"""The command ``cluster``: would asynchrony help these workers?"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from async_optax import report
from async_optax.cli.interruption import stop_if_interrupted
from async_optax.cli.protocols import parse_protocol
from async_optax.cli.setting import Runtimes, naming
from async_optax.cluster import (
    ProtocolStatistics,
    TraceFacts,
    compare_protocols,
    default_max_time,
    default_protocols,
    describe_trace,
    verdict,
)
from async_optax.timelines import read_jobs
from async_optax.timelines.protocols import Protocol
from async_optax.timelines.runtimes import RuntimeModel, empirical

_NUM_WORKERS, _WIDTH = 16, 100
_LONG_JOBS = 2.0  # that the picture of timelines shows
_FILES = ("summary.json", "comparison.png", "timelines.png", "utilisation.png", "staleness.png")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Would asynchrony help my cluster? Compares protocols on measured or modelled workers."""

    trace: Path | None = None
    """Measured jobs: a CSV or Parquet file with the columns worker, start and finish. Without it
    --runtimes says how long jobs take."""
    pooled: bool = False
    """With a trace: every worker draws from the times of all, so that any --num-workers goes. All
    workers are alike then: the comparison knows no slow ones."""
    runtimes: Runtimes = Runtimes()
    protocols: tuple[str, ...] = ()
    """Such as synchronous, buffered:8:wait or rennala:16; `async-optax protocols` lists them. By
    default a dozen that suit the number of workers."""
    num_workers: int | None = None
    """By default those of the trace, or 16."""
    max_time: float | None = None
    """Simulated time, in the unit of the job times; by default about 200 jobs per worker."""
    seed: int = 0
    output: Path = Path("results/cluster")
    """Folder for summary.json and the pictures."""

    def workers(self) -> tuple[RuntimeModel, int, TraceFacts | None]:
        """Returns how long jobs take, the number of workers, and what was measured."""
        if self.trace is None:
            if self.pooled:
                raise ValueError("--pooled needs a --trace whose times are pooled")
            with naming("--runtimes"):
                model = self.runtimes.make()
            return model, _NUM_WORKERS if self.num_workers is None else self.num_workers, None
        if self.runtimes != Runtimes():
            raise ValueError("give either --trace or --runtimes, not both")
        jobs = read_jobs(self.trace)
        facts = describe_trace(jobs)
        model = empirical(jobs, pooled=self.pooled)
        num_workers = facts.num_workers if self.num_workers is None else self.num_workers
        if num_workers != facts.num_workers and not self.pooled:
            raise ValueError(
                f"num_workers must be {facts.num_workers}, as in the trace, got {num_workers}; "
                "with --pooled it may be any"
            )
        return model, num_workers, facts


def compare(command: Cluster, console: Console) -> None:
    """Compares protocols, writes the results and prints the table."""
    model, num_workers, facts = command.workers()
    chosen: Sequence[Protocol] = [parse_protocol(text) for text in command.protocols]
    chosen = chosen or default_protocols(num_workers)
    max_time = command.max_time
    if max_time is None:
        max_time = default_max_time(model, num_workers, command.seed)
    report.require_writable(command.output)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("protocols", total=len(chosen))
        statistics = compare_protocols(
            chosen,
            model,
            num_workers,
            max_time=max_time,
            seed=command.seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if all(row.problem for row in statistics):
        raise ValueError(f"none of the protocols runs; {chosen[0].name}: {statistics[0].problem}")
    setting = {
        "runtimes": model.name,
        "trace": None if command.trace is None else str(command.trace),
        "pooled": command.pooled,
        "num_workers": num_workers,
        "max_time": max_time,
        "seed": command.seed,
    }
    _write(command.output, statistics, setting, facts)
    _show(console, command, statistics, setting, facts)


def _write(
    output: Path,
    statistics: Sequence[ProtocolStatistics],
    setting: dict[str, Any],
    facts: TraceFacts | None,
) -> None:
    some = report.typical_timelines(statistics)
    everyone = {row.protocol: row.timeline for row in statistics if row.timeline is not None}
    with report.all_or_nothing(output) as staging:
        summary, comparison, timelines, utilisation, staleness = (staging / name for name in _FILES)
        report.write_comparison(summary, statistics, setting, facts)
        report.plot_comparison(comparison, statistics)
        report.plot_timelines(timelines, some, _picture_time(statistics, setting["max_time"]))
        report.plot_utilisation(utilisation, everyone)
        report.plot_staleness(staleness, some)
        stop_if_interrupted()


def _picture_time(statistics: Sequence[ProtocolStatistics], max_time: float) -> float:
    """Some long jobs of the first protocol that runs: so even slow workers end some."""
    timeline = next(row.timeline for row in statistics if row.timeline is not None)
    long_job = float(np.quantile(timeline.sent_time - timeline.begin_time, 0.99))
    return min(max_time, _LONG_JOBS * long_job)


def _show(
    console: Console,
    command: Cluster,
    statistics: Sequence[ProtocolStatistics],
    setting: dict[str, Any],
    facts: TraceFacts | None,
) -> None:
    # Narrower, the table would fall apart: rather let the terminal wrap its lines.
    wide = console if console.is_terminal and console.width >= _WIDTH else Console(width=_WIDTH)
    chosen = ", about 200 jobs of the median worker" if command.max_time is None else ""
    before = [setting["runtimes"]]
    before += [f"{setting['num_workers']} workers, time {setting['max_time']:g}{chosen}"]
    before += report.describe_facts(facts) if facts else []
    before += ["pooled: every worker draws from the times of all, none is slower"] * command.pooled
    before += [""]
    after = [*report.comparison_legend(statistics), "", *verdict(statistics)]
    after += [f"wrote {command.output / name}" for name in _FILES]
    some, ran = report.typical_timelines(statistics), [r for r in statistics if not r.problem]
    if len(some) < len(ran):
        after += [f"timelines.png and staleness.png show {', '.join(some)}"]
    for line in before:
        wide.print(escape(line), highlight=False, soft_wrap=True)
    wide.print(report.comparison_table(statistics))
    for line in after:
        wide.print(escape(line), highlight=False, soft_wrap=True)
