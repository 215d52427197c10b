"""The file of a sweep: written now and then, at the end, and when the sweep breaks."""

import os
import pathlib
import time
from collections.abc import Sequence

import jax

from async_optax.sweeps.storage import require_folder, require_names, save
from async_optax.sweeps.table import Table

_SAVE_SECONDS = 10.0


class SweepFile:
    """Where a sweep is written, if anywhere; with several processes, process 0 writes."""

    def __init__(self, path: str | os.PathLike[str] | None):
        if path is not None and not isinstance(path, str | os.PathLike):
            raise TypeError(f"path must be the path of a file, got {path!r}")
        if path == "":
            raise ValueError("path must be the path of a file, got ''")
        self._path = None if path is None else pathlib.Path(path).absolute()
        self._saved, self._is_saved = time.monotonic(), True

    def check(self, source: pathlib.Path | None) -> None:
        """Raises if the file may not be written.

        Args:
          source: the file that is extended, or ``None``.

        Raises:
          FileExistsError: if there is another file already.
          FileNotFoundError: if its folder does not exist.
        """
        if self._path is None or jax.process_index() != 0:
            return
        require_folder(self._path)
        if self._path.exists() and source != self._path:
            raise FileExistsError(
                f"there is a file {self._path} already: pass extend={str(self._path)!r} to keep "
                "its cells, or another path"
            )

    def check_names(self, metrics: Sequence[str]) -> None:
        """Raises ``ValueError`` if a metric cannot have its name in a file, if there is one."""
        if self._path is not None:
            require_names(metrics)

    def save_if_due(self, table: Table) -> None:
        """Writes a table that has changed, if the last time was long ago."""
        self._is_saved = False
        if time.monotonic() - self._saved <= _SAVE_SECONDS:
            return
        try:
            self.save(table)
        except OSError:
            if jax.process_count() == 1:
                raise
            self._saved = time.monotonic()  # the others wait for this process: it tries again

    def save_after_a_break(self, table: Table) -> None:
        """Writes what has not been written yet."""
        if not self._is_saved:
            self.save(table)

    def save(self, table: Table) -> None:
        """Writes a table, whatever was written before."""
        if self._path is not None and jax.process_index() == 0:  # all have the same
            save(table.to_dataset(), self._path)
            self._saved, self._is_saved = time.monotonic(), True
