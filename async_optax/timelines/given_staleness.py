"""Staleness that is given, measured or drawn, instead of simulated."""

import heapq
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from async_optax.timelines.runtimes.streams import STALENESS, stream
from async_optax.timelines.sources import csv_rows, existing_file
from async_optax.validation import require_count, require_seed


def uniform_staleness(max_staleness: int, num_commits: int, seed: int = 0) -> np.ndarray:
    """Draws the staleness of each commit, all values up to a maximum being equally likely.

    Row i has staleness ``floor(u[i] * (1 + min(max_staleness, i)))``, where the ``u[i]`` are
    independent and uniform on [0, 1): Uniform{0, ..., min(max_staleness, i)}, as only i versions
    have been made before it.

    Args:
      max_staleness: largest staleness, >= 0.
      num_commits: number of rows, >= 1; fewer are the first of more.
      seed: an integer in [0, 2**31).

    Returns:
      int32 ``[num_commits]``, for :meth:`Timeline.from_staleness`.

    Raises:
      TypeError: if an argument is not an integer.
      ValueError: if one is out of range.

    Example:
      >>> uniform_staleness(4, 10)
      array([0, 1, 2, 3, 3, 3, 3, 3, 2, 2], dtype=int32)

    References:
      Xie, Koyejo, Gupta, `Asynchronous Federated Optimization
      <https://arxiv.org/abs/1903.03934>`_, 2019 (FedAsync), whose experiments draw the staleness
      uniformly (up to 4 or 16, as we recall). Here 0 is fresh, and the first rows are bounded by
      the versions that exist.
    """
    require_count("max_staleness", max_staleness, at_least=0)
    require_count("num_commits", num_commits)
    require_seed(seed)
    draws = stream(seed, STALENESS).random(num_commits)
    return (draws * (1 + np.minimum(max_staleness, np.arange(num_commits)))).astype(np.int32)


def staleness_columns(source: Any, column: int | str | None) -> dict[str, Any]:
    """Returns the columns of the timeline whose i-th arrival commits with the i-th staleness."""
    if isinstance(source, str | os.PathLike):
        staleness = _from_csv(source, column)
    elif column is not None:
        raise ValueError(f"column={column!r} is of a file, but staleness is given as numbers")
    else:
        staleness = _checked("staleness", source)
    versions = np.arange(len(staleness))
    read_version = versions - staleness
    worker, num_workers = _lowest_free_workers(read_version)
    return {
        "num_workers": num_workers,
        "end_time": float(len(versions)),
        "worker": worker,
        "read_version": read_version.astype(np.int32),
        "version": versions.astype(np.int32),
        "start_time": read_version.astype(np.float64),
        "time": versions + 1.0,
        "weight": np.ones(len(versions)),
        "accepted": np.ones(len(versions), bool),
        "commit": np.ones(len(versions), bool),
    }


def _lowest_free_workers(start: np.ndarray) -> tuple[np.ndarray, int]:
    """Gives job i, from ``start[i]`` to i + 1, the lowest worker free; returns how many there are.

    Jobs are handed out in the order of their starts, so nobody is called in unless all before are
    busy: there are as many workers as jobs in flight at most.
    """
    worker = [0] * len(start)
    free: list[int] = []
    num_workers = num_done = 0
    order = np.argsort(start, kind="stable")
    for job, begin in zip(order.tolist(), start[order].tolist(), strict=True):
        for done in range(num_done, begin):
            heapq.heappush(free, worker[done])
        num_done = max(num_done, begin)
        if free:
            worker[job] = heapq.heappop(free)
        else:
            worker[job] = num_workers
            num_workers += 1
    return np.array(worker, np.int32), num_workers


def _checked(origin: str, values: Any, lines: Sequence[int] = ()) -> np.ndarray:
    """Returns the values as int64, or raises naming the first that is no possible staleness."""
    numbers = np.asarray(values)
    if numbers.ndim != 1:
        raise ValueError(f"{origin} must be one number per commit, got shape {numbers.shape}")
    if not len(numbers):
        raise ValueError(f"{origin} must have at least one row, got none")
    if numbers.dtype.kind not in "iuf":
        raise TypeError(f"{origin} must be integers >= 0, got dtype {numbers.dtype}")
    rows = np.arange(len(numbers))
    whole = np.isfinite(numbers) & (numbers >= 0) & (numbers == np.floor(numbers))
    faulty = ~(whole & (numbers <= rows))
    if faulty.any():
        row = int(np.argmax(faulty))
        where = f"row {row}" + (f" (line {lines[row]})" if len(lines) else "")
        if whole[row]:
            raise ValueError(
                f"{origin}: {where} has staleness {numbers[row]:g}, but only {row} versions have "
                f"been made before it: it is at most {row}"
            )
        raise ValueError(f"{origin}: {where} must be an integer >= 0, got {numbers[row]:g}")
    return numbers.astype(np.int64)


def _from_csv(source: str | os.PathLike[str], column: int | str | None) -> np.ndarray:
    path = existing_file(source)
    rows = list(csv_rows(path))
    if not rows:
        raise ValueError(f"{path} must have at least one row, got none")
    first = [cell.strip() for cell in rows[0][1]]
    has_header = not any(_is_number(cell) for cell in first)
    index = _column_index(str(path), first, has_header, column)
    values, lines = [], []
    for line, row in rows[has_header:]:
        try:
            values.append(float(row[index]))
        except (IndexError, ValueError):
            cell = repr(row[index]) if index < len(row) else f"{len(row)} cells"
            where = f"row {len(values)} (line {line})"
            raise ValueError(f"{path}: {where} must be an integer >= 0, got {cell}") from None
        lines.append(line)
    return _checked(str(path), np.array(values), lines)


def _column_index(
    origin: str, first: Sequence[str], has_header: bool, column: int | str | None
) -> int:
    there = ", ".join(first) if has_header else f"0 to {len(first) - 1}, without a header"
    if column is None:
        if len(first) > 1:
            raise ValueError(
                f"{origin} has {len(first)} columns: say which by column=; they are {there}"
            )
        return 0
    if isinstance(column, str) and has_header and column in first:
        return first.index(column)
    if not isinstance(column, str):
        require_count("column", column, at_least=0)
        if column < len(first):
            return column
    raise ValueError(f"{origin} has no column {column!r}: its columns are {there}")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
