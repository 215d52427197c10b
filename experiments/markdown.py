"""Lines of the tables in the READMEs."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def table_row(cells: Iterable[Any]) -> str:
    """Returns a row of a table.

    Example:
      >>> table_row(["SGD", 3])
      '| SGD | 3 |'
    """
    return f"| {' | '.join(map(str, cells))} |"


def table_head(columns: Sequence[str]) -> list[str]:
    """Returns the two lines with which a table begins.

    Example:
      >>> table_head(["method", "runs"])
      ['| method | runs |', '| --- | --- |']
    """
    return [table_row(columns), table_row(["---"] * len(columns))]


def deviation(values: ArrayLike) -> float:
    """Returns the standard deviation of a sample; 0 for a single value.

    Example:
      >>> round(deviation([1.0, 2.0, 3.0]), 6), deviation([1.0])
      (1.0, 0.0)
    """
    found = np.asarray(values, float)
    return float(found.std(ddof=1)) if found.size > 1 else 0.0


def spread(values: ArrayLike, digits: int, sign: str = "") -> str:
    """Returns mean and standard deviation.

    Args:
      values: of the seeds.
      digits: after the point.
      sign: ``"+"`` for differences.

    Example:
      >>> spread([1.0, 2.0, 3.0], 1, "+"), spread([0.25], 2)
      ('+2.0 ± 1.0', '0.25 ± 0.00')
    """
    return f"{np.mean(values):{sign}.{digits}f} ± {deviation(values):.{digits}f}"
