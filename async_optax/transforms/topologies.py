"""Topologies: who mixes with whom, and with which weights."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from async_optax.transforms.graph_checks import (
    require_connected,
    require_doubly_stochastic,
    require_square,
    require_symmetric_matrix,
)
from async_optax.transforms.mixing_matrix import (
    CyclicMixing,
    Mixing,
    PairMixing,
    require_mixing,
)
from async_optax.validation import require_count, require_number, require_seed


def ring(num_agents: int) -> CyclicMixing:
    """Every agent mixes with the one before and the one after it, at weights 1/3.

    Args:
      num_agents: n >= 1.

    Returns:
      A mixing; symmetric.

    Raises:
      ValueError: if ``num_agents`` is out of range.

    Example:
      >>> ring(4).matrices[0].round(2)
      array([[0.33, 0.33, 0.  , 0.33],
             [0.33, 0.33, 0.33, 0.  ],
             [0.  , 0.33, 0.33, 0.33],
             [0.33, 0.  , 0.33, 0.33]])
    """
    require_count("num_agents", num_agents)
    return from_graph(_shifts(num_agents, (1, -1)))


def grid(num_rows: int, num_columns: int, *, torus: bool = True) -> CyclicMixing:
    """Agents in rows and columns mix with their neighbours above, below, left and right.

    Agent ``row * num_columns + column`` has the weights of :func:`from_graph`: 1/5 on a torus of
    at least 3 by 3.

    Args:
      num_rows: >= 1.
      num_columns: >= 1.
      torus: whether rows and columns are closed to rings.

    Returns:
      A mixing; symmetric.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> grid(3, 3).matrices[0][0].round(1)
      array([0.2, 0.2, 0.2, 0.2, 0. , 0. , 0.2, 0. , 0. ])
    """
    require_count("num_rows", num_rows)
    require_count("num_columns", num_columns)
    along, across = (_path(n, torus) for n in (num_columns, num_rows))
    links = np.kron(np.eye(num_rows, dtype=bool), along) | np.kron(
        across, np.eye(num_columns, dtype=bool)
    )
    return from_graph(links)


def complete(num_agents: int) -> CyclicMixing:
    """Every agent takes the mean of all: with equal starts, minibatch SGD on n batches.

    Args:
      num_agents: n >= 1.

    Returns:
      A mixing with all weights ``1 / n``; symmetric.

    Raises:
      ValueError: if ``num_agents`` is out of range.

    Example:
      >>> complete(2).matrices[0]
      array([[0.5, 0.5],
             [0.5, 0.5]])
    """
    require_count("num_agents", num_agents)
    return from_matrix(np.full((num_agents, num_agents), 1 / num_agents))


def exponential(num_agents: int) -> CyclicMixing:
    """Agent i listens to itself and to the agents 1, 2, 4, 8, ... after it, at equal weights.

    Args:
      num_agents: n >= 1; everyone has ``ceil(log2(n))`` neighbours.

    Returns:
      A mixing; doubly stochastic, but not symmetric.

    Raises:
      ValueError: if ``num_agents`` is out of range.

    Example:
      >>> exponential(4).matrices[0][0].round(2)
      array([0.33, 0.33, 0.33, 0.  ])

    References:
      Assran, Loizou, Ballas, Rabbat, `Stochastic Gradient Push for Distributed Deep Learning
      <https://arxiv.org/abs/1811.10792>`_, 2019. Certainty: memory.
    """
    require_count("num_agents", num_agents)
    hops = _hops(num_agents)
    links = _shifts(num_agents, hops).astype(np.float64) + np.eye(num_agents)
    return from_matrix(links / (len(hops) + 1))


def one_peer_exponential(num_agents: int) -> CyclicMixing:
    """At step t agent i takes the mean with the agent ``2**(t % ceil(log2(n)))`` after it.

    Every agent sends one message per step; if n is a power of two, ``log2(n)`` steps give all of
    them the mean.

    Args:
      num_agents: n >= 1.

    Returns:
      A time-varying mixing; doubly stochastic, but not symmetric.

    Raises:
      ValueError: if ``num_agents`` is out of range.

    Example:
      >>> first, second = one_peer_exponential(4).matrices
      >>> second @ first @ np.array([0.0, 0.0, 0.0, 4.0])
      array([1., 1., 1., 1.])

    References:
      Ying et al., `Exponential Graph is Provably Efficient for Decentralized Deep Training
      <https://arxiv.org/abs/2110.13363>`_, 2021. Certainty: memory.
    """
    require_count("num_agents", num_agents)
    shifts = [_shifts(num_agents, (hop,)) for hop in _hops(num_agents) or (0,)]
    return cycle([(np.eye(num_agents) + shift) / 2 for shift in shifts])


def from_matrix(matrix: Any) -> CyclicMixing:
    """Mixes with any doubly stochastic matrix: agent i takes ``sum_j matrix[i, j] x_j``.

    Args:
      matrix: numbers >= 0 ``[n, n]``; every row and every column sums to 1, and every agent is
        reached from every other.

    Returns:
      A mixing.

    Raises:
      ValueError: if it is not square or not doubly stochastic, naming the first entry, row or
        column, or if some agents cannot be reached, naming them.

    Example:
      >>> from_matrix([[0.5, 0.5], [0.4, 0.6]])
      Traceback (most recent call last):
      ...
      ValueError: matrix must be doubly stochastic, but its column 0 sums to 0.9
    """
    checked = require_doubly_stochastic("matrix", matrix)
    require_connected("matrix", checked > 0)
    return CyclicMixing.of([checked])


def from_graph(links: Any) -> CyclicMixing:
    """Mixes over any undirected graph, with the weights of Metropolis and Hastings.

    With d_i the number of neighbours of agent i: ``W_ij = 1 / (1 + max(d_i, d_j))`` for
    neighbours i and j, ``W_ii`` what is missing to 1.

    Args:
      links: bool or 0 and 1 ``[n, n]``, symmetric; whether i and j are neighbours. The diagonal
        does not matter.

    Returns:
      A mixing; symmetric.

    Raises:
      ValueError: if it is not square or not symmetric, naming the first entry, or if some agents
        cannot be reached, naming them.

    Example:
      >>> from_graph([[0, 1, 0], [1, 0, 1], [0, 1, 0]]).matrices[0].round(2)
      array([[0.67, 0.33, 0.  ],
             [0.33, 0.33, 0.33],
             [0.  , 0.33, 0.67]])

    References:
      Xiao, Boyd, `Fast linear iterations for distributed averaging
      <https://doi.org/10.1016/j.sysconle.2004.02.022>`_, 2004. Certainty: memory.
    """
    graph = require_square("links", links)
    strange = np.argwhere((graph != 0) & (graph != 1))
    if len(strange):
        i, j = strange[0]
        raise ValueError(f"links must be 0 or 1, got links[{i}, {j}]={graph[i, j]:g}")
    require_symmetric_matrix("links", graph)
    graph = (graph != 0) & ~np.eye(len(graph), dtype=bool)
    require_connected("links", graph)
    degrees = graph.sum(1)
    weights = graph / (1.0 + np.maximum(degrees[:, np.newaxis], degrees[np.newaxis]))
    return CyclicMixing.of([weights + np.diag(1 - weights.sum(1))])


def cycle(matrices: Sequence[Any]) -> CyclicMixing:
    """Mixes with several matrices in turn: at step t with ``matrices[t % len(matrices)]``.

    Args:
      matrices: doubly stochastic matrices ``[n, n]``, or mixings that do not change at random. Each
        for itself may leave agents apart, all together may not.

    Returns:
      A time-varying mixing.

    Raises:
      ValueError: if there is none, one is not doubly stochastic, sizes differ, or some agents
        cannot be reached over all of them.

    Example:
      >>> cycle([ring(4), complete(4)])
      CyclicMixing(4 agents, period 2)
    """
    parts = []
    for i, matrix in enumerate(matrices):
        given = matrix.matrices if isinstance(matrix, CyclicMixing) else [matrix]
        parts += [require_doubly_stochastic(f"matrices[{i}]", part) for part in given]
        if parts[-1].shape != parts[0].shape:
            raise ValueError(
                f"matrices must have one size, got {parts[0].shape} and {parts[-1].shape}"
            )
    if not parts:
        raise ValueError("matrices must not be empty")
    require_connected("matrices", np.any([part > 0 for part in parts], axis=0))
    return CyclicMixing.of(parts)


def random_pairings(num_agents: int, seed: int = 0) -> PairMixing:
    """At each step agents are paired at random, and each pair takes its mean.

    The pairs of step t are those of ``fold_in(key(seed), t)``: every perfect matching is equally
    likely. If n is odd, one agent stays alone at each step.

    Args:
      num_agents: n >= 1.
      seed: an integer in [0, 2**31).

    Returns:
      A time-varying mixing; symmetric.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> random_pairings(4).matrices_at(np.arange(2))[0]
      array([[0.5, 0.5, 0. , 0. ],
             [0.5, 0.5, 0. , 0. ],
             [0. , 0. , 0.5, 0.5],
             [0. , 0. , 0.5, 0.5]])

    References:
      Boyd, Ghosh, Prabhakar, Shah, `Randomized gossip algorithms
      <https://doi.org/10.1109/TIT.2006.874516>`_, 2006, where one pair mixes at a time.
    """
    require_count("num_agents", num_agents)
    require_seed(seed)
    others = 0.5 * (1 - np.eye(num_agents))
    return PairMixing(num_agents, jax.random.key(seed), 1 - others, others)


def delayed_links(
    mixing: Mixing, fraction: float, seed: int = 0, *, symmetric: bool = False
) -> np.ndarray:
    """Draws the links whose messages come late.

    Args:
      mixing: its links, ``W_ij > 0`` for i != j at some step, are drawn from.
      fraction: of the links, in [0, 1], rounded to a whole number of them.
      seed: an integer in [0, 2**31).
      symmetric: whether a link is late in both directions or in none.

    Returns:
      Bool ``[n, n]``: whether agent i gets what agent j sends late; the diagonal is false.
      Multiplied by a delay in steps it is the ``delays`` of
      :func:`async_optax.transforms.mix_neighbours`.

    Raises:
      TypeError: if ``mixing`` is not a mixing.
      ValueError: if a number is out of range.

    Example:
      >>> delayed_links(ring(3), 0.5).astype(int)
      array([[0, 0, 1],
             [1, 0, 1],
             [0, 0, 0]])
    """
    require_mixing(mixing)
    require_number("fraction", fraction, at_least=0, at_most=1)
    require_seed(seed)
    links = mixing.links()
    late = np.zeros_like(links)
    drawn_from = np.argwhere(np.triu(links | links.T) if symmetric else links)
    count = round(fraction * len(drawn_from))
    draws = np.random.Generator(np.random.PCG64(seed)).random(len(drawn_from))
    rows, columns = drawn_from[np.argsort(draws, kind="stable")[:count]].T
    late[rows, columns] = True
    return (late | late.T) & links if symmetric else late


def require_symmetric(mixing: Mixing, what: str) -> None:
    """Raises unless the matrices of a mixing are symmetric.

    Args:
      mixing: the mixing.
      what: needs it to be, for the message.

    Raises:
      ValueError: naming the first entry that differs from its mirror image.

    Example:
      >>> require_symmetric(exponential(4), "averaging in pairs")
      Traceback (most recent call last):
      ...
      ValueError: averaging in pairs needs a symmetric mixing, but W[0, 1]=0.3333 and W[1, 0]=0
    """
    require_mixing(mixing)
    for matrix in mixing.matrices if isinstance(mixing, CyclicMixing) else ():
        require_symmetric_matrix("W", matrix, f"{what} needs a symmetric mixing, but ")


def _hops(num_agents: int) -> tuple[int, ...]:
    return tuple(2**k for k in range((num_agents - 1).bit_length()))


def _shifts(num_agents: int, hops: Sequence[int]) -> np.ndarray:
    """Bool ``[n, n]``: whether j is some hop after i."""
    eye = np.eye(num_agents, dtype=bool)
    return np.any([np.roll(eye, hop, axis=1) for hop in hops], axis=0) if hops else eye & False


def _path(num_agents: int, closed: bool) -> np.ndarray:
    links = np.eye(num_agents, k=1, dtype=bool) | np.eye(num_agents, k=-1, dtype=bool)
    return links | _shifts(num_agents, (1, -1)) if closed else links
