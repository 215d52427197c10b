"""Rows that grow one by one, kept packed: no Python object outlives its row."""

import struct
from collections.abc import Sequence

import numpy as np

# Formats of ``struct``; a ``?`` is one byte, as in NumPy.
_FORMATS = {
    "worker": "i",
    "read_version": "i",
    "version": "i",
    "start_time": "d",
    "time": "d",
    "weight": "d",
    "accepted": "?",
    "commit": "?",
    "begin": "d",
    "compute": "d",
    "upload": "d",
    "sent": "d",
    "token": "i",
    "stop_time": "d",
    "reason": "b",
}
_BLOCK_BYTES = 1 << 17
_FIRST_ROWS = 1 << 14


class Rows:
    """A growing table.

    Args:
      names: its columns, of those that a timeline or its lost jobs have.

    Example:
      >>> rows = Rows(["worker", "time", "commit"])
      >>> for worker in range(3):
      ...     rows.append((worker, worker / 2, worker == 1))
      >>> rows.columns()["time"]
      array([0. , 0.5, 1. ])
    """

    def __init__(self, names: Sequence[str]):
        formats = [_FORMATS[name] for name in names]
        self._dtype = np.dtype([(name, "=" + f) for name, f in zip(names, formats, strict=True)])
        self._pack = struct.Struct("=" + "".join(formats)).pack
        self._packed = bytearray()
        self._columns = {name: np.empty(0, self._dtype[name]) for name in names}
        self._unpacked = 0

    def __len__(self) -> int:
        return self._unpacked + len(self._packed) // self._dtype.itemsize

    def append(self, row: tuple[float, ...]) -> None:
        """Adds a row; values in the order of the columns."""
        self._packed += self._pack(*row)
        if len(self._packed) > _BLOCK_BYTES:
            self._unpack()

    def _unpack(self) -> None:
        rows = np.frombuffer(self._packed, self._dtype)
        begin, end = self._unpacked, len(self)
        for name, column in self._columns.items():
            if end > len(column):
                # What is allocated and not yet written takes no memory.
                self._columns[name] = np.empty(max(2 * end, _FIRST_ROWS), column.dtype)
                self._columns[name][:begin] = column[:begin]
            self._columns[name][begin:end] = rows[name]
        self._packed, self._unpacked = bytearray(), end

    def columns(self) -> dict[str, np.ndarray]:
        """Returns the columns by name."""
        self._unpack()
        return {name: column[: self._unpacked] for name, column in self._columns.items()}
