"""Measuring what an arrival costs, in threads and in batches."""

import concurrent.futures
import time
from collections.abc import Callable

import jax

from async_optax.engine.batch import Batch
from async_optax.engine.run import Run

_MIN_MEASURED = 0.05  # seconds of work behind one measurement
_MAX_WAVES = 1024


def seconds_in_threads(run: Run, lanes: int, num_threads: int) -> float:
    """Times copies of a run in as many threads.

    Args:
      run: what is copied.
      lanes: width of a wave.
      num_threads: how many at once.

    Returns:
      Seconds per arrival, over all threads together.
    """
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:

        def seconds(num_arrivals: int) -> float:
            chunk = run.chunker(lanes).trial(num_arrivals, lanes)
            servers = [jax.block_until_ready(run.initial_server()) for _ in range(num_threads)]
            started = time.perf_counter()
            list(pool.map(lambda server: jax.block_until_ready(run(lanes, server, chunk)), servers))
            return time.perf_counter() - started

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


def _per_arrival(seconds: Callable[[int], float], lanes: int) -> float:
    """What an arrival adds to a call; a call's own cost is shared by many in a run."""
    seconds(lanes)  # compiles
    alone = min(seconds(lanes) for _ in range(2))
    waves = 4
    while True:
        added = min(seconds(waves * lanes), seconds(waves * lanes)) - alone
        if added >= _MIN_MEASURED or 4 * waves > _MAX_WAVES or 4 * waves * lanes > 2048:
            return max(added, 1e-9) / ((waves - 1) * lanes)
        waves *= 4
