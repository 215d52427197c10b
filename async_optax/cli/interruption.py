"""Ctrl-C that is never lost: libraries may swallow what it raises, or turn it into errors."""

import contextlib
import signal
import threading
from collections.abc import Iterator

_interrupted = threading.Event()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Remembers Ctrl-C in this block, and raises ``KeyboardInterrupt`` for what came of it."""
    _interrupted.clear()
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals, and is sent them
        return
    previous = signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    except Exception as error:
        if _interrupted.is_set():
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, previous)


def stop_if_interrupted() -> None:
    """Raises ``KeyboardInterrupt`` if Ctrl-C was pressed: the last look before files change."""
    if _interrupted.is_set():
        raise KeyboardInterrupt


def _interrupt(signum: int, frame: object) -> None:
    _interrupted.set()
    raise KeyboardInterrupt
