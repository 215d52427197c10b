"""What the compiled program works on: the server's state, a chunk, and what is static."""

import dataclasses
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import Mesh

from async_optax.engine.record import Recorder
from async_optax.transforms import Structure

MAX_ARRIVALS = 2048  # per call; shapes never depend on how many there really are
MAX_SEGMENTS = 64

WORKER, STALENESS, READ_SLOT, WRITE_SLOT, COMMIT, JOB = range(6)  # columns of ``integers``


class Server(NamedTuple):
    """What the server carries from one arrival to the next.

    Attributes:
      params: the current version.
      opt_state: the optimizer's state.
      slots: the live versions as workers read them (the parameters, or what the optimizer serves
        in their place), with a leading axis ``[num_rows]``, perhaps of narrower dtype; an empty
        tuple if every job reads the current parameters.
      workers: what each worker keeps between its jobs, with a leading axis ``[num_workers]``; an
        empty tuple if the worker program keeps no state.
    """

    params: optax.Params
    opt_state: optax.OptState
    slots: Any
    workers: Any = ()

    @property
    def num_rows(self) -> int:
        """Number of versions that slots hold."""
        return len(jax.tree.leaves(self.slots)[0]) if jax.tree.leaves(self.slots) else 0


class Chunk(NamedTuple):
    """The part of a plan that one call executes, padded to constant shapes.

    Waves are grouped in segments; a segment may end in an evaluation. NumPy arrays on the
    host, tracers in the program.

    Attributes:
      integers: int32 ``[capacity + lanes, 6]``, one row per arrival.
      weights: default float ``[capacity + lanes]``, shares in the commits.
      wave_starts: int32 ``[capacity + 1]``, first arrival of each wave.
      segment_ends: int32 ``[MAX_SEGMENTS]``, the wave after the segment's last.
      evaluates: bool ``[MAX_SEGMENTS]``, whether the segment ends in an evaluation.
      num_segments: int32 scalar.
      batches: the jobs' batches ``[capacity + lanes, num_batches, ...]`` if they are streamed,
        else ``None``.
    """

    integers: Any
    weights: Any
    wave_starts: Any
    segment_ends: Any
    evaluates: Any
    num_segments: Any
    batches: Any = None


class Numbers(NamedTuple):
    """The numbers and data of what was split into structure and numbers."""

    problem: tuple[Any, ...]
    optimizer: tuple[Any, ...]
    worker: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Structures:
    """Everything static about a run: runs with equal structures share one compilation.

    Attributes:
      problem: structure of the problem, without its numbers and data.
      optimizer: structure of the optimizer, without its numbers.
      worker: structure of the worker program, likewise.
      recorders: names and functions of what is kept per arrival.
      lanes: width of a wave.
      commits_every_arrival: whether accumulation can be left out.
      one_version: whether only one version lives at a time, so that lanes share parameters.
      always_fresh: whether every job reads the parameters as they are when it arrives: then
        they lie in no slot.
      mesh: devices that share the lanes of a wave, or ``None``.
    """

    problem: Structure
    optimizer: Structure
    worker: Structure
    recorders: tuple[tuple[str, Recorder], ...]
    lanes: int
    commits_every_arrival: bool
    one_version: bool = False
    always_fresh: bool = False
    mesh: Mesh | None = None
