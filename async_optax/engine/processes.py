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
        raise OSError(errno.EIO, "the checkpoint failed on process 0: see there")
    return number


class Together:
    """Steps that all processes take: an error on one ends them all.

    Every process calls this in the same order, from one thread at a time; a step may be part of
    another. Each process hears of an error at its next step, and takes no further one.
    """

    def __init__(self, name: str) -> None:
        """Takes what the steps are parts of, for messages, such as ``"the sweep"``."""
        self._name = name
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
            raise OSError(errno.EIO, f"{self._name} has failed at a step before")
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
            raise OSError(errno.EIO, f"{self._name} failed on processes {failed}: see there")
        return result


def of_first_process(seconds: float, mesh: Mesh | None) -> float:
    """Returns what process 0 measured, if a mesh spans several: all must decide the same."""
    if mesh is None or not mesh.is_multi_process:
        return seconds
    return float(multihost_utils.broadcast_one_to_all(np.float32(seconds)))


def least_of_processes(number: float, mesh: Mesh | None) -> float:
    """Returns the least that a process has, if a mesh spans several: all must decide the same."""
    if mesh is None or not mesh.is_multi_process:
        return number
    return float(multihost_utils.process_allgather(np.float32(number)).min())


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
    require_same(
        repr(sorted(config.items())), "given the same problem, optimizer, timeline, key and lanes"
    )


def require_same(text: str, expected: str) -> None:
    """Raises on all processes if the text of one differs.

    Args:
      text: what is compared.
      expected: what all processes must be, for the message.

    Raises:
      ValueError: naming the processes that differ from process 0.
    """
    digest = hashlib.sha256(text.encode()).digest()
    digests = multihost_utils.process_allgather(np.frombuffer(digest, np.uint8))
    different = np.flatnonzero((digests != digests[0]).any(axis=1)).tolist()
    if different:
        raise ValueError(
            f"all processes must be {expected}: processes {different} differ from process 0"
        )
