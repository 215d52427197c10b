"""Metrics of a run in files that TensorBoard reads."""

import contextlib
import importlib
import math
import pathlib
from collections.abc import Callable, Iterator

from async_optax.distributed.live_view import silent
from async_optax.distributed.messages import Status
from async_optax.distributed.rates import CommitRate


@contextlib.contextmanager
def metric_files(folder: pathlib.Path | None) -> Iterator[Callable[[Status], None]]:
    """Yields a callback that writes a status, at the step of its version.

    Written are ``run/loss``, ``run/staleness``, ``run/commits_per_second``, ``run/workers_up``, and
    ``evaluation/NAME`` for every metric of the problem.

    Args:
      folder: where to, made if need be; ``None``: nowhere.

    Raises:
      ImportError: if tensorboardX is not installed.
    """
    if folder is None:
        yield silent
        return
    try:
        writer_class = importlib.import_module("tensorboardX").SummaryWriter
    except ImportError as error:
        raise ImportError(
            "metrics=True needs tensorboardX: pip install 'async_optax[ray]'"
        ) from error
    writer, rate = None, CommitRate()

    def write(status: Status) -> None:
        nonlocal writer
        if writer is None:  # with the first status, as a run that never starts leaves no file
            writer = writer_class(str(folder))
        values = {
            "run/loss": status.loss,
            "run/staleness": status.staleness,
            "run/commits_per_second": rate(status),
            "run/workers_up": float(status.workers_up),
        }
        values |= {f"evaluation/{name}": value for name, value in status.metrics.items()}
        for name, value in values.items():
            if not math.isnan(value):
                writer.add_scalar(name, value, status.version)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()
