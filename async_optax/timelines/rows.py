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
_BLOCK_BYTES = 1 << 22


class Rows:
    """A growing table.

    Args:
      names: its columns, of those that a timeline or its lost jobs have.

    Example:
      >>> rows = Rows(["worker", "time", "commit"])
      >>> for worker in range(3):
      ...     rows.append(worker, worker / 2, worker == 1)
      >>> rows.columns()["time"]
      array([0. , 0.5, 1. ])
    """

    def __init__(self, names: Sequence[str]):
        formats = [_FORMATS[name] for name in names]
        self._dtype = np.dtype([(name, "=" + f) for name, f in zip(names, formats, strict=True)])
        self._pack = struct.Struct("=" + "".join(formats)).pack
        self._packed = bytearray()
        self._blocks: dict[str, list[np.ndarray]] = {name: [] for name in names}

    def __bool__(self) -> bool:
        return bool(self._packed) or any(self._blocks.values())

    def append(self, *values: float) -> None:
        """Adds a row; values in the order of the columns."""
        self._packed += self._pack(*values)
        if len(self._packed) > _BLOCK_BYTES:
            self._unpack()

    def _unpack(self) -> None:
        rows = np.frombuffer(self._packed, self._dtype)
        for name, blocks in self._blocks.items():
            blocks.append(rows[name].copy())
        self._packed = bytearray()

    def columns(self) -> dict[str, np.ndarray]:
        """Returns the columns by name, and forgets them: the table is empty again."""
        self._unpack()
        return {name: np.concatenate(self._blocks.pop(name)) for name in list(self._blocks)}
