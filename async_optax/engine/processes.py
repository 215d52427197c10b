"""Several processes that run one simulation: what one does is known to all."""

import errno
import hashlib
from collections.abc import Callable, Mapping
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

_T = TypeVar("_T")
_FAILED = np.iinfo(np.int32).min


def on_first_process(action: Callable[[], int]) -> int:
    """Runs an action on process 0; all processes return its number, or fail."""
    if jax.process_count() == 1:
        return action()
    number, failure = _FAILED, None
    if jax.process_index() == 0:
        try:
            number = action()
        except Exception as error:  # told to the others first: they wait
            failure = error
    number = int(multihost_utils.broadcast_one_to_all(np.int32(number)))
    if failure is not None:
        raise failure
    if number == _FAILED:
        raise OSError(errno.EIO, "process 0 failed at a checkpoint: see its error")
    return number


def on_all_processes(action: Callable[[], _T]) -> _T:
    """Runs an action on every process; if it fails on one, all fail."""
    if jax.process_count() == 1:
        return action()
    results, failure = [], None
    try:
        results.append(action())
    except Exception as error:  # told to the others first: they wait
        failure = error
    succeeded = multihost_utils.process_allgather(np.int32(failure is None))
    if failure is not None:
        raise failure
    if not succeeded.all():
        failed = np.flatnonzero(succeeded == 0).tolist()
        raise OSError(errno.EIO, f"processes {failed} failed at a checkpoint: see their errors")
    return results[0]


def of_first_process(seconds: float, mesh: Mesh | None) -> float:
    """Returns what process 0 measured, if a mesh spans several: all must decide the same."""
    if mesh is None or not mesh.is_multi_process:
        return seconds
    return float(multihost_utils.broadcast_one_to_all(np.float32(seconds)))


def require_same_run(config: Mapping[str, str], mesh: Mesh | None) -> None:
    """Raises on all processes that share a mesh if one of them was asked for another run.

    They would mix the gradients of both, or wait for each other for ever.

    Args:
      config: a description of the run.
      mesh: where it is executed.

    Raises:
      ValueError: naming the processes that differ from process 0.
    """
    if mesh is None or not mesh.is_multi_process:
        return
    digest = hashlib.sha256(repr(sorted(config.items())).encode()).digest()
    digests = multihost_utils.process_allgather(np.frombuffer(digest, np.uint8))
    different = np.flatnonzero((digests != digests[0]).any(axis=1)).tolist()
    if different:
        raise ValueError(
            "all processes must be given the same problem, optimizer, timeline, key and lanes: "
            f"processes {different} differ from process 0"
        )
