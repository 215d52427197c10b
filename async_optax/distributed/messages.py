"""What server, workers and driver tell each other."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from async_optax.distributed.limits import Limits


@dataclasses.dataclass(frozen=True, eq=False)
class Setup:
    """What a run consists of, as every process receives it.

    Attributes:
      problem: what is trained.
      optimizer: with extra arguments.
      program: the worker program.
      protocol: who starts when, what is waited for.
      num_workers: number of workers.
      seed: of the protocol's random decisions.
      key_data: of the run's key, and
      key_impl: its generator.
      x64: whether JAX computes in double precision.
      served_like: shapes and dtypes of what workers read.
      sent_like: of what they send.
      slot_dtype: name of the dtype in which they read it, or ``None``.
      extra_time: seconds that a job takes beside computing, by worker and job, or ``None``.
      directory: of the run.
      num_commits: when to stop, or
      max_time: in seconds.
      evaluate_every: commits, or ``None``.
      checkpoint_every: seconds, or ``None``.
      description: what must be the same for a run to go on.
      limits: what it puts up with.
      platform: of the workers, such as ``"cpu"``.
      threads: of a worker on the CPU.
    """

    problem: Any
    optimizer: Any
    program: Any
    protocol: Any
    num_workers: int
    seed: int
    key_data: np.ndarray
    key_impl: str
    x64: bool
    served_like: Any
    sent_like: Any
    slot_dtype: str | None
    extra_time: Any
    directory: str
    num_commits: int | None
    max_time: float | None
    evaluate_every: int | None
    checkpoint_every: float | None
    description: dict[str, str]
    limits: Limits
    platform: str | None
    threads: int


class Request(NamedTuple):
    """A job for a worker.

    Attributes:
      epoch: which server asks.
      job: its number.
      after: the worker's last accepted job, or -1.
    """

    epoch: int
    job: int
    after: int


class Reply(NamedTuple):
    """A worker's result.

    Attributes:
      epoch: of the request.
      job: of the request.
      update: what the worker sends, packed.
      loss: of the job.
      fresh: whether the worker's state began anew.
      began: when computing began, on the clock of the worker's machine.
      ended: when it ended.
      machine: which one that is.
    """

    epoch: int
    job: int
    update: Any
    loss: float
    fresh: bool
    began: float
    ended: float
    machine: str


class Status(NamedTuple):
    """How a run is doing, as far as its server knows.

    Attributes:
      epoch: servers so far.
      version: commits so far.
      durable_version: those that a killed server would not lose.
      num_arrivals: arrivals so far, accepted or not.
      time: seconds since the start of the run.
      loss: mean of the accepted arrivals since the last status; NaN without any.
      staleness: mean of the same.
      total_staleness: mean of all accepted arrivals of this epoch.
      workers_up: workers that are there.
      num_workers: all of them.
      quarantined: workers that get no further jobs.
      phase: what the server's loop is doing.
      silent_for: seconds since that began.
      metrics: of the latest evaluation.
      pids: of the worker processes, 0 where unknown.
      server_pid: of the server.
      messages: new log lines.
    """

    epoch: int
    version: int
    durable_version: int
    num_arrivals: int
    time: float
    loss: float
    staleness: float
    total_staleness: float
    workers_up: int
    num_workers: int
    quarantined: tuple[int, ...]
    phase: str
    silent_for: float
    metrics: dict[str, float]
    pids: tuple[int, ...]
    server_pid: int
    messages: tuple[str, ...]
