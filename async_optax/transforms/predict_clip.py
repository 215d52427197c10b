"""Predicting and clipping: what agents do about neighbours whose messages come late."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from async_optax.transforms.gossip import apart, copy_at, repeated, write_copy
from async_optax.transforms.graph_checks import require_links
from async_optax.transforms.mixing_matrix import (
    Mixing,
    per_agent,
    require_mixing,
    require_stacked,
)
from async_optax.transforms.precision import scale_or_drop, working_dtype
from async_optax.transforms.schedules import next_step, value_at
from async_optax.transforms.sweepable import sweepable
from async_optax.validation import (
    require_count,
    require_learning_rate,
    require_number,
)

_CHOICES = ("aligned", "opposed")


class PredictClipState(NamedTuple):
    """State of :func:`predict_clip`.

    Attributes:
      step: int32 scalar, rounds so far.
      past_params: the agents' parameters at the last rounds, like params with a leading axis
        ``[delay + 1]``; those of round t lie at ``t % (delay + 1)``.
      past_gradients: what they sent with them, likewise; zero before the first round.
    """

    step: jax.Array
    past_params: optax.Params
    past_gradients: optax.Updates

    @property
    def has_own_delays(self) -> bool:
        """Rows of a timeline must read the version that they are applied to."""
        return True


def predict_clip(
    learning_rate: optax.ScalarOrSchedule,
    mixing: Mixing,
    delayed: Any,
    delay: int,
    theta: ArrayLike | optax.Schedule | str = 0.5,
    strength: ArrayLike = 0.04,
) -> optax.GradientTransformationExtraArgs:
    """Predicts where late neighbours are now, leaves them out, or weighs one against the other.

    Let x_i be the parameters of agent i, g_i its gradient, eta the learning rate, W the mixing's
    matrix at round t, R_i the neighbours whose message is there at once, i included, and U_i those
    whose message is tau = ``delay`` rounds old: ``x_k(t - tau)`` and ``g_k(t - tau)``. Products are
    element-wise, lambda is ``strength``::

        predict_i = sum_{j in R_i} W_ij x_j(t) - eta g_i(t)
                    + sum_{k in U_i} W_ik (x_k(t - tau) - eta sum_{r=0}^{tau-1} h_k(r))
        h_k(r)    = g_k + lambda g_k g_k (x_i(t - tau + r) - x_i(t - tau)),  g_k = g_k(t - tau)
        clip_i    = sum_{j in R_i} W_ij x_j(t) / sum_{j in R_i} W_ij - eta g_i(t)
        x_i(t + 1) = theta predict_i + (1 - theta) clip_i

    How far neighbour k has moved meanwhile agent i cannot know: the Taylor correction takes its
    own drift in the place of that. "Clipping" is to leave neighbours out, not to bound gradients.
    As long as nothing has come from k (t < tau) it is taken to be where it started. The outgoing
    update is ``x_i(t + 1) - x_i(t)``.

    Args:
      learning_rate: eta, a number > 0, or a schedule of the rounds; predictions use that of the
        present round.
      mixing: from :mod:`async_optax.transforms.topologies`, of n agents; on an undirected graph
        in the paper.
      delayed: bool ``[n, n]``, whether agent i gets what agent j sends late, false on the
        diagonal; such as :func:`async_optax.transforms.topologies.delayed_links` draws.
      delay: tau >= 1, in rounds. The state holds ``2 * (tau + 1)`` copies of the stacked
        parameters.
      theta: in [0, 1], or a schedule of the rounds, of which the value at 0 is checked: 1 only
        predicts, 0 only clips. Or, decided by every agent at every round, ``"aligned"``: the
        candidate whose displacement from x_i has the larger cosine with ``-g_i``; ``"opposed"``:
        the smaller.
      strength: lambda >= 0; 0 predicts plain steps of k along its last gradient. The correction
        is zero for tau = 1.

    Returns:
      A transformation that takes gradients and gives the agents' steps, learning rate included;
      ``update`` requires ``params``. All leaves are stacked, ``[n, ...]``; sums are taken in at
      least float32.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range, naming the entry of ``delayed``; if an agent would have
        nobody left, not even itself; in ``init``, if a leaf is not stacked; in ``update``, if
        ``params`` is ``None``.

    Example:
      >>> from async_optax.transforms import topologies
      >>> late = np.array([[False, True], [False, False]])  # agent 0 gets the messages of 1 late
      >>> x, g = jnp.array([0.0, 4.0]), jnp.array([1.0, 0.0])
      >>> for theta in (0.0, 1.0):
      ...     tx = predict_clip(1.0, topologies.complete(2), late, delay=1, theta=theta)
      ...     updates, _ = tx.update(g, tx.init(x), x)
      ...     print(x + updates)
      [-1.  2.]
      [1. 2.]

    References:
      Wang, Jiang, Liu, Sarkar, Jiang, Lee, `Asynchronous Training Schemes in Distributed Learning
      with Time Delay <https://arxiv.org/abs/2208.13154>`_, 2024 (PC-ASGD). Certainty: our reading;
      the abstract and secondary sources were at hand, the formulas are from memory. Not known: the
      direction of the comparison that decides theta in the practical variant, hence the two
      choices. "aligned" is our guess.
    """
    require_mixing(mixing)
    require_learning_rate(learning_rate)
    require_count("delay", delay)
    require_number("strength", strength, at_least=0)
    if isinstance(theta, str) and theta not in _CHOICES:
        raise ValueError(
            f"theta must be a number in [0, 1], a schedule, or one of {', '.join(_CHOICES)}; "
            f"got {theta!r}"
        )
    if callable(theta):
        require_number("theta(0)", theta(jnp.zeros([], jnp.int32)), at_least=0, at_most=1)
    elif not isinstance(theta, str):
        require_number("theta", theta, at_least=0, at_most=1)
    late = require_links("delayed", delayed, mixing.num_agents)
    prompt_part = mixing.masked(~late)
    left = prompt_part.matrices_at(np.arange(mixing.period)).sum(2).min(0)
    if not left.all():
        agent = int(np.argmin(left))
        raise ValueError(
            f"delayed must leave agent {agent} itself or a neighbour, but all weights in row "
            f"{agent} of its mixing are of late messages"
        )
    return _predict_clip(
        learning_rate, prompt_part, mixing.masked(late), int(delay), theta, strength
    )


@sweepable(static_argnames=("delay",))
def _predict_clip(
    learning_rate: optax.ScalarOrSchedule,
    prompt_part: Mixing,
    late_part: Mixing,
    delay: int,
    theta: ArrayLike | optax.Schedule | str,
    strength: ArrayLike,
) -> optax.GradientTransformationExtraArgs:
    """The rule of :func:`predict_clip`, with the matrix split by who is late."""
    depth = delay + 1

    def init_fn(params: optax.Params) -> PredictClipState:
        require_stacked("params", params, prompt_part.num_agents)
        zeros = jax.tree.map(jnp.zeros_like, params)
        return PredictClipState(
            jnp.zeros([], jnp.int32), repeated(params, depth), repeated(zeros, depth)
        )

    def update_fn(
        updates: optax.Updates,
        state: PredictClipState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, PredictClipState]:
        if params is None:
            raise ValueError("predict_clip needs params, got None")
        step = state.step
        rate = jnp.asarray(value_at(learning_rate, step), float)
        prompt = apart(lambda x: prompt_part.combine(step, x), params, step)
        # Written before they are read, else the compiler copies all of them.
        past_params = write_copy(state.past_params, step % depth, params)
        past_gradients = write_copy(state.past_gradients, step % depth, updates)
        plain, squares, drift = apart(
            lambda past: _history(past[0], past[1], step, depth, rate),
            (past_params, past_gradients),
            step,
        )
        extrapolated, curvature = (
            apart(lambda x: late_part.combine(step, x), tree, step) for tree in (plain, squares)
        )
        share = prompt_part.row_sums(step)

        def predicted(
            x: jax.Array,
            g: jax.Array,
            known: jax.Array,
            late: jax.Array,
            h: jax.Array,
            drift: jax.Array,
        ) -> jax.Array:
            eta = rate.astype(known.dtype)
            correction = eta * jnp.asarray(strength, known.dtype) * drift * h
            return known - _widened(x) - eta * _widened(g, x) + late - correction

        def clipped(x: jax.Array, g: jax.Array, known: jax.Array) -> jax.Array:
            eta = rate.astype(known.dtype)
            return known / per_agent(share, known) - _widened(x) - eta * _widened(g, x)

        moves = (
            jax.tree.map(predicted, params, updates, prompt, extrapolated, curvature, drift),
            jax.tree.map(clipped, params, updates, prompt),
        )
        weight = _theta(theta, step, moves, updates)
        out = jax.tree.map(lambda g, p, c: _blend(weight, p, c).astype(g.dtype), updates, *moves)
        return out, PredictClipState(next_step(step, extra_args), past_params, past_gradients)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _history(
    past_params: optax.Params,
    past_gradients: optax.Updates,
    step: jax.Array,
    depth: int,
    rate: jax.Array,
) -> tuple[optax.Params, optax.Updates, optax.Params]:
    """Of tau rounds ago: where plain steps have led since, squared gradients; and the drift since.

    The drift is the sum over ``0 <= r < tau`` of ``x(t - tau + r) - x(t - tau)``.
    """
    oldest = (step + 1) % depth
    params, gradients = (copy_at(past, oldest) for past in (past_params, past_gradients))
    present = copy_at(past_params, step % depth)
    reach = rate * (depth - 1)
    plain = jax.tree.map(
        lambda x, g: _widened(x) - reach.astype(working_dtype(x)) * _widened(g, x),
        params,
        gradients,
    )
    squares = jax.tree.map(lambda x, g: _widened(g, x) ** 2, params, gradients)
    # Slice by slice: on a CPU a reduction over the first axis takes fifty times as long.
    copies = [jax.tree.map(lambda past: past[r], past_params) for r in range(depth)]  # noqa: B023
    drift = jax.tree.map(
        lambda old, now, *all_of: sum(
            (_widened(x) - _widened(old) for x in all_of), _widened(old) - _widened(now)
        ),
        params,
        present,
        *copies,
    )
    return plain, squares, drift


def _widened(x: jax.Array, like: jax.Array | None = None) -> jax.Array:
    return x.astype(working_dtype(x if like is None else like))


def _blend(weight: jax.Array, predicted: jax.Array, clipped: jax.Array) -> jax.Array:
    """What a weight of zero leaves out may be infinite."""
    weight = per_agent(weight, predicted)
    first, second = scale_or_drop(predicted, weight), scale_or_drop(clipped, 1 - weight)
    return first + second


def _theta(
    theta: Any, step: jax.Array, moves: tuple[optax.Updates, optax.Updates], gradient: Any
) -> jax.Array:
    """The weight of the prediction: default float ``[1]``, or ``[n]`` where agents decide."""
    if not isinstance(theta, str):
        return jnp.asarray(value_at(theta, step), float).reshape(1)
    predicted, clipped = (_alignment(move, gradient) for move in moves)
    closer = predicted >= clipped if theta == "aligned" else predicted <= clipped
    return closer.astype(float)


def _alignment(move: optax.Updates, gradient: optax.Updates) -> jax.Array:
    """The cosine of each agent's move with ``-gradient``, times the norm of its gradient."""
    along = -_per_agent_sum(lambda m, g: m * g.astype(m.dtype), move, gradient)
    length = jnp.sqrt(_per_agent_sum(lambda m, _: m**2, move, gradient))
    return along / jnp.where(length > 0, length, jnp.ones_like(length))


def _per_agent_sum(function: Any, *trees: optax.Updates) -> jax.Array:
    sums = jax.tree.map(
        lambda *leaves: jnp.sum(function(*leaves), axis=tuple(range(1, leaves[0].ndim))), *trees
    )
    return functools.reduce(jnp.add, jax.tree.leaves(sums))
