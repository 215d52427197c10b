"""Averaging in pairs: an agent that arrives averages its parameters with one neighbour's."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from async_optax.transforms.lookahead import served_params
from async_optax.transforms.mixing_matrix import require_stacked
from async_optax.transforms.partners import (
    Partners,
    draw_partner,
    partners_of,
    require_partner_seed,
)
from async_optax.transforms.precision import working_dtype
from async_optax.transforms.rows import RowUpdates
from async_optax.transforms.sweepable import sweepable
from async_optax.transforms.workers import read_worker, require_worker, write_worker


class AveragePairsState(NamedTuple):
    """State of :func:`average_pairs`.

    Attributes:
      step: int32 scalar, arrivals so far.
      agent: int32 scalar, who arrived last and is served its own parameters.
      inner_state: states of the wrapped transformation, one per agent, with a leading axis
        ``[num_agents]``.
    """

    step: jax.Array
    agent: jax.Array
    inner_state: optax.OptState

    @property
    def serves_own_worker(self) -> bool:
        """Each job must read what its own worker's last arrival made."""
        return True

    @property
    def worker_program(self) -> str:
        """What computes on one agent's parameters."""
        return "ao.gossip.agent_gradient()"

    def served_params(self, params: optax.Params) -> optax.Params:
        """Returns the parameters of the agent that arrived last, after any look-ahead of its."""
        own = _read(params, self.agent)
        return served_params(own, _read(self.inner_state, self.agent))


