"""Measured jobs: who computed from when to when, read from a file or given as rows."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from async_optax.timelines.sources import Cells, read_cells
from async_optax.validation import require_count

_MAX_REPORTED = 5


@dataclasses.dataclass(frozen=True, eq=False)
class MeasuredJobs:
    """Jobs in the order in which they finished; at equal times, in that of their starts.

    Attributes:
      worker: int32 ``[num_jobs]``, who computed.
      start: float64 ``[num_jobs]``, in the unit of the source; the earliest is 0.
      finish: float64 ``[num_jobs]``, later than ``start``.
      names: what the source calls worker 0, 1, ...
    """

    worker: np.ndarray
    start: np.ndarray
    finish: np.ndarray
    names: tuple[str, ...]


def read_jobs(source: Any) -> MeasuredJobs:
    """Reads measured jobs: a row (worker, start, finish) each.

    Workers may be called by strings or integers. They are numbered 0, 1, ...: in numeric order if
    all are integers, otherwise in the order in which they first appear. Times are shifted so that
    the earliest start is 0.

    Args:
      source: a path to a ``.csv`` file (with a header) or a ``.parquet`` file, or a mapping, each
        with the columns ``worker``, ``start`` and ``finish`` in any order, further ones being
        ignored; or rows (worker, start, finish). Times in seconds, or any unit. Rows may come in
        any order, and the jobs of one worker must not overlap.

    Returns:
      :class:`MeasuredJobs`.

    Raises:
      FileNotFoundError: if there is no such file.
      ImportError: if the file is Parquet and pyarrow is not installed.
      TypeError: if ``source`` is none of these.
      ValueError: if the file cannot be read, a column is missing, there are no jobs, or rows are
        faulty: then it names the first of them, counted from 1, and why.

    Example:
      >>> jobs = read_jobs([("b", 10.0, 12.5), ("a", 10.5, 11.0), ("a", 11.0, 13.0)])
      >>> jobs.worker, jobs.names
      (array([1, 0, 1], dtype=int32), ('b', 'a'))
      >>> jobs.finish
      array([1. , 2.5, 3. ])
    """
    return source if isinstance(source, MeasuredJobs) else _checked(read_cells(source))


def trace_columns(source: Any, size: int) -> dict[str, Any]:
    """Returns the columns of the timeline in which each measured job arrives when it finishes."""
    require_count("size", size)
    jobs = read_jobs(source)
    if size > len(jobs.worker):
        raise ValueError(f"size must be <= the {len(jobs.worker)} jobs of the trace, got {size}")
    return {
        "num_workers": len(jobs.names),
        "end_time": float(jobs.finish[-1]),
        **commit_every(size, jobs.worker, jobs.start, jobs.finish),
    }


def commit_every(
    size: int, worker: np.ndarray, start_time: np.ndarray, time: np.ndarray
) -> dict[str, Any]:
    """Returns the columns of sorted arrivals, all accepted, each ``size`` of which commit."""
    arrivals = np.arange(len(time))
    return {
        "worker": worker,
        "read_version": (np.searchsorted(time, start_time, side="right") // size).astype(np.int32),
        "version": (arrivals // size).astype(np.int32),
        "start_time": start_time,
        "time": time,
        "weight": np.full(len(time), 1 / size),
        "accepted": np.ones(len(time), bool),
        "commit": arrivals % size == size - 1,
    }


def ordered_names(names: Iterable[str]) -> tuple[str, ...]:
    """Returns each name once: in numeric order if all are integers, otherwise as they come."""
    unique = tuple(dict.fromkeys(names))
    try:
        numbers = [int(name) for name in unique]
    except ValueError:
        return unique
    canonical = [str(number) for number in numbers] == list(unique)  # 7 and 007 are two names
    return tuple(str(number) for number in sorted(numbers)) if canonical else unique


def worker_name(cell: Any) -> str | None:
    """Returns the name that a cell gives a worker, ``None`` if it gives none."""
    if isinstance(cell, str):
        return cell.strip() or None
    if isinstance(cell, bool) or not isinstance(cell, int | float | np.integer | np.floating):
        return None
    return str(int(cell)) if np.isfinite(cell) and cell == int(cell) else None


def _checked(cells: Cells) -> MeasuredJobs:
    columns = cells.columns
    if not len(columns["worker"]):
        raise ValueError(f"{cells.origin} has no jobs")
    worker, names = _numbered(columns["worker"])
    start, finish = _floats(columns["start"]), _floats(columns["finish"])
    known = start[np.isfinite(start)]
    with np.errstate(over="ignore"):
        earliest = known.min() if len(known) else 0.0
        start, finish = start - earliest, finish - earliest
    valid = (worker >= 0) & np.isfinite(start) & np.isfinite(finish)
    valid &= np.where(valid, finish, 1) > np.where(valid, start, 0)

    faults = {
        row: cells.faults.get(row) or _fault(cells, row, worker, start, finish)
        for row in np.flatnonzero(~valid).tolist()
    }
    rows = np.flatnonzero(valid)
    by_worker = rows[np.lexsort((start[rows], worker[rows]))]
    one, next_one = by_worker[:-1], by_worker[1:]
    if ((worker[one] == worker[next_one]) & (start[next_one] < finish[one])).any():
        faults |= _overlaps(cells, by_worker, worker, start, finish)
    if faults:
        first = sorted(faults)[:_MAX_REPORTED]
        shown = "".join(f"\n  {cells.row(row)}: {faults[row]}" for row in first)
        more = f"\n  and {len(faults) - len(first)} more" if len(faults) > len(first) else ""
        raise ValueError(f"{cells.origin} has faulty rows, {len(faults)} in all:{shown}{more}")

    order = np.lexsort((start, finish))
    return MeasuredJobs(worker[order], start[order], finish[order], names)


def _numbered(cells: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns the number of each cell's worker, -1 for none, and the names of all."""
    values = cells.tolist() if isinstance(cells, np.ndarray) else cells
    try:
        called = {value: worker_name(value) for value in dict.fromkeys(values)}
    except TypeError:  # some cannot even be keys
        values = [worker_name(value) for value in values]
        called = {value: value for value in values}
    names = ordered_names(name for name in called.values() if name is not None)
    numbers = {name: number for number, name in enumerate(names)}
    of_value = {value: -1 if name is None else numbers[name] for value, name in called.items()}
    return np.fromiter(map(of_value.__getitem__, values), np.int32, len(values)), names


