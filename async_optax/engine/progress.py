"""Progress of a run: a callback, or a bar on the standard error stream."""

import contextlib
from collections.abc import Callable, Iterator

Progress = Callable[[int, int], None]
"""``progress(done, total)``, called after each chunk with numbers of arrivals."""


def silent(done: int, total: int) -> None:
    """Reports nothing."""


@contextlib.contextmanager
def reporting(progress: bool | Progress) -> Iterator[Progress]:
    """Yields a callback for ``progress``: itself, one that draws a bar, or one that is silent.

    Raises:
      TypeError: if ``progress`` is neither.
      ImportError: if a bar is asked for and rich is not installed.
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
        from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar
    except ImportError as error:
        raise ImportError(
            "progress=True needs rich: pip install 'async_optax[experiments]', "
            "or pass a function progress(done, total)"
        ) from error
    columns = ("arrivals", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # What a program prints may be piped into a file: the bar must not stand in it.
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("arrivals", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
