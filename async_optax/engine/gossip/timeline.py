"""Rounds of gossip in simulated time: agents wait for their neighbours only."""

import itertools
from typing import Any

import numpy as np

from async_optax.timelines.runtimes.model import RuntimeModel, require_law
from async_optax.timelines.side_tables import LostJobs
from async_optax.timelines.timeline import Timeline
from async_optax.transforms.graph_checks import require_delays
from async_optax.transforms.mixing_matrix import Mixing, require_mixing
from async_optax.validation import require_count, require_seed

_BLOCK = 256  # rounds whose matrices are held at once


def timeline(
    mixing: Mixing,
    runtimes: RuntimeModel,
    num_rounds: int,
    *,
    seed: int = 0,
    delays: Any = None,
) -> Timeline:
    """Simulates when the rounds of gossip end: one row per round of all agents.

    Agent i starts round k when it and its neighbours have what the round mixes, and computes for
    ``c_i``, a time of its own::

        T_i(k) = max over j of T_j(k - 1 - d_ij) + c_i(k),   j = i or W_ij(k - 1) > 0

    with ``T(k) = 0`` for k <= 0. So a slow agent holds up its neighbours, and theirs one round
    later, and a delayed link hides up to its delay. Row k is one job of one worker that reads
    version k and commits version k + 1 when all agents have finished the round,
    ``max over i of T_i(k + 1)``: rounds are what is simulated, and times are those after which a
    round is complete. The time of mixing and of messages is part of ``c_i``.

    Args:
      mixing: from :mod:`async_optax.transforms.topologies`, of n agents.
      runtimes: one of :mod:`async_optax.runtimes`, with compute times only, of n workers.
      num_rounds: number of rows, >= 1.
      seed: of all times, an integer in [0, 2**31).
      delays: d, int >= 0 ``[n, n]`` in rounds, as :func:`async_optax.transforms.mix_neighbours`
        takes it; ``None``: no delays.

    Returns:
      A timeline of one worker, staleness 0.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range, or ``runtimes`` is more than compute times.

    Example:
      >>> from async_optax import runtimes
      >>> from async_optax.transforms import topologies
      >>> timeline(topologies.ring(4), runtimes.deterministic([1.0, 1.0, 1.0, 3.0]), 3).time
      array([3., 6., 9.])
    """
    require_mixing(mixing)
    require_law("runtimes", runtimes)
    require_count("num_rounds", num_rounds)
    require_seed(seed)
    num_agents = mixing.num_agents
    waits = np.zeros((num_agents, num_agents), np.int64)
    if delays is not None:
        waits = require_delays("delays", delays, num_agents)
    draws = [
        list(itertools.islice(times, num_rounds)) for times in runtimes.job_times(num_agents, seed)
    ]
    time = _finish_times(mixing, np.array(draws).T, waits).max(1)
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
    )


def _finish_times(mixing: Mixing, durations: np.ndarray, waits: np.ndarray) -> np.ndarray:
    """When each agent has finished each round, float64 ``[num_rounds, n]``."""
    num_rounds, num_agents = durations.shape
    finished = np.zeros((num_rounds + 1, num_agents))  # row k is the end of round k, 0 the start
    columns = np.arange(num_agents)[np.newaxis]
    for first in range(0, num_rounds, _BLOCK):
        steps = np.arange(first, min(first + _BLOCK, num_rounds))
        heard = (mixing.matrices_at(steps) > 0) | np.eye(num_agents, dtype=bool)[np.newaxis]
        for step, links in zip(steps, heard, strict=True):
            known = finished[np.maximum(step - waits, 0), columns]
            ready = np.where(links, known, 0.0).max(1)
            finished[step + 1] = ready + durations[step]
    return finished[1:]
