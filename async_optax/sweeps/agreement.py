"""Several processes that sweep together must run the same cells in the same way."""

import hashlib
from collections.abc import Hashable, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

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
    content = hashlib.sha256(repr((table.axes, table.metrics, options)).encode())
    for name in _COMPARED:
        content.update(repr(table.arrays[name].tolist()).encode())
    digests = multihost_utils.process_allgather(np.frombuffer(content.digest(), np.uint8))
    different = np.flatnonzero((digests != digests[0]).any(1)).tolist()
    if different:
        raise ValueError(
            "all processes must be asked for the same sweep, with the same data and files: "
            f"processes {different} differ from process 0"
        )
