"""The trace of a real run: a file that only grows, one event per line."""

import dataclasses
import errno
import json
import os
import pathlib
import secrets
from collections.abc import Iterator, Mapping
from typing import Any, Self

from async_optax.engine.checkpoint_files import FolderInUseError
from async_optax.validation import first_line

FORMAT, VERSION = "async_optax.trace", 1
HEADER, EPOCH = "header", "epoch"


class TraceWriter:
    """Appends events to a trace; each is handed to the system before the next thing happens.

    What is in the file is never changed: a server that goes on from a checkpoint writes an event
    ``epoch`` with the offset ``resume_at``, and whatever stands between that offset and the event
    is void. A line cut off by a crash is void likewise.

    A new file gets its name when its header is whole and on the disk: a trace without one, which
    nobody could go on with, never exists.

    Args:
      path: the file; it must exist, with a header, unless ``header`` is given.
      header: what the run is, for a new file: JSON.

    Raises:
      FileExistsError: if ``header`` is given and the file exists.
      TypeError: if the header is not JSON.
      OSError: if it cannot be written, or another server writes to it.
    """

    def __init__(self, path: str | os.PathLike[str], header: Mapping[str, Any] | None = None):
        self._path = pathlib.Path(path)
        if header is None:
            self._file = self._path.open("ab", buffering=0)
            try:
                self._lock()
            except BaseException:
                self._file.close()
                raise
            return
        unnamed = self._path.with_name(f".{self._path.name}-{secrets.token_hex(8)}")
        self._file = unnamed.open("xb", buffering=0)
        try:
            self._lock()
            self.write(HEADER, format=FORMAT, version=VERSION, **header)
            self.sync()
            _name(unnamed, self._path)
        except BaseException:
            self._file.close()
            raise
        finally:
            unnamed.unlink(missing_ok=True)

    @property
    def offset(self) -> int:
        """Bytes written so far, by this server and those before."""
        return os.fstat(self._file.fileno()).st_size

    def write(self, event: str, **fields: Any) -> None:
        """Appends one event.

        Raises:
          OSError: if the disk is full or fails.
        """
        line = json.dumps({"event": event} | fields, separators=(",", ":")).encode() + b"\n"
        written = self._file.write(line)
        if written != len(line):
            raise OSError(
                f"the trace {self._path} took {written} of {len(line)} bytes: the disk is full"
            )

    def write_epoch(self, number: int, resume_at: int, **fields: Any) -> None:
        """Makes what was written from ``resume_at`` on void."""
        if self.offset and not _ends_in_newline(self._path):
            self._file.write(b"\n")
        self.write(EPOCH, number=number, resume_at=resume_at, **fields)

    def sync(self) -> None:
        """Returns when everything is on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file, and lets another server write to it."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # not all systems have locks
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FolderInUseError(
                f"another server writes the trace {self._path}: use another folder"
            ) from error


@dataclasses.dataclass(frozen=True)
class Event:
    """One line of a trace.

    Attributes:
      offset: in bytes, of its beginning.
      end: of what follows it.
      kind: what happened.
      fields: the rest.
    """

    offset: int
    end: int
    kind: str
    fields: Mapping[str, Any]


def read_events(path: str | os.PathLike[str]) -> list[Event]:
    """Returns the events of a trace that are not void, in their order; the header is the first.

    A line at the end of the file that is not complete is passed over: the run may still go on.

    Args:
      path: the file.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is no trace, or naming the first line that is damaged.
    """
    kept: list[Event] = []
    broken: tuple[int, str] | None = None
    for number, event in enumerate(_lines(pathlib.Path(path)), start=1):
        if isinstance(event, str):
            broken = broken or (number, event)
            continue
        if not kept and (event.kind, event.fields.get("format")) != (HEADER, FORMAT):
            raise ValueError(f"{path} is not a trace: it does not begin with a header of {FORMAT}")
        if not kept and event.fields.get("version") != VERSION:
            raise ValueError(
                f"{path} is a trace of version {event.fields.get('version')}; this program reads "
                f"{VERSION}"
            )
        if event.kind == EPOCH:
            resume_at = event.fields["resume_at"]
            if resume_at < kept[0].end:
                raise ValueError(f"{path} is damaged: line {number} makes the header void")
            while kept and kept[-1].offset >= resume_at:
                kept.pop()
            broken = None
        elif broken is not None:
            raise ValueError(f"{path} is damaged: line {broken[0]} {broken[1]}")
        kept.append(event)
    if not kept:
        reason = f": line {broken[0]} {broken[1]}" if broken else ": it is empty"
        raise ValueError(f"{path} is not a trace{reason}")
    return kept


def _lines(path: pathlib.Path) -> Iterator[Event | str]:
    """Yields events, and for lines that are none what is wrong with them."""
    offset = 0
    with path.open("rb") as file:
        for line in file:
            end = offset + len(line)
            if not line.endswith(b"\n"):
                yield "is incomplete"
                return
            try:
                fields = json.loads(line)
                kind = fields.pop("event")
                if kind == EPOCH:
                    _check_epoch(fields, offset)
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
                yield f"is no event ({first_line(error)})"
            else:
                yield Event(offset, end, kind, fields)
            offset = end


def _check_epoch(fields: Mapping[str, Any], offset: int) -> None:
    for name, least, most in (("number", 1, 2**31 - 1), ("resume_at", 0, offset)):
        value = fields[name]
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"{name} must be an integer in [{least}, {most}], got {value!r:.40}")


def _name(unnamed: pathlib.Path, path: pathlib.Path) -> None:
    """Gives a file its name, unless a file has it."""
    try:
        os.link(unnamed, path)  # of two at once, one fails
    except FileExistsError:
        raise
    except OSError:  # not all file systems have links
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        unnamed.rename(path)


def _ends_in_newline(path: pathlib.Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
