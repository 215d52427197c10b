"""Decentralised methods: agents with parameters of their own, which are mixed over a graph.

They run on stacked parameters, ``[num_agents, ...]`` in every leaf, as :mod:`async_optax.gossip`
makes them, so they are not in the registry of methods for one server.
"""

from collections.abc import Callable
from typing import Any

import optax
from jax.typing import ArrayLike

from async_optax.transforms.gossip import mix_neighbours
from async_optax.transforms.mixing_matrix import Mixing
from async_optax.transforms.predict_clip import predict_clip
from async_optax.validation import require_choice, require_learning_rate


def d_psgd(
    learning_rate: optax.ScalarOrSchedule,
    mixing: Mixing,
    delays: Any = None,
    local: Callable[..., optax.GradientTransformation] = optax.sgd,
    order: str = "mix_first",
) -> optax.GradientTransformationExtraArgs:
    """Decentralised parallel SGD: agents take the weighted mean of their neighbours, and a step.

    ``x_i <- sum_j W_ij x_j - eta g_i``, with g_i the gradient at x_i; with delays, neighbours are
    seen as they were: ``x_j(t - d_ij)``.

    Args:
      learning_rate: eta, a number > 0, or a schedule of the rounds.
      mixing: W, from :mod:`async_optax.transforms.topologies`.
      delays: d, int ``[n, n]`` in rounds, or ``None``; see
        :func:`async_optax.transforms.mix_neighbours`.
      local: ``local(learning_rate)`` is every agent's optimizer, such as ``optax.adam``; one that
        is element-wise, since agents share its arrays.
      order: ``"mix_first"``, or ``"step_first"``: ``x_i <- sum_j W_ij (x_j - eta g_j)``,
        which on a complete graph is minibatch SGD.

    Returns:
      A transformation of stacked gradients.

    Raises:
      TypeError: if ``mixing`` is no mixing, or ``local`` not callable.
      ValueError: if a number is out of range, or ``order`` unknown.

    Example:
      >>> import jax.numpy as jnp
      >>> from async_optax.transforms import topologies
      >>> tx, x = d_psgd(0.5, topologies.complete(2)), jnp.array([0.0, 4.0])
      >>> print(x + tx.update(jnp.array([2.0, 0.0]), tx.init(x), x)[0])
      [1. 2.]

    References:
      Lian et al., `Can Decentralized Algorithms Outperform Centralized Algorithms?
      <https://arxiv.org/abs/1705.09056>`_, 2017. Certainty: secondary sources.
    """
    require_learning_rate(learning_rate)
    if not callable(local):
        raise TypeError(f"local must be a function such as optax.adam, got {local!r}")
    return optax.chain(local(learning_rate), mix_neighbours(mixing, delays, order))


def pc_asgd(
    learning_rate: optax.ScalarOrSchedule,
    mixing: Mixing,
    delayed: Any,
    delay: int,
    theta: ArrayLike | optax.Schedule = 0.5,
    strength: ArrayLike = 0.04,
) -> optax.GradientTransformationExtraArgs:
    """Predicting clipping: a share theta of predicting late neighbours, the rest without them.

    ``x_i <- theta * predict_i + (1 - theta) * clip_i``, candidates as in
    :func:`async_optax.transforms.predict_clip`.

    Args:
      learning_rate: a number > 0, or a schedule of the rounds.
      mixing: from :mod:`async_optax.transforms.topologies`.
      delayed: bool ``[n, n]``, whose messages come late.
      delay: by how many rounds, >= 1.
      theta: in [0, 1], or a schedule of the rounds, of which the value at 0 is checked.
      strength: lambda >= 0, of the Taylor correction.

    Returns:
      A transformation of stacked gradients.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from async_optax.transforms import topologies
      >>> tx = pc_asgd(1.0, topologies.complete(2), [[0, 1], [0, 0]], delay=1, theta=0.5)
      >>> x = jnp.array([0.0, 4.0])
      >>> print(x + tx.update(jnp.array([1.0, 0.0]), tx.init(x), x)[0])
      [0. 2.]

    References:
      Wang, Jiang, Liu, Sarkar, Jiang, Lee, `Asynchronous Training Schemes in Distributed Learning
      with Time Delay <https://arxiv.org/abs/2208.13154>`_, 2024. Certainty: our reading.
    """
    if isinstance(theta, str):
        raise TypeError(f"theta must be a number in [0, 1], got {theta!r}: see pc_asgd_practical")
    return predict_clip(learning_rate, mixing, delayed, delay, theta, strength)