def _floats(cells: Any) -> np.ndarray:
    """Returns the cells as numbers, NaN where they are none."""
    if isinstance(cells, np.ndarray) and cells.dtype.kind in "iuf":
        return cells.astype(np.float64)
    try:
        return np.fromiter(map(float, cells), np.float64, len(cells))
    except (TypeError, ValueError, OverflowError):
        return np.fromiter(map(_float, cells), np.float64, len(cells))


def _float(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return np.nan


def _fault(
    cells: Cells, row: int, worker: np.ndarray, start: np.ndarray, finish: np.ndarray
) -> str:
    """Says what is wrong with a row on its own."""
    for name, holds in (
        ("worker", worker[row] >= 0),
        ("start", np.isfinite(start[row])),
        ("finish", np.isfinite(finish[row])),
    ):
        cell = cells.columns[name][row]
        if not holds and (cell is None or not str(cell).strip()):
            return f"{name} is empty"
        if not holds:
            wanted = "a name or an integer" if name == "worker" else "a finite number"
            shown = repr(cell) if isinstance(cell, str) else cell
            return f"{name} is not {wanted}, got {shown}"
    return f"finish {cells.columns['finish'][row]} is not after start {cells.columns['start'][row]}"


def _overlaps(
    cells: Cells,
    by_worker: np.ndarray,
    worker: np.ndarray,
    start: np.ndarray,
    finish: np.ndarray,
) -> dict[int, str]:
    """Returns what to say of each row that starts before an earlier job of its worker ends."""
    columns = cells.columns
    faults, last = {}, by_worker[0]  # the job of this worker that ends last so far
    for row in by_worker[1:]:
        if worker[row] == worker[last] and start[row] < finish[last]:
            faults[int(row)] = (
                f"starts at {columns['start'][row]}, but {cells.row(last)}, of the same worker "
                f"{columns['worker'][row]}, ends at {columns['finish'][last]}"
            )
        if worker[row] != worker[last] or finish[row] > finish[last]:
            last = row
    return faults
