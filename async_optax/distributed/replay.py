"""Replay: what really happened, computed again on one device."""

from typing import Any

import jax
import optax

from async_optax.distributed.recording import Recording
from async_optax.engine import Problem, Result, WorkerProgram, gradient, simulate
from async_optax.timelines import Timeline, runtimes, simulate_timeline
from async_optax.timelines.protocols import Protocol


def replay(
    problem: Problem,
    optimizer: optax.GradientTransformation,
    recording: Recording,
    *,
    worker: WorkerProgram | None = None,
    **arguments: Any,
) -> Result:
    """Runs a recorded timeline again: with the run's own arguments it ends in its parameters.

    The same as :func:`async_optax.simulate` on ``recording.timeline`` with the run's key and the
    worker program ``recording.worker_program(worker, key)``, which gives every job the number, and
    hence the batch and the noise, that it really had. With another optimizer it answers what that
    would have made of the very same arrivals.

    The parameters agree to rounding: the programs compute the same sums, but the compiler may order
    them differently. In double precision on a CPU that is 1e-10 after hundreds of commits; in
    single precision 1e-4 of the largest parameter, unless the training itself blows rounding up.

    Args:
      problem: that of the run; arrays and seeds in it must be the same.
      optimizer: that of the run, or another.
      recording: from :meth:`Recording.load`.
      worker: that of the run; ``None`` is :func:`async_optax.gradient`. Compression is part of
        the program, error feedback and all, so it is replayed exactly.
      **arguments: further ones of :func:`async_optax.simulate`, such as ``evaluate_every``.

    Returns:
      A :class:`async_optax.engine.Result`.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if the optimizer or the problem does not fit the recording.

    Example:
      Needs a run; see :func:`async_optax.distributed.train`.
    """
    if not isinstance(recording, Recording):
        raise TypeError(f"recording must be a Recording, Recording.load(folder), got {recording!r}")
    precision = str(jax.numpy.result_type(float))
    if recording.header["precision"] != precision:
        raise ValueError(
            f"the recording is of a run in {recording.header['precision']}, and JAX computes in "
            f"{precision} here: set jax_enable_x64 as it was"
        )
    key = recording.key()
    program = recording.worker_program(gradient() if worker is None else worker, key)
    arguments.setdefault("slot_dtype", recording.header["slot_dtype"])
    return simulate(problem, optimizer, recording.timeline, key=key, worker=program, **arguments)


def what_if_timeline(recording: Recording, protocol: Protocol, *, seed: int = 0) -> Timeline:
    """Simulates another protocol on workers as fast as those recorded, for as long.

    Each job's time, from being sent to the result, is drawn of those that its worker really took:
    the same law, not the same order. It tells what the protocol would have made of the same
    machines, in the time from the first job to the end; that in which no server ran does not count.
    All workers are there all the time.

    Only jobs that arrived have a time. A run whose protocol throws jobs away
    (``ringmaster(stop=True)``, ``rennala``, ``mindflayer``) or whose ``limits.job`` was exceeded
    has lost its longest ones: its workers look faster here than they are. Record
    ``asynchronous()`` for questions about other protocols.

    Args:
      recording: a run.
      protocol: one of :mod:`async_optax.protocols`.
      seed: of the draws.

    Returns:
      A :class:`async_optax.Timeline` for :func:`async_optax.simulate`.

    Raises:
      ValueError: if a worker has never delivered, or the protocol cannot run with these.

    Example:
      Needs a run; see :func:`async_optax.distributed.train`.
    """
    times = recording.job_times()
    silent = sorted(set(range(recording.num_workers)) - times.keys())
    if silent:
        raise ValueError(f"worker {silent[0]} has never delivered: nothing is known of its times")
    timeline = recording.timeline
    return simulate_timeline(
        protocol,
        runtimes.empirical({worker: own.tolist() for worker, own in times.items()}),
        recording.num_workers,
        max_time=timeline.end_time - float(timeline.start_time.min()),
        seed=seed,
    )
