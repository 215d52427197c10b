"""Measuring what an arrival costs, in threads and in batches."""

import concurrent.futures
import time
from collections.abc import Callable

import jax

from async_optax.engine.batch import Batch
from async_optax.engine.run import Run
from async_optax.engine.states import MAX_ARRIVALS

_MIN_MEASURED = 0.05  # seconds of work behind one measurement
_MAX_WAVES = 1024


def seconds_alone(run: Run, lanes: int, enough: float) -> float:
    """Times a run by itself, roughly: what a call costs is counted to its arrivals.

    Longer and longer calls are timed, until one shows that an arrival takes less than ``enough``,
    or lasts so long that its own cost is nothing beside it.

    Args:
      run: what is timed.
      lanes: width of a wave.
      enough: seconds per arrival.

    Returns:
      Seconds per arrival, or more.
    """
    _seconds(run, lanes, lanes, 1)  # compiles
    waves = 1
    while True:
        taken = _seconds(run, lanes, waves * lanes, 1)
        bound = taken / (waves * lanes)
        if bound < enough or taken >= _MIN_MEASURED or not _may_be_longer(waves, lanes):
            return bound
        waves *= 4


def seconds_in_threads(run: Run, lanes: int, num_threads: int) -> float:
    """Times copies of a run in as many threads.

    Args:
      run: what is copied.
      lanes: width of a wave.
      num_threads: how many at once.

    Returns:
      Seconds per arrival, over all threads together.
    """

    def seconds(num_arrivals: int) -> float:
        return _seconds(run, lanes, num_arrivals, num_threads)

    return _per_arrival(seconds, lanes) / num_threads


def seconds_in_a_batch(batch: Batch, lanes: int) -> float:
    """Times a batch.

    Args:
      batch: its cells run together.
      lanes: width of a wave.

    Returns:
      Seconds for one arrival of every cell.
    """
    return _per_arrival(batch.seconds, lanes)


def _seconds(run: Run, lanes: int, num_arrivals: int, num_threads: int) -> float:
    chunk = run.chunker(lanes).trial(num_arrivals, lanes)
    servers = [jax.block_until_ready(run.initial_server()) for _ in range(num_threads)]
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        started = time.perf_counter()
        list(pool.map(lambda server: jax.block_until_ready(run(lanes, server, chunk)), servers))
        return time.perf_counter() - started


def _per_arrival(seconds: Callable[[int], float], lanes: int) -> float:
    """What an arrival adds to a call; a call's own cost is shared by many in a run."""
    seconds(lanes)  # compiles
    alone = min(seconds(lanes) for _ in range(2))
    waves = 2 if alone > 10 * _MIN_MEASURED else 8
    while True:
        added = seconds(waves * lanes) - alone
        # A call's own cost, such as copying the cells' slots, must not drown what is measured.
        is_clear = added >= max(_MIN_MEASURED, 0.5 * alone)
        if is_clear or not _may_be_longer(waves, lanes):
            added = min(added, seconds(waves * lanes) - alone)
            return max(added, 1e-9) / ((waves - 1) * lanes)
        waves *= 4


def _may_be_longer(waves: int, lanes: int) -> bool:
    return 4 * waves <= _MAX_WAVES and 4 * waves * lanes <= MAX_ARRIVALS
