"""The live view: how a run is doing, on the standard error stream."""

import contextlib
import math
from collections.abc import Callable, Iterator

from async_optax.distributed.messages import Status
from async_optax.distributed.rates import CommitRate

_WIDE, _BAR = 100, 20  # characters: of a terminal that has room for a bar, and of the bar


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
        from rich.table import Column
    except ImportError as error:
        raise ImportError(
            "progress=True needs rich: pip install 'async_optax[ray]', or pass a function "
            "progress(status)"
        ) from error
    console, rate = Console(stderr=True), CommitRate()
    has_bar = console.width >= _WIDE
    columns = [BarColumn(_BAR)] if has_bar else []
    text = TextColumn("{task.fields[line]}", table_column=Column(no_wrap=True))
    with Progress(*columns, text, console=console) as bar:
        total = float(num_commits or max_time or 1)
        task = bar.add_task("run", total=total, line="starting")

        def show(status: Status) -> None:
            done = status.version if num_commits is not None else min(status.time, total)
            room = console.width - (_BAR + 1 if has_bar else 0)
            bar.update(task, completed=done, line=describe(status, rate(status), room))

        yield show


def describe(status: Status, commits_per_second: float, room: int) -> str:
    """Returns one line on a run: as much of it as there is room for.

    Args:
      status: of the run.
      commits_per_second: its speed now; NaN if unknown.
      room: characters; what is left out is what matters least.
    """
    parts = [
        f"commits {status.version}",
        f"{_shown(commits_per_second)}/s",
        f"workers {status.workers_up}/{status.num_workers}",
    ]
    if status.quarantined:
        parts.append(f"quarantined {', '.join(map(str, status.quarantined))}")
    parts += [f"{name} {value:.4g}" for name, value in status.metrics.items()]
    parts += [f"staleness {_shown(status.total_staleness)}", f"loss {_shown(status.loss)}"]
    line = parts[0]
    for part in parts[1:]:
        longer = f"{line}  {part}"
        if len(longer) <= room:
            line = longer
    return line


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"
