"""The live view: how a run is doing, on the standard error stream."""

import contextlib
import math
from collections.abc import Callable, Iterator

from async_optax.distributed.messages import Status
from async_optax.distributed.rates import CommitRate


def silent(status: Status) -> None:
    """Shows nothing."""


@contextlib.contextmanager
def live_view(
    progress: bool | Callable[[Status], None], num_commits: int | None, max_time: float | None
) -> Iterator[Callable[[Status], None]]:
    """Yields a callback for ``progress``: itself, one that draws, or one that is silent.

    Raises:
      TypeError: if ``progress`` is neither.
      ImportError: if a view is asked for and rich is not installed.
    """
    if callable(progress):
        yield progress
        return
    if not isinstance(progress, bool):
        raise TypeError(f"progress must be a boolean or a function, got {progress!r}")
    if not progress:
        yield silent
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
    except ImportError as error:
        raise ImportError(
            "progress=True needs rich: pip install 'async_optax[ray]', or pass a function "
            "progress(status)"
        ) from error
    columns = (
        TextColumn("commits {task.fields[commits]}"),
        BarColumn(),
        TextColumn("{task.fields[line]}"),
    )
    rate = CommitRate()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        total = float(num_commits or max_time or 1)
        task = bar.add_task("run", total=total, commits=0, line="starting")

        def show(status: Status) -> None:
            done = status.version if num_commits is not None else min(status.time, total)
            line = describe(status, rate(status))
            bar.update(task, completed=done, commits=status.version, line=line)

        yield show


def describe(status: Status, commits_per_second: float) -> str:
    """Returns one line on a run.

    Args:
      status: of the run.
      commits_per_second: its speed now; NaN if unknown.
    """
    parts = [
        f"{_shown(commits_per_second)}/s",
        f"loss {_shown(status.loss)}",
        f"staleness {_shown(status.total_staleness)}",
        f"workers {status.workers_up}/{status.num_workers}",
    ]
    parts += [f"{name} {value:.4g}" for name, value in status.metrics.items()]
    if status.quarantined:
        parts.append(f"quarantined {', '.join(map(str, status.quarantined))}")
    return "  ".join(parts)


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"
