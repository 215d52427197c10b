"""Where measured jobs come from: CSV and Parquet files, mappings of columns, rows."""

import csv
import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

_COLUMNS = ("worker", "start", "finish")


@dataclasses.dataclass(frozen=True, eq=False)
class Cells:
    """What a source says, unchecked.

    Attributes:
      origin: the source's name, for errors.
      columns: by name, the cells of each row.
      lines: of a text file, where each row ends.
      faults: for rows that have not even the right cells, why; all their cells are empty.
    """

    origin: str
    columns: Mapping[str, Any]
    lines: Sequence[int] = ()
    faults: Mapping[int, str] = dataclasses.field(default_factory=dict)

    def row(self, index: int) -> str:
        """Returns how to call a row in an error."""
        line = f" (line {self.lines[index]})" if len(self.lines) else ""
        return f"row {index + 1}{line}"


def read_cells(source: Any) -> Cells:
    """Returns the cells of workers, starts and finishes; see :func:`read_jobs`."""
    if isinstance(source, str | os.PathLike):
        path = existing_file(source)
        readers = {".csv": _from_csv, ".parquet": _from_parquet}
        if path.suffix not in readers:
            raise ValueError(f"a trace must be a .csv or .parquet file, got {path}")
        return readers[path.suffix](path)
    if hasattr(source, "keys"):  # a dictionary, a data frame
        return _from_mapping(source)
    try:
        rows = list(source.tolist() if isinstance(source, np.ndarray) else source)
    except TypeError:
        raise TypeError(
            "a trace must be a path, a mapping of columns, or rows (worker, start, finish), "
            f"got {source!r}"
        ) from None
    return _from_rows(rows)


def existing_file(path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the path; raises ``FileNotFoundError`` if no file is there."""
    found = pathlib.Path(path)
    if not found.is_file():
        raise FileNotFoundError(f"there is no file {found}")
    return found


def csv_rows(path: pathlib.Path) -> Iterator[tuple[int, list[str]]]:
    """Yields the rows that are not blank, each with the number of the line where it ends."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        try:
            for row in reader:
                if row:
                    yield reader.line_num, row
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not a text file in UTF-8: {error}") from error
        except csv.Error as error:
            raise ValueError(f"{path} is no CSV at line {reader.line_num}: {error}") from error


def import_parquet() -> tuple[Any, Any]:
    """Returns the modules ``pyarrow`` and ``pyarrow.parquet``."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "a .parquet file needs the extra 'parquet': pip install 'async_optax[parquet]'"
        ) from error
    return pyarrow, pyarrow.parquet


def _from_mapping(source: Any) -> Cells:
    _require_columns("the trace", [str(name) for name in source.keys()])  # noqa: SIM118
    columns = {name: np.asarray(source[name]) for name in _COLUMNS}
    shapes = [column.shape for column in columns.values()]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1:
        shown = ", ".join(map(str, shapes))
        raise ValueError(
            f"worker, start and finish must be columns of one length, got shapes {shown}"
        )
    return Cells("the trace", columns)


def _from_rows(rows: list[Any]) -> Cells:
    faults = {}
    for index, row in enumerate(rows):
        if not (isinstance(row, tuple | list | np.ndarray) and len(row) == 3):
            faults[index] = f"{row!r} is not (worker, start, finish)"
            rows[index] = ("", "", "")
    columns = list(zip(*rows, strict=True)) or [()] * 3
    return Cells("the trace", dict(zip(_COLUMNS, columns, strict=True)), faults=faults)


def _from_csv(path: pathlib.Path) -> Cells:
    worker: list[str] = []
    start: list[str] = []
    finish: list[str] = []
    lines: list[int] = []
    faults = {}
    rows = csv_rows(path)
    header = [cell.strip() for cell in next(rows, (0, []))[1]]
    _require_columns(str(path), header)
    at_worker, at_start, at_finish = map(header.index, _COLUMNS)
    width = max(at_worker, at_start, at_finish) + 1
    for line, row in rows:
        if len(row) < width:
            faults[len(lines)] = f"too few cells, {len(row)} of {len(header)}"
            row = [""] * width
        worker.append(row[at_worker])
        start.append(row[at_start])
        finish.append(row[at_finish])
        lines.append(line)
    columns = {"worker": worker, "start": start, "finish": finish}
    return Cells(str(path), columns, lines, faults)


def _from_parquet(path: pathlib.Path) -> Cells:
    pyarrow, parquet = import_parquet()
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            table = file.read(columns=[name for name in _COLUMNS if name in names])
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is damaged, or not a Parquet file: {error}") from error
    _require_columns(str(path), names)
    columns = {}
    for name in _COLUMNS:
        column = table[name].combine_chunks()
        if isinstance(column, pyarrow.DictionaryArray):  # categories
            column = column.dictionary_decode()
        columns[name] = column.to_numpy(zero_copy_only=False)
    return Cells(str(path), columns)


def _require_columns(origin: str, names: Sequence[str]) -> None:
    missing = [name for name in _COLUMNS if name not in names]
    if missing:
        raise ValueError(
            f"{origin} has no column {', '.join(missing)}; its columns are "
            f"{', '.join(names) or 'none'}"
        )
