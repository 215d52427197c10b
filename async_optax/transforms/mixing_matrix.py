"""Mixing: weighted means over the neighbours of each agent, which may change from step to step."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from async_optax.transforms.precision import working_dtype

_SPARSE_SHARE = 0.5  # of the agents: with at most so many terms per row, rows are gathered


class Mixing(Protocol):
    """What agents do with their neighbours' parameters: ``x_i <- sum_j W_ij(t) x_j`` at step t.

    Made by the functions of :mod:`async_optax.transforms.topologies`, which see to it that every
    ``W(t)`` is doubly stochastic: no entry is negative, and rows and columns sum to 1, so that
    mixing keeps the mean of the agents.
    """

    @property
    def num_agents(self) -> int:
        """Number of agents n."""

    @property
    def period(self) -> int:
        """After how many steps matrices come again; 1 if they are drawn anew at each."""

    def combine(self, step: jax.Array, tree: optax.Params) -> optax.Params:
        """Returns ``sum_j W_ij(step) x_j`` of every leaf ``[n, ...]``, in at least float32."""

    def row_sums(self, step: jax.Array) -> jax.Array:
        """Returns ``sum_j W_ij(step)``, default float ``[n]``: 1 unless masked."""

    def masked(self, mask: np.ndarray) -> "Mixing":
        """Returns the mixing without the entries where ``mask``, bool ``[n, n]``, is false."""

    def matrices_at(self, steps: np.ndarray) -> np.ndarray:
        """Returns ``W(t)`` at some steps, float64 ``[len(steps), n, n]``, for host code."""

    def links(self) -> np.ndarray:
        """Returns who ever listens to whom, bool ``[n, n]``: ``W_ij(t) > 0`` at some t, i != j."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class CyclicMixing:
    """A mixing with matrices that come in turn: ``W(t) = matrices[t % period]``.

    Attributes:
      num_agents: n.
      matrices: float64 ``[period, n, n]``.
      terms: ``(sources, weights)``, int32 and float64 ``[period, n, d]``: the entries of each row
        that are not zero, if they are few; ``None`` otherwise.
      equal_rows: whether all agents take the same mean, always: then it is computed once.
    """

    num_agents: int = dataclasses.field(metadata={"static": True})
    matrices: Any
    terms: tuple[Any, Any] | None
    equal_rows: bool = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(cls, matrices: Sequence[np.ndarray] | np.ndarray) -> "CyclicMixing":
        """Makes the mixing of matrices that have been checked."""
        matrices = np.asarray(matrices, np.float64)
        equal_rows = bool((matrices == matrices[:1, :1]).all()) and matrices.shape[1] > 1
        return cls(matrices.shape[1], matrices, _terms(matrices), equal_rows)

    @property
    def period(self) -> int:
        """After how many steps matrices come again."""
        return len(self.matrices)

    def __repr__(self) -> str:
        varying = f", period {self.period}" if self.period > 1 else ""
        return f"CyclicMixing({self.num_agents} agents{varying})"

    def combine(self, step: jax.Array, tree: optax.Params) -> optax.Params:
        """Returns ``sum_j W_ij(step) x_j`` of every leaf ``[n, ...]``, in at least float32."""
        if self.equal_rows:
            first = self.matrices[0, :1]
            return jax.tree.map(lambda x: jnp.broadcast_to(_product(first, x), x.shape), tree)
        if self.terms is None:
            matrix = self._now(self.matrices, step)
            return jax.tree.map(lambda x: _product(matrix, x), tree)
        sources, weights = (self._now(part, step) for part in self.terms)
        return jax.tree.map(lambda x: _gathered(sources, weights, x), tree)

    def row_sums(self, step: jax.Array) -> jax.Array:
        """Returns ``sum_j W_ij(step)``, default float ``[n]``: 1 unless masked."""
        return jnp.sum(jnp.asarray(self._now(self.matrices, step), float), axis=1)

    def masked(self, mask: np.ndarray) -> "CyclicMixing":
        """Returns the mixing without the entries where ``mask``, bool ``[n, n]``, is false."""
        return self.of(self.matrices * mask[np.newaxis])

    def matrices_at(self, steps: np.ndarray) -> np.ndarray:
        """Returns ``W(t)`` at some steps, float64 ``[len(steps), n, n]``, for host code."""
        return self.matrices[np.asarray(steps) % self.period]

    def links(self) -> np.ndarray:
        """Returns who ever listens to whom, bool ``[n, n]``."""
        return (self.matrices > 0).any(0) & ~np.eye(self.num_agents, dtype=bool)

    def _now(self, periodic: Any, step: jax.Array) -> Any:
        return periodic[0] if len(periodic) == 1 else jnp.asarray(periodic)[step % len(periodic)]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class PairMixing:
    """A mixing in random pairs: at step t the permutation of ``fold_in(key, t)`` pairs the agents.

    Attributes:
      num_agents: n; if it is odd, one agent stays alone at each step.
      key: a typed key.
      own: float64 ``[n, n]``, the weight of agent i on itself when its partner is j.
      other: float64 ``[n, n]``, its weight on j then.
    """

    num_agents: int = dataclasses.field(metadata={"static": True})
    key: Any
    own: Any
    other: Any

    @property
    def period(self) -> int:
        """1: no step is like another, and all are alike."""
        return 1

    def __repr__(self) -> str:
        return f"PairMixing({self.num_agents} agents)"

    def partners(self, step: jax.Array) -> jax.Array:
        """Returns the partner of each agent at a step, int32 ``[n]``: itself for one left over."""
        return _partners(self.num_agents, self.key, step)

    def combine(self, step: jax.Array, tree: optax.Params) -> optax.Params:
        """Returns ``sum_j W_ij(step) x_j`` of every leaf ``[n, ...]``, in at least float32."""
        partner = self.partners(step)
        own, other = self._weights(partner)
        agents = jnp.arange(self.num_agents, dtype=jnp.int32)
        sources, weights = jnp.stack([agents, partner], 1), jnp.stack([own, other], 1)
        return jax.tree.map(lambda x: _gathered(sources, weights, x), tree)

    def row_sums(self, step: jax.Array) -> jax.Array:
        """Returns ``sum_j W_ij(step)``, default float ``[n]``: 1 unless masked."""
        own, other = self._weights(self.partners(step))
        return own + other

    def masked(self, mask: np.ndarray) -> "PairMixing":
        """Returns the mixing without the entries where ``mask``, bool ``[n, n]``, is false."""
        own = self.own * np.diag(mask)[:, np.newaxis]
        return dataclasses.replace(self, own=own, other=self.other * mask)

    def matrices_at(self, steps: np.ndarray) -> np.ndarray:
        """Returns ``W(t)`` at some steps, float64 ``[len(steps), n, n]``, for host code."""
        steps, agents = np.asarray(steps, np.int32), np.arange(self.num_agents)
        partners = np.asarray(_partners_at(self.num_agents, self.key, steps))
        matrices = np.zeros((len(steps), self.num_agents, self.num_agents))
        for matrix, partner in zip(matrices, partners, strict=True):
            matrix[agents, agents] += self.own[agents, partner]
            matrix[agents, partner] += self.other[agents, partner]
        return matrices

    def links(self) -> np.ndarray:
        """Returns who ever listens to whom, bool ``[n, n]``."""
        return (self.other > 0) & ~np.eye(self.num_agents, dtype=bool)

    def _weights(self, partner: jax.Array) -> tuple[jax.Array, jax.Array]:
        agents = jnp.arange(self.num_agents)
        own, other = (jnp.asarray(w, float)[agents, partner] for w in (self.own, self.other))
        return own, other