def average_pairs(
    graph: Any,
    inner: optax.GradientTransformation,
    *,
    active: Any = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Averages an arriving agent with a random neighbour, then lets ``inner`` move it.

    Parameters are stacked, ``[num_agents, ...]``. When agent i arrives with g, it draws a partner
    j among its neighbours, all equally likely, and

    ``m <- (x_i + x_j) / 2``, ``x_j <- m``, ``x_i <- m + u``,

    where u is the update that ``inner`` makes of g at m, with the state it keeps for agent i:
    ``-eta * g`` for plain SGD. Then x_i is what is served: agent i computes its next gradient
    there, although others may average with it meanwhile. Averaging leaves the mean of all
    agents where it is. Only two rows are read and written, whatever the number of agents.

    Args:
      graph: a connected graph: a mixing, such as ``topologies.ring(8)``, of which only the links
        matter, or a square matrix ``[num_agents, num_agents]``, in which agents i and j are
        neighbours if entry (i, j) or (j, i) is not zero.
      inner: any optimizer of one agent, learning rate included. Its state is kept per agent. It
        sees g like one agent's parameters, m as ``params``, and all extra arguments.
      active: booleans ``[num_agents]``; those who are not only take gradient steps when they
        arrive, and wait to be asked. Links must then join one of each kind
        (:func:`active_half` divides a graph so). ``None``: all ask.
      seed: of the draws, an integer in [0, 2**24). Arrival k draws with the key
        ``fold_in(key(seed), k)``; :func:`partner_sequence` lists the draws.

    Returns:
      A transformation that comes last in a chain: its updates are :class:`RowUpdates` of the
      two rows. ``update`` requires ``params`` and ``worker``, an int32 scalar in
      ``[0, num_agents)``. Start all agents at the same parameters, and run it under a protocol
      in which each worker goes on at once from its own arrival, ``protocols.asynchronous()``.

    Raises:
      TypeError: if ``inner`` is not a transformation, or ``seed`` not an integer.
      ValueError: if the graph is not square or not connected, or ``active`` does not fit it; in
        ``init``, if parameters have another leading axis; in ``update``, if the protocol gathers
        arrivals, or a concrete ``worker`` is out of range.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from async_optax.transforms import apply_updates, served_params
      >>> tx = average_pairs([[0, 1], [1, 0]], optax.sgd(0.5))
      >>> x = jnp.array([[0.0], [4.0]])
      >>> updates, state = tx.update(jnp.array([2.0]), tx.init(x), x, worker=1)
      >>> x = apply_updates(x, updates)
      >>> print(x.ravel(), served_params(x, state))
      [2. 1.] [1.]

    References:
      Lian, Zhang, Zhang, Liu, `Asynchronous Decentralized Parallel Stochastic Gradient Descent
      <https://arxiv.org/abs/1710.06952>`_, 2018. Certainty: our reading. There averaging may fall
      anywhere within the computation of the gradient; here it falls at its end. The state per
      agent is our extension.
    """
    require_partner_seed(seed)
    return _average_pairs(partners_of(graph, active=active), inner, seed)


@sweepable
def _average_pairs(
    partners: Partners, inner: optax.GradientTransformation, seed: ArrayLike
) -> optax.GradientTransformationExtraArgs:
    """The transformation; tables are leaves, so graphs of equal degree share one program."""
    if not isinstance(inner, optax.GradientTransformation):
        raise TypeError(f"inner must be a gradient transformation, got {inner!r}")
    inner = optax.with_extra_args_support(inner)
    num_agents = jnp.shape(partners.degree)[0]

    def init_fn(params: optax.Params) -> AveragePairsState:
        require_stacked("params", params, num_agents)
        start = jnp.zeros([], jnp.int32)
        return AveragePairsState(start, start, jax.vmap(inner.init)(params))

    def update_fn(
        updates: optax.Updates,
        state: AveragePairsState,
        params: optax.Params | None = None,
        *,
        worker: ArrayLike,
        **extra_args: Any,
    ) -> tuple[RowUpdates, AveragePairsState]:
        if params is None:
            raise ValueError("average_pairs needs params, got None")
        if "commit" in extra_args or "weight" in extra_args:
            raise ValueError(
                "average_pairs moves agents at every arrival: it needs a protocol in which every "
                "arrival commits, protocols.asynchronous()"
            )
        require_worker(worker, num_agents)
        require_stacked("params", params, num_agents)
        agent = jnp.asarray(worker, jnp.int32)
        partner = draw_partner(partners, seed, state.step, agent)
        own, other = _read(params, agent), _read(params, partner)

        def mean_of(x: jax.Array, y: jax.Array) -> jax.Array:
            dtype = working_dtype(x)
            return (x.astype(dtype) + y.astype(dtype)) / 2

        mean = jax.tree.map(mean_of, own, other)
        step, inner_state = inner.update(
            updates,
            _read(state.inner_state, agent),
            jax.tree.map(lambda m, x: m.astype(x.dtype), mean, own),
            worker=worker,
            **extra_args,
        )

        def moves(m: jax.Array, x: jax.Array, y: jax.Array, u: jax.Array) -> jax.Array:
            both = jnp.stack([m - x.astype(m.dtype) + u.astype(m.dtype), m - y.astype(m.dtype)])
            return both.astype(x.dtype)

        values = jax.tree.map(moves, mean, own, other, step)
        return RowUpdates(jnp.stack([agent, partner]), values), AveragePairsState(
            optax.safe_increment(state.step), agent, _written(state.inner_state, agent, inner_state)
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _read(stack: Any, agent: ArrayLike) -> Any:
    """One agent's entry of every array."""

    def read(copies: jax.Array) -> jax.Array:
        if copies.dtype == jnp.bool_:
            return read_worker(copies.astype(jnp.int8), agent) != 0
        return read_worker(copies, agent)

    return jax.tree.map(read, stack)


def _written(stack: Any, agent: ArrayLike, entry: Any) -> Any:
    """The arrays with one agent's entry replaced."""

    def write(copies: jax.Array, value: jax.Array) -> jax.Array:
        value = jnp.asarray(value)
        if copies.dtype == jnp.bool_:
            return write_worker(copies.astype(jnp.int8), agent, value.astype(jnp.int8)) != 0
        return write_worker(copies, agent, value)

    return jax.tree.map(write, stack, entry)
