"""What a timeline knows beside its arrivals: phases of jobs, lost jobs, absences, its purpose."""

import dataclasses
import enum
from typing import ClassVar, Self

import numpy as np

from async_optax.validation import require_choice, require_count


class Reason(enum.IntEnum):
    """Why a job never arrives."""

    UNFINISHED = 0
    """It is still running when the timeline ends."""
    ABORTED = 1
    """The protocol threw it away."""
    EXPIRED = 2
    """It exceeded the protocol's time limit."""
    FAILED = 3
    """Its worker failed or left."""


@dataclasses.dataclass(frozen=True, eq=False)
class LostJobs:
    """Jobs that never arrive.

    Attributes:
      worker: int32 ``[num_lost]``.
      start_time: float64 ``[num_lost]``, when the worker began; equal to ``stop_time`` if it
        never did, as the job waited in its queue.
      stop_time: float64 ``[num_lost]``, when it was lost or the timeline ended.
      reason: int8 ``[num_lost]``, a :class:`Reason`.
    """

    worker: np.ndarray
    start_time: np.ndarray
    stop_time: np.ndarray
    reason: np.ndarray

    @classmethod
    def none(cls) -> Self:
        """Returns no jobs."""
        return cls(np.empty(0, np.int32), np.empty(0), np.empty(0), np.empty(0, np.int8))

    @property
    def aborted(self) -> np.ndarray:
        """Bool ``[num_lost]``: lost before the timeline's end, for whatever reason."""
        return self.reason != Reason.UNFINISHED


@dataclasses.dataclass(frozen=True, eq=False)
class Absences:
    """When workers are not there.

    Attributes:
      worker: int32 ``[num_absences]``.
      start_time: float64 ``[num_absences]``, when it left, or 0 if it was not there yet.
      stop_time: float64 ``[num_absences]``, when it came, or the timeline's end.
    """

    worker: np.ndarray
    start_time: np.ndarray
    stop_time: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Phases:
    """When each arrival's job was where, float64 ``[num_arrivals]`` each, in this order.

    Attributes:
      begin: the worker takes it up and downloads; ``start_time`` unless it waited in a queue.
      compute: the computation starts.
      upload: the computation ends and the upload starts.
      sent: the upload ends; then it waits for the server until ``time``.
    """

    begin: np.ndarray
    compute: np.ndarray
    upload: np.ndarray
    sent: np.ndarray


@dataclasses.dataclass(frozen=True)
class MadeFor:
    """What a timeline was made for, where its times are false for anything else.

    Attributes:
      kind: one of :attr:`ROUNDS`, :attr:`SYNCHRONOUS_PIPELINE` and :attr:`ASYNCHRONOUS_PIPELINE`.
      size: number of agents, or of stages, >= 1.
    """

    kind: str
    size: int

    ROUNDS: ClassVar[str] = "rounds"
    SYNCHRONOUS_PIPELINE: ClassVar[str] = "synchronous pipeline"
    ASYNCHRONOUS_PIPELINE: ClassVar[str] = "asynchronous pipeline"

    def __post_init__(self) -> None:
        """Raises ``ValueError`` if a field is out of range."""
        require_choice(
            "made_for.kind",
            self.kind,
            (self.ROUNDS, self.SYNCHRONOUS_PIPELINE, self.ASYNCHRONOUS_PIPELINE),
        )
        require_count("made_for.size", self.size)
