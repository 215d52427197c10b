"""Several processes that sweep together must be asked for the same."""

from collections.abc import Hashable, Sequence

import jax

from async_optax.engine.processes import require_same
from async_optax.sweeps.table import Table

_COMPARED = ("version", "status", "timeline_digest", "problem_digest", "optimizer_digest")


def require_agreement(table: Table, options: Sequence[Hashable]) -> None:
    """Raises on every process if one was asked for another sweep: they would wait for ever.

    Args:
      table: what is asked for, and what has been computed.
      options: what else decides what is run.

    Raises:
      ValueError: naming the processes that differ from process 0.
    """
    if jax.process_count() == 1:
        return
    arrays = [table.arrays[name].tolist() for name in _COMPARED]
    text = repr((table.axes, table.metrics, options, arrays))
    require_same(text, "asked for the same sweep, with the same data and files")
