"""What a measured run tells of itself."""

import dataclasses

import numpy as np

from async_optax.timelines import MeasuredJobs

_FEW_JOBS = 20


@dataclasses.dataclass(frozen=True)
class TraceFacts:
    """A measured run in numbers; times in the unit of the trace.

    Attributes:
      num_workers: number of workers.
      num_jobs: number of jobs.
      duration: from the first start to the last finish.
      computing: share of ``num_workers * duration`` spent on jobs.
      median_time: of a job.
      p99_time: the least that at least 99 % of the jobs do not exceed.
      fastest_worker: the name of the worker with the least median time.
      fastest_time: its median time.
      slowest_worker: the name of the worker with the largest median time.
      slowest_time: its median time.
      names: of the workers, in the order of their numbers.
      few_jobs: of the workers with fewer than 20 jobs, whose law is known but roughly.
    """

    num_workers: int
    num_jobs: int
    duration: float
    computing: float
    median_time: float
    p99_time: float
    fastest_worker: str
    fastest_time: float
    slowest_worker: str
    slowest_time: float
    names: tuple[str, ...]
    few_jobs: tuple[str, ...]


def describe_trace(jobs: MeasuredJobs) -> TraceFacts:
    """Returns the facts of measured jobs.

    Args:
      jobs: from :func:`async_optax.timelines.read_jobs`.

    Returns:
      The facts.

    Example:
      >>> from async_optax.timelines import read_jobs
      >>> jobs = read_jobs([("a", 0.0, 1.0), ("a", 1.0, 2.0), ("b", 0.0, 4.0)])
      >>> facts = describe_trace(jobs)
      >>> facts.computing, facts.fastest_worker, facts.slowest_worker
      (0.75, 'a', 'b')
    """
    times = jobs.finish - jobs.start
    order = np.argsort(jobs.worker, kind="stable")
    num_jobs = np.bincount(jobs.worker, minlength=len(jobs.names))
    bounds = np.cumsum(num_jobs)[:-1]
    medians = np.array([np.median(own) for own in np.split(times[order], bounds)])
    fastest, slowest = int(np.argmin(medians)), int(np.argmax(medians))
    duration = float(jobs.finish.max() - jobs.start.min())
    return TraceFacts(
        num_workers=len(jobs.names),
        num_jobs=len(times),
        duration=duration,
        computing=float(times.sum() / (duration * len(jobs.names))),
        median_time=float(np.median(times)),
        p99_time=float(np.quantile(times, 0.99, method="inverted_cdf")),
        fastest_worker=jobs.names[fastest],
        fastest_time=float(medians[fastest]),
        slowest_worker=jobs.names[slowest],
        slowest_time=float(medians[slowest]),
        names=jobs.names,
        few_jobs=tuple(jobs.names[k] for k in np.flatnonzero(num_jobs < _FEW_JOBS)),
    )
