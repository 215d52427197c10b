"""Several processes that sweep together: they are asked the same, and end together."""

import errno
import hashlib
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from async_optax.sweeps.table import Table

_T = TypeVar("_T")
_COMPARED = ("version", "status", "timeline_digest", "problem_digest", "optimizer_digest")


class Together:
    """Steps that all processes take: an error on one ends them all.

    Every process calls this in the same order, from one thread at a time; a step may be part of
    another. Each process hears of an error at its next step, and takes no further one.
    """

    def __init__(self) -> None:
        self._has_failed = False

    def __call__(self, step: Callable[[], _T]) -> _T:
        """Takes a step.

        Args:
          step: what this process does.

        Returns:
          What the step returned.

        Raises:
          OSError: if the step failed on another process, naming it, or one before it did.
        """
        if jax.process_count() == 1:
            return step()
        if self._has_failed:  # whoever takes a step now has not heard of it yet
            raise OSError(errno.EIO, "the sweep has failed at a step before")
        try:
            result = step()
        except Exception:
            if not self._has_failed:  # else the others know: a step within this one has failed
                self._has_failed = True
                multihost_utils.process_allgather(np.int32(False))
            raise
        succeeded = multihost_utils.process_allgather(np.int32(True))
        self._has_failed = not succeeded.all()
        if self._has_failed:
            failed = np.flatnonzero(succeeded == 0).tolist()
            raise OSError(errno.EIO, f"the sweep failed on processes {failed}: see there")
        return result


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
