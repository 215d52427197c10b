"""Log lines of a run on the standard error stream, as plain as everything else there."""

import contextlib
import logging
import sys
from collections.abc import Iterator


class _Lines(logging.Handler):
    """Prints messages alone; looks for the stream each time, as a live view replaces it."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"async-optax: {record.getMessage()}", file=sys.stderr)


@contextlib.contextmanager
def plain_log(name: str) -> Iterator[None]:
    """Prints the warnings of a logger in this block, and keeps them from other handlers."""
    logger, handler = logging.getLogger(name), _Lines(logging.WARNING)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
