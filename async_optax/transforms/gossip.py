"""Gossip: stacked parameters of many agents, mixed over a graph with delays per link."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from async_optax.transforms.graph_checks import require_delays
from async_optax.transforms.mixing_matrix import Mixing, require_mixing, require_stacked
from async_optax.transforms.precision import working_dtype
from async_optax.transforms.schedules import next_step
from async_optax.transforms.sweepable import sweepable
from async_optax.validation import require_choice


class MixNeighboursState(NamedTuple):
    """State of :func:`mix_neighbours`.

    Attributes:
      step: int32 scalar, rounds so far.
      past: what the agents sent in the last rounds, like params with a leading axis
        ``[max_delay + 1]``, or ``[0]`` without delays; what was sent in round t lies at
        ``t % (max_delay + 1)``.
    """

    step: jax.Array
    past: optax.Params

    @property
    def has_own_delays(self) -> bool:
        """Rows of a timeline must read the version that they are applied to."""
        return True


def mix_neighbours(
    mixing: Mixing, delays: Any = None, order: str = "mix_first"
) -> optax.GradientTransformationExtraArgs:
    """Mixes the parameters of agents, stacked along the first axis, and adds their updates.

    With W the mixing's matrix at round t, ``d_ij`` the delay of the link from agent j to agent i,
    and u_i the update of agent i, its learning rate and sign applied::

        x_i(t + 1) = sum_j W_ij x_j(t - d_ij) + u_i

    With ``order="step_first"`` what is sent is ``x_j + u_j``, and u_i is not added again:

        x_i(t + 1) = sum_j W_ij (x_j(t - d_ij) + u_j(t - d_ij))

    On a complete graph with equal weights that is minibatch SGD, as agents are equal after each
    round; mixing first, each is one step of its own away from their mean.

    The outgoing update is ``x_i(t + 1) - x_i(t)``. Before the first round all agents are as they
    start: ``x_j(t) = x_j(0)`` and ``u_j(t) = 0`` for t < 0. Without delays mixing keeps the mean of
    the agents.

    Args:
      mixing: from :mod:`async_optax.transforms.topologies`, of n agents.
      delays: int >= 0 ``[n, n]``, ``d_ij`` in rounds, 0 on the diagonal; entries without a link do
        not matter. ``None``: no delays. The state holds one copy of the stacked parameters more
        than the largest.
      order: ``"mix_first"``, in which mixing can go on while gradients are computed, or
        ``"step_first"``.

    Returns:
      A transformation for the end of a chain; ``update`` requires ``params``. All leaves are
      stacked, ``[n, ...]``; sums are taken in at least float32.

    Raises:
      TypeError: if ``mixing`` is not a mixing.
      ValueError: if delays are out of range, naming the first, or ``order`` is unknown; in
        ``init``, if a leaf is not stacked; in ``update``, if ``params`` is ``None``.

    Example:
      >>> from async_optax.transforms import topologies
      >>> tx = optax.chain(optax.sgd(1.0), mix_neighbours(topologies.complete(2)))
      >>> x, g = jnp.array([0.0, 4.0]), jnp.array([1.0, 0.0])
      >>> updates, _ = tx.update(g, tx.init(x), x)
      >>> print(x + updates)
      [1. 2.]

    References:
      Lian et al., `Can Decentralized Algorithms Outperform Centralized Algorithms?
      <https://arxiv.org/abs/1705.09056>`_, 2017 (D-PSGD). Certainty: secondary sources. Delays
      per link are our extension.
    """
    require_mixing(mixing)
    require_choice("order", order, ("mix_first", "step_first"))
    n = mixing.num_agents
    by_link = np.zeros((n, n), np.int64)
    if delays is not None:
        by_link = np.where(mixing.links(), require_delays("delays", delays, n), 0)
    distinct = tuple(int(delay) for delay in np.unique(by_link))
    parts = tuple(mixing.masked(by_link == d) if len(distinct) > 1 else mixing for d in distinct)
    return _mix_neighbours(parts, distinct, order)


@sweepable(static_argnames=("delays",))
def _mix_neighbours(
    parts: tuple[Mixing, ...], delays: tuple[int, ...], order: str
) -> optax.GradientTransformationExtraArgs:
    """Mixes part k, the links whose delay is ``delays[k]``, with what was that long ago."""
    depth = max(delays) + 1 if max(delays) else 0

    def init_fn(params: optax.Params) -> MixNeighboursState:
        require_stacked("params", params, parts[0].num_agents)
        return MixNeighboursState(jnp.zeros([], jnp.int32), repeated(params, depth))

    def update_fn(
        updates: optax.Updates,
        state: MixNeighboursState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, MixNeighboursState]:
        if params is None:
            raise ValueError("mix_neighbours needs params, got None")
        step, past = state
        sent = params
        if order == "step_first":
            sent = jax.tree.map(_stepped, params, updates)
        # Written before it is read, else the compiler copies all of it.
        past = write_copy(past, step % depth, sent) if depth else past
        mixed: list[optax.Params] = []
        for part, delay in zip(parts, delays, strict=True):
            seen = read_copy(past, (step - delay) % depth) if delay else sent
            mixed.append(part.combine(step, seen))

        def moved(u: jax.Array, x: jax.Array, *terms: jax.Array) -> jax.Array:
            dtype = working_dtype(x)
            move = sum(terms[1:], terms[0]) - x.astype(dtype)
            if order == "mix_first":
                move = move + u.astype(dtype)
            return move.astype(u.dtype)

        out = jax.tree.map(moved, updates, params, *mixed)
        return out, MixNeighboursState(next_step(step, extra_args), past)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _stepped(x: jax.Array, u: jax.Array) -> jax.Array:
    dtype = working_dtype(x)
    return x.astype(dtype) + u.astype(dtype)


def repeated(tree: optax.Params, num_copies: int) -> optax.Params:
    """Returns copies of a pytree along a new first axis ``[num_copies]``, 0 or more.

    Example:
      >>> print(repeated(jnp.array([1.0, 2.0]), 2))
      [[1. 2.]
       [1. 2.]]
    """
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (num_copies, *jnp.shape(x))), tree)


def read_copy(copies: optax.Params, index: jax.Array) -> optax.Params:
    """Returns one of the copies along the first axis; the index is in range."""
    return apart(lambda copies: copy_at(copies, index), copies, index)


def copy_at(copies: optax.Params, index: jax.Array) -> optax.Params:
    """As :func:`read_copy`, within :func:`apart`."""
    return jax.tree.map(lambda c: lax.dynamic_index_in_dim(c, index, keepdims=False), copies)


def apart(read: Callable[[Any], Any], copies: Any, index: jax.Array) -> Any:
    """Returns ``read(copies)``, arrays of their own.

    By a branch that is always taken, as ``index >= 0``, though the compiler cannot know: a read
    that is fused into what follows is done again for every use, and needs a copy of all copies if
    one of them is written.
    """

    def nothing(copies: Any) -> Any:
        shapes = jax.eval_shape(read, copies)
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    return lax.cond(index >= 0, read, nothing, copies)


def write_copy(copies: optax.Params, index: jax.Array, tree: optax.Params) -> optax.Params:
    """Returns the copies with one of them replaced, in their dtypes."""
    return jax.tree.map(
        lambda c, x: lax.dynamic_update_index_in_dim(c, x.astype(c.dtype), index, 0), copies, tree
    )
