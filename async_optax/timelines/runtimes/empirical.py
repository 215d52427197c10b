"""The law of measured times."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from async_optax.timelines.runtimes.model import RuntimeModel
from async_optax.timelines.traces import MeasuredJobs, ordered_names, read_jobs, worker_name
from async_optax.validation import require_number


def empirical(
    samples: (
        str
        | os.PathLike[str]
        | MeasuredJobs
        | Mapping[Any, Sequence[float]]
        | Sequence[float]
        | Sequence[Sequence[float]]
        | np.ndarray
    ),
    pooled: bool = False,
) -> RuntimeModel:
    """Times as measured: each job draws one of the given times, all equally likely.

    The inverse distribution function of n times is ``sorted_times[floor(u * n)]``.

    Args:
      samples: times > 0, ``[num_times]``, of which all workers draw; or for each worker its own,
        as a sequence of sequences, or a mapping from workers to sequences; or a trace, a path or
        :class:`MeasuredJobs` as of :func:`read_jobs`, of which the times from start to finish are
        taken. Workers are numbered as there: in numeric order if all are integers, otherwise as
        they come.
      pooled: whether all workers draw of the times of all.

    Returns:
      A runtime model.

    Raises:
      TypeError: if ``pooled`` is not a boolean, or times are not numbers.
      ValueError: if there are no times, or one is not a finite number > 0; when used, if there is
        a law per worker for another number of workers.

    Example:
      >>> model = empirical({"fast": [1.0, 1.5], "slow": [4.0]})
      >>> [next(times) for times in model.job_times(num_workers=2, seed=0)]
      [1.5, 4.0]
      >>> [next(times) for times in empirical([1.0, 4.0]).job_times(num_workers=3, seed=0)]
      [4.0, 4.0, 1.0]
    """
    if not isinstance(pooled, bool):
        raise TypeError(f"pooled must be True or False, got {pooled!r}")
    groups = _groups(samples)
    if pooled and len(groups) > 1:
        groups = {"": np.concatenate(list(groups.values()))}
    per_worker = not (pooled or "" in groups)
    counts = np.array([len(times) for times in groups.values()])
    offsets = np.cumsum(counts) - counts
    table = np.concatenate([np.sort(times) for times in groups.values()])

    def machine_scales(draws: np.ndarray) -> np.ndarray:
        if per_worker and len(draws) != len(counts):
            raise _other_number(len(draws), len(counts))
        return np.ones(len(draws))

    def quantile(draws: np.ndarray, worker: Any) -> np.ndarray:
        if not per_worker:
            return table[(draws * len(table)).astype(np.int64)]
        if np.max(worker, initial=0) >= len(counts):  # as the law of other machines
            raise _other_number(int(np.max(worker)) + 1, len(counts))
        return table[offsets[worker] + (draws * counts[worker]).astype(np.int64)]

    shown = f"{len(table)} times" + (f" of {len(counts)} workers" if per_worker else "")
    return RuntimeModel(f"empirical({shown})", machine_scales, quantile)


def _groups(samples: Any) -> dict[str, np.ndarray]:
    """Returns the times by worker, or under the name "" those of all."""
    if isinstance(samples, str | os.PathLike | MeasuredJobs):
        jobs = read_jobs(samples)
        times = jobs.finish - jobs.start
        return {name: times[jobs.worker == k] for k, name in enumerate(jobs.names)}
    if isinstance(samples, Mapping):
        named = {worker_name(worker): times for worker, times in samples.items()}
        if None in named or len(named) < len(samples):
            raise ValueError(
                f"samples must name each worker once, by a string or integer, got {list(samples)}"
            )
        in_order = ordered_names(name for name in named if name is not None)
        groups = {name: _times(f"samples[{name}]", named[name]) for name in in_order}
    elif not hasattr(samples, "__len__"):
        raise TypeError(
            "samples must be times, one sequence or one per worker, or a trace of jobs, "
            f"got {samples!r}"
        )
    elif not len(samples) or np.ndim(samples[0]) == 0:
        groups = {"": _times("samples", samples)}
    else:
        groups = {str(k): _times(f"samples[{k}]", times) for k, times in enumerate(samples)}
    if not groups:
        raise ValueError("samples must have at least one worker, got none")
    return groups


def _times(name: str, times: Any) -> np.ndarray:
    given = np.asarray(times)
    if given.ndim != 1 or not len(given):
        raise ValueError(f"{name} must be a sequence of times, got shape {given.shape}")
    require_number(name, given, above=0, scalar=False)
    return given.astype(np.float64)


def _other_number(num_workers: int, num_laws: int) -> ValueError:
    return ValueError(
        f"empirical has a law for each of {num_laws} workers, but there are {num_workers}: "
        "pooled=True lets any number draw of all times"
    )
