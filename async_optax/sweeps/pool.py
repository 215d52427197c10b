"""Running jobs in threads: results as they come, and an end to all when one breaks."""

import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import jax

# What a context manager may have set in the calling thread only.
_INHERITED = {
    "jax_enable_x64": jax.enable_x64,
    "jax_default_device": jax.default_device,
    "jax_default_matmul_precision": jax.default_matmul_precision,
    "jax_default_prng_impl": jax.default_prng_impl,
    "jax_numpy_dtype_promotion": jax.numpy_dtype_promotion,
    "jax_numpy_rank_promotion": jax.numpy_rank_promotion,
    "jax_threefry_partitionable": jax.threefry_partitionable,
}
_POLL_SECONDS = 0.2

Advance = Callable[[int], None]
"""``advance(num_arrivals)``: a job calls it with how far it has come, as a whole."""


def available_cores() -> int:
    """Returns how many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Stopped(Exception):
    """Raised inside jobs whose pool has been stopped."""


def run_jobs(
    jobs: Sequence[Callable[[Advance], Any]],
    num_threads: int,
    report: Callable[[int], None],
) -> Generator[Any]:
    """Runs jobs in threads and yields what they return, in the order in which they end.

    The jobs see the caller's JAX settings, which belong to a thread. If a job raises, if the
    caller is interrupted or closes the iterator, no further job starts, those under way end at
    their next call of ``advance``, and what was done by then is yielded before the error is raised.

    Args:
      jobs: functions of ``advance``.
      num_threads: how many run at once.
      report: called in the calling thread with the sum over all jobs of how far they are.

    Yields:
      What each job returned.
    """
    done = [0] * len(jobs)
    stopped = threading.Event()
    settings = {name: getattr(jax.config, name) for name in _INHERITED}

    def run(index: int) -> Any:
        def advance(num_arrivals: int) -> None:
            if stopped.is_set():
                raise Stopped
            done[index] = num_arrivals

        with _inheriting(settings):
            return jobs[index](advance)

    pool = concurrent.futures.ThreadPoolExecutor(num_threads)
    futures = {pool.submit(run, index): index for index in range(len(jobs))}
    broken: BaseException | None = None
    try:
        while futures:
            ended, _ = concurrent.futures.wait(
                futures, _POLL_SECONDS, concurrent.futures.FIRST_COMPLETED
            )
            for future in sorted(ended, key=lambda future: futures[future]):
                result = future.result()
                futures.pop(future)
                yield result
            report(sum(done))
    except GeneratorExit:
        raise
    except BaseException as error:
        broken = error
    finally:
        stopped.set()
        pool.shutdown(wait=True, cancel_futures=True)
    if broken is not None:
        for future in futures:
            if not future.cancelled() and future.exception() is None:
                yield future.result()
        raise broken


@contextlib.contextmanager
def _inheriting(settings: dict[str, Any]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for name, value in settings.items():
            # Only where it differs: entering a setting may count as another one when compiling.
            if getattr(jax.config, name) != value:
                stack.enter_context(_INHERITED[name](value))
        yield