def _partners(num_agents: int, key: jax.Array, step: jax.Array) -> jax.Array:
    order = jax.random.permutation(jax.random.fold_in(key, step), num_agents)
    first, second = jnp.split(order[: num_agents // 2 * 2].astype(jnp.int32), 2)
    alone = jnp.arange(num_agents, dtype=jnp.int32)
    return alone.at[first].set(second).at[second].set(first)


@functools.partial(jax.jit, static_argnames="num_agents")
def _partners_at(num_agents: int, key: jax.Array, steps: jax.Array) -> jax.Array:
    return jax.lax.map(functools.partial(_partners, num_agents, key), steps)


def require_mixing(mixing: Any) -> None:
    """Raises unless ``mixing`` is one that :mod:`async_optax.transforms.topologies` makes."""
    if not isinstance(mixing, CyclicMixing | PairMixing):
        is_array = isinstance(mixing, np.ndarray | jax.Array)
        found = f"an array of shape {mixing.shape}" if is_array else repr(mixing)
        raise TypeError(
            "mixing must be a mixing such as topologies.ring(8), or topologies.from_matrix(W); "
            f"got {found}"
        )


def require_stacked(name: str, tree: optax.Params, num_agents: int) -> None:
    """Raises unless every leaf has a leading axis with an entry for each agent.

    Args:
      name: of the tree, for the message.
      tree: a pytree.
      num_agents: n.

    Raises:
      ValueError: naming the first leaf that has not.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.shape(leaf)[:1] != (num_agents,):
            raise ValueError(
                f"{name}{jax.tree_util.keystr(path)} must be stacked, with a leading axis of "
                f"{num_agents} agents, got shape {jnp.shape(leaf)}"
            )


def per_agent(values: jax.Array, x: jax.Array) -> jax.Array:
    """Returns ``values``, ``[n]``, shaped to multiply ``x``, ``[n, ...]``, in its dtype."""
    return values.astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))


def _terms(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    num_agents = matrices.shape[1]
    width = max(int(np.count_nonzero(matrices, axis=2).max()), 1)
    if width > _SPARSE_SHARE * num_agents:
        return None
    # Entries that are not zero first, each row in the order of its columns; padded with zeros.
    sources = np.argsort(matrices == 0, axis=2, kind="stable")[:, :, :width]
    return sources.astype(np.int32), np.take_along_axis(matrices, sources, axis=2)


def _product(matrix: Any, x: jax.Array) -> jax.Array:
    """Some rows of the mixed x, ``[len(matrix), ...]``."""
    dtype = working_dtype(x)
    flat = x.astype(dtype).reshape(len(x), math.prod(x.shape[1:]))
    precision = jax.lax.Precision.HIGHEST  # else a GPU rounds to ten bits, and agents never agree
    product = jnp.matmul(jnp.asarray(matrix, dtype), flat, precision=precision)
    return product.reshape(jnp.shape(matrix)[0], *x.shape[1:])


def _gathered(sources: Any, weights: Any, x: jax.Array) -> jax.Array:
    x = x.astype(working_dtype(x))
    sources, weights = jnp.asarray(sources), jnp.asarray(weights, x.dtype)
    return sum(
        (per_agent(weights[:, k], x) * x[sources[:, k]] for k in range(sources.shape[1])),
        start=jnp.zeros_like(x),
    )
