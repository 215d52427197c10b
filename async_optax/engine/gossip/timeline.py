"""Rounds of gossip in simulated time: agents wait for their neighbours only."""

import itertools
from typing import Any

import numpy as np

from async_optax.timelines.runtimes.model import RuntimeModel, require_law
from async_optax.timelines.side_tables import LostJobs, MadeFor
from async_optax.timelines.timeline import Timeline
from async_optax.transforms.graph_checks import require_delays
from async_optax.transforms.mixing_matrix import Mixing, require_mixing
from async_optax.validation import require_choice, require_count, require_seed

_BLOCK = 256  # rounds whose matrices are held at once


def timeline(
    mixing: Mixing,
    runtimes: RuntimeModel,
    num_rounds: int,
    *,
    seed: int = 0,
    delays: Any = None,
    order: str = "mix_first",
) -> Timeline:
    """Simulates when the rounds of gossip end: one row per round of all agents.

    ``T_i(k)`` is when agent i has its parameters of round k, ``x_i(k)``. It then computes its
    gradient there, for ``c_i(k)``, a time of its own. Mixing first, a round ends by adding that
    step to what the neighbours had when they began it::

        T_i(k + 1) = max(T_i(k) + c_i(k), max over j of T_j(k - d_ij)),   W_ij(k) > 0

    Stepping first, what is sent holds the sender's step, and so is there later::

        T_i(k + 1) = max over j of T_j(k - d_ij) + c_j(k - d_ij),   j = i or W_ij(k) > 0

    with ``T_j(k) = 0`` for k <= 0, and nothing to wait for if ``k - d_ij < 0``. So a slow agent
    holds up its neighbours, and theirs one round later, if agents mix first only once it is a
    round behind; and a delayed link hides up to its delay. Row k is one job of one worker that
    reads version k and commits version k + 1 when all agents have it, ``max over i of T_i(k + 1)``:
    rounds are what is simulated, and times are those after which a round is complete. The time of
    mixing and of messages is part of ``c_i``.

    Predicting clipping mixes first; but what it uses of a late neighbour is its gradient too,
    which is there at ``T_j(k - d_ij) + c_j(k - d_ij)``, before ``T_j(k - d_ij + 1)``: with
    ``delays=(delay - 1) * delayed`` times are not too short.

    Args:
      mixing: from :mod:`async_optax.transforms.topologies`, of n agents.
      runtimes: one of :mod:`async_optax.runtimes`, with compute times only, of n workers.
      num_rounds: number of rows, >= 1.
      seed: of all times, an integer in [0, 2**31).
      delays: d, int >= 0 ``[n, n]`` in rounds, as :func:`async_optax.transforms.mix_neighbours`
        takes it; ``None``: no delays.
      order: of the method, ``"mix_first"`` or ``"step_first"``, as
        :func:`async_optax.optimizers.d_psgd` takes it.

    Returns:
      A timeline of one worker, staleness 0.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range, or ``runtimes`` is more than compute times.

    Example:
      >>> from async_optax import runtimes
      >>> from async_optax.transforms import topologies
      >>> pair, times = topologies.complete(2), runtimes.empirical([1.0, 3.0])
      >>> for order in ("mix_first", "step_first"):
      ...     print(timeline(pair, times, 5, seed=1, order=order).time)
      [3. 4. 7. 8. 9.]
      [ 3.  6.  9. 10. 11.]
    """
    require_mixing(mixing)
    require_law("runtimes", runtimes)
    require_count("num_rounds", num_rounds)
    require_seed(seed)
    require_choice("order", order, ("mix_first", "step_first"))
    num_agents = mixing.num_agents
    waits = np.zeros((num_agents, num_agents), np.int64)
    if delays is not None:
        waits = require_delays("delays", delays, num_agents)
    draws = [
        list(itertools.islice(times, num_rounds)) for times in runtimes.job_times(num_agents, seed)
    ]
    durations = np.array(draws).T
    time = _times_of_rounds(mixing, durations, waits, order == "step_first").max(1)
    version = np.arange(num_rounds, dtype=np.int32)
    return Timeline(
        num_workers=1,
        end_time=float(time[-1]),
        worker=np.zeros(num_rounds, np.int32),
        read_version=version,
        version=version.copy(),
        start_time=np.concatenate([[0.0], time[:-1]]),
        time=time,
        weight=np.ones(num_rounds),
        accepted=np.ones(num_rounds, bool),
        commit=np.ones(num_rounds, bool),
        lost=LostJobs.none(),
        made_for=MadeFor(MadeFor.ROUNDS, num_agents),
    )


def _times_of_rounds(
    mixing: Mixing, durations: np.ndarray, waits: np.ndarray, step_first: bool
) -> np.ndarray:
    """When each agent has its parameters after each round, float64 ``[num_rounds, n]``."""
    num_rounds, num_agents = durations.shape
    known = np.zeros((num_rounds + 1, num_agents))  # row k: when agents have theirs of round k
    sent = np.zeros((num_rounds, num_agents))  # row k: when what they send in it is there
    columns = np.arange(num_agents)[np.newaxis]
    for first in range(0, num_rounds, _BLOCK):
        steps = np.arange(first, min(first + _BLOCK, num_rounds))
        heard = mixing.matrices_at(steps) > 0
        for step, links in zip(steps, heard, strict=True):
            own = known[step] + durations[step]
            sent[step] = own if step_first else known[step]
            there = np.where(waits <= step, sent[np.maximum(step - waits, 0), columns], 0.0)
            known[step + 1] = np.maximum(own, np.where(links, there, 0.0).max(1))
    return known[1:]
