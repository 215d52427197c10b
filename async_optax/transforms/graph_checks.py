"""Checks of matrices over agents: stochastic, symmetric, connected, and of bools or integers."""

from typing import Any

import numpy as np

_TOLERANCE = 1e-6  # of sums, and of symmetry


def require_square(name: str, matrix: Any, num_agents: int | None = None) -> np.ndarray:
    """Returns a matrix of real numbers as an array, or raises.

    Args:
      name: the argument's name, for the message.
      matrix: ``[n, n]``.
      num_agents: n, if it is known.

    Raises:
      TypeError: if it does not hold real numbers.
      ValueError: if it has another shape.

    Example:
      >>> require_square("delays", [[0, 1]], num_agents=2)
      Traceback (most recent call last):
      ...
      ValueError: delays must have shape (2, 2), got (1, 2)
    """
    try:
        array = np.asarray(matrix)
    except ValueError as error:
        raise ValueError(f"{name} must be square, [n, n], but its rows differ in length") from error
    if num_agents is not None and array.shape != (num_agents, num_agents):
        raise ValueError(f"{name} must have shape ({num_agents}, {num_agents}), got {array.shape}")
    if array.ndim != 2 or array.shape[0] != array.shape[1] or not len(array):
        raise ValueError(f"{name} must be square, [n, n], got shape {array.shape}")
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    return array


def require_doubly_stochastic(name: str, matrix: Any) -> np.ndarray:
    """Returns a matrix as float64, or raises ``ValueError`` naming an entry, a row or a column.

    Example:
      >>> require_doubly_stochastic("W", [[0.5, 0.4], [0.5, 0.6]])
      Traceback (most recent call last):
      ...
      ValueError: W must be doubly stochastic, but its row 0 sums to 0.9
    """
    array = require_square(name, matrix).astype(np.float64)
    _require_each(name, array, np.isfinite(array) & (array >= 0), "finite and >= 0")
    for axis, line in ((1, "row"), (0, "column")):
        sums = array.sum(axis)
        wrong = np.flatnonzero(np.abs(sums - 1) > _TOLERANCE)
        if len(wrong):
            raise ValueError(
                f"{name} must be doubly stochastic, but its {line} {wrong[0]} sums to "
                f"{sums[wrong[0]]:.6g}"
            )
    return array


def require_delays(name: str, matrix: Any, num_agents: int) -> np.ndarray:
    """Returns the delay of each link as int64 ``[n, n]``, or raises naming the first wrong entry.

    Example:
      >>> require_delays("delays", [[0, 2], [1, 1]], num_agents=2)
      Traceback (most recent call last):
      ...
      ValueError: delays must be 0 on the diagonal: an agent knows itself; got delays[1, 1]=1
    """
    array = require_square(name, matrix, num_agents)
    whole = np.isfinite(array) & (array >= 0) & (array == np.floor(array))
    _require_each(name, array, whole, "integers >= 0")
    own = ~np.eye(num_agents, dtype=bool) | (array == 0)
    _require_each(name, array, own, "0 on the diagonal: an agent knows itself;")
    return array.astype(np.int64)


def require_links(name: str, matrix: Any, num_agents: int) -> np.ndarray:
    """Returns a choice of links as bool ``[n, n]``, or raises naming the first wrong entry.

    Example:
      >>> require_links("delayed", [[0, 2], [1, 0]], num_agents=2)
      Traceback (most recent call last):
      ...
      ValueError: delayed must be true or false, got delayed[0, 1]=2
    """
    array = require_square(name, matrix, num_agents)
    _require_each(name, array, (array == 0) | (array == 1), "true or false")
    own = ~np.eye(num_agents, dtype=bool) | (array == 0)
    _require_each(name, array, own, "false on the diagonal: an agent knows itself;")
    return array.astype(bool)


def require_symmetric_matrix(name: str, matrix: np.ndarray, reason: str = "") -> None:
    """Raises ``ValueError`` unless a matrix is symmetric, naming the first entry that is not.

    Args:
      name: of the matrix.
      matrix: ``[n, n]``.
      reason: how the message starts; by default that it must be.

    Example:
      >>> require_symmetric_matrix("links", np.array([[0, 1], [0, 0]]))
      Traceback (most recent call last):
      ...
      ValueError: links must be symmetric, but links[0, 1]=1 and links[1, 0]=0
    """
    matrix = matrix.astype(np.float64)
    differing = np.argwhere(~(np.abs(matrix - matrix.T) <= _TOLERANCE))
    if len(differing):
        i, j = differing[0]
        reason = reason or f"{name} must be symmetric, but "
        raise ValueError(
            f"{reason}{name}[{i}, {j}]={matrix[i, j]:.4g} and {name}[{j}, {i}]={matrix[j, i]:.4g}"
        )


def require_connected(name: str, links: np.ndarray) -> None:
    """Raises ``ValueError`` unless all agents hear of agent 0, naming those that do not.

    Where rows and columns have equal sums, or links are symmetric, all then hear of each other.

    Args:
      name: of the matrix.
      links: bool ``[n, n]``, whether agent i listens to agent j.

    Example:
      >>> require_connected("links", np.eye(3, dtype=bool))
      Traceback (most recent call last):
      ...
      ValueError: links must connect all agents, but agents 1, 2 cannot be reached from agent 0
    """
    apart = np.flatnonzero(distances(links) < 0)
    if len(apart):
        shown = ", ".join(map(str, apart[:10])) + (", ..." if len(apart) > 10 else "")
        raise ValueError(
            f"{name} must connect all agents, but agents {shown} cannot be reached from agent 0"
        )


def distances(links: np.ndarray) -> np.ndarray:
    """Returns over how many links each agent hears of agent 0, int ``[n]``; -1 if it does not.

    Args:
      links: bool ``[n, n]``, whether agent i listens to agent j.

    Example:
      >>> distances(np.eye(4, k=-1, dtype=bool))
      array([0, 1, 2, 3])
      >>> distances(np.eye(4, k=1, dtype=bool))
      array([ 0, -1, -1, -1])
    """
    listeners = np.ascontiguousarray(links.T)  # a row for each agent that is listened to
    distance = np.full(len(links), -1)
    newest, steps = np.array([0]), 0
    while len(newest):  # each agent is among the newest once: n^2 in all
        distance[newest] = steps
        newest = np.flatnonzero(listeners[newest].any(0) & (distance < 0))
        steps += 1
    return distance


def _require_each(name: str, array: np.ndarray, allowed: np.ndarray, what: str) -> None:
    faulty = np.argwhere(~allowed)
    if len(faulty):
        i, j = faulty[0]
        separator = "" if what.endswith(";") else ","
        raise ValueError(f"{name} must be {what}{separator} got {name}[{i}, {j}]={array[i, j]:g}")