def pc_asgd_practical(
    learning_rate: optax.ScalarOrSchedule,
    mixing: Mixing,
    delayed: Any,
    delay: int,
    strength: ArrayLike = 0.04,
    prefer: str = "aligned",
) -> optax.GradientTransformationExtraArgs:
    """Predicting clipping in its practical variant: each agent takes one of both at each round.

    Agent i compares the cosines of ``predict_i - x_i`` and of ``clip_i - x_i`` with ``-g_i``, all
    its parameters in one vector, and takes the candidate with the larger; that is theta in {0, 1}
    by agent and round.

    Args:
      learning_rate: a number > 0, or a schedule of the rounds.
      mixing: from :mod:`async_optax.transforms.topologies`.
      delayed: bool ``[n, n]``, whose messages come late.
      delay: by how many rounds, >= 1.
      strength: lambda >= 0, of the Taylor correction.
      prefer: ``"aligned"``, the larger cosine, or ``"opposed"``, the smaller.

    Returns:
      A transformation of stacked gradients.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from async_optax.transforms import topologies
      >>> tx = pc_asgd_practical(1.0, topologies.complete(2), [[0, 1], [0, 0]], delay=1)
      >>> x = jnp.array([0.0, 4.0])
      >>> print(x + tx.update(jnp.array([1.0, 0.0]), tx.init(x), x)[0])
      [-1.  2.]

    References:
      As :func:`pc_asgd`, Algorithm 2 (PC-ASGD-PV). Certainty: our reading; the direction of the
      comparison is our guess, hence ``prefer``.
    """
    require_choice("prefer", prefer, ("aligned", "opposed"))
    return predict_clip(learning_rate, mixing, delayed, delay, prefer, strength)


def p_asgd(
    learning_rate: optax.ScalarOrSchedule,
    mixing: Mixing,
    delayed: Any,
    delay: int,
    strength: ArrayLike = 0.04,
) -> optax.GradientTransformationExtraArgs:
    """Predicting alone: :func:`pc_asgd` with theta = 1.

    Args:
      learning_rate: a number > 0, or a schedule of the rounds.
      mixing: from :mod:`async_optax.transforms.topologies`.
      delayed: bool ``[n, n]``, whose messages come late.
      delay: by how many rounds, >= 1.
      strength: lambda >= 0, of the Taylor correction.

    Returns:
      A transformation of stacked gradients.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from async_optax.transforms import topologies
      >>> tx = p_asgd(1.0, topologies.complete(2), [[0, 1], [0, 0]], delay=1)
      >>> x = jnp.array([0.0, 4.0])
      >>> print(x + tx.update(jnp.array([1.0, 0.0]), tx.init(x), x)[0])
      [1. 2.]

    References:
      As :func:`pc_asgd`, where it is an ablation.
    """
    return predict_clip(learning_rate, mixing, delayed, delay, 1.0, strength)


def c_asgd(
    learning_rate: optax.ScalarOrSchedule, mixing: Mixing, delayed: Any, delay: int = 1
) -> optax.GradientTransformationExtraArgs:
    """Clipping alone: late neighbours are left out, :func:`pc_asgd` with theta = 0.

    Args:
      learning_rate: a number > 0, or a schedule of the rounds.
      mixing: from :mod:`async_optax.transforms.topologies`.
      delayed: bool ``[n, n]``, whose messages come late.
      delay: by how many rounds, >= 1: it does not matter, and costs memory.

    Returns:
      A transformation of stacked gradients.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from async_optax.transforms import topologies
      >>> tx = c_asgd(1.0, topologies.complete(2), [[0, 1], [0, 0]])
      >>> x = jnp.array([0.0, 4.0])
      >>> print(x + tx.update(jnp.array([1.0, 0.0]), tx.init(x), x)[0])
      [-1.  2.]

    References:
      As :func:`pc_asgd`, where it is an ablation.
    """
    return predict_clip(learning_rate, mixing, delayed, delay, 0.0, 0.0)
