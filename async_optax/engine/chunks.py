"""Cutting a plan into chunks: where a run is evaluated, and what one call executes."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from async_optax.engine.plan import Plan, cut_waves
from async_optax.engine.states import MAX_SEGMENTS, Chunk
from async_optax.validation import require_count


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluations:
    """When a run is evaluated.

    Attributes:
      position: int64 ``[num_evaluations]``, number of accepted arrivals before it; sorted.
      version: int32, the version that is evaluated.
      time: float64, simulated time.
    """

    position: np.ndarray
    version: np.ndarray
    time: np.ndarray


def schedule_evaluations(
    plan: Plan,
    end_time: float,
    evaluate_every: int | None,
    evaluate_at: Sequence[float] | None,
) -> Evaluations:
    """Places the evaluations: always at the start and at the end, and in between as asked.

    Args:
      plan: the plan.
      end_time: simulated time at which the timeline ends.
      evaluate_every: commits between evaluations, >= 1, or ``None``.
      evaluate_at: simulated times in ``[0, end_time]``, or ``None``.

    Returns:
      The evaluations.

    Raises:
      TypeError: if ``evaluate_at`` holds something else than numbers.
      ValueError: if both are given, or a value is out of range.
    """
    if evaluate_every is not None and evaluate_at is not None:
        raise ValueError("give evaluate_every or evaluate_at, not both")
    if evaluate_at is not None:
        time = _read_times(evaluate_at, end_time)
        time = np.unique(np.concatenate([[0.0], time, [end_time]]))
        position = np.searchsorted(plan.time, time, side="right")
    else:
        committed = np.flatnonzero(plan.commit) + 1
        if evaluate_every is not None:
            require_count("evaluate_every", evaluate_every)
            committed = committed[evaluate_every - 1 :: evaluate_every]
        else:
            committed = committed[:0]
        position = np.concatenate([[0], committed])
        time = np.concatenate([[0.0], plan.time[committed - 1]])
        if position[-1] < plan.num_arrivals:
            position = np.append(position, plan.num_arrivals)
            time = np.append(time, end_time)
    versions = np.concatenate([[0], plan.version])
    return Evaluations(position, versions[position].astype(np.int32), time)


def _read_times(evaluate_at: Sequence[float], end_time: float) -> np.ndarray:
    """Returns the times that were asked for, or raises, naming the first that is none."""
    allowed = f"evaluate_at must be simulated times in [0, {end_time:g}]"
    try:
        time = np.asarray(evaluate_at)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{allowed}, got {evaluate_at!r:.80}") from error
    if time.dtype.kind not in "iuf":
        raise TypeError(f"{allowed}, got {evaluate_at!r:.80}")
    time = time.astype(np.float64)
    if time.ndim != 1:
        raise ValueError(f"{allowed}, got an array of shape {time.shape}")
    outside = ~((time >= 0) & (time <= end_time))
    if outside.any():
        raise ValueError(f"{allowed}, got {time[outside][0]}")
    return time


@dataclasses.dataclass(frozen=True, eq=False)
class ChunkSpan:
    """The arrivals and evaluations that a chunk covers: ``[first, last)`` of each."""

    first_arrival: int
    last_arrival: int
    first_evaluation: int
    last_evaluation: int


class Chunker:
    """Cuts a plan into waves, and waves into chunks of any length.

    Attributes:
      starts: int64 ``[num_waves + 1]``, the first arrival of each wave.
      capacity: largest number of arrivals in a chunk; it decides the shapes.
    """

    def __init__(self, plan: Plan, lanes: int, evaluations: Evaluations, capacity: int):
        self.capacity = capacity
        boundaries = np.unique(np.append(evaluations.position, plan.num_arrivals))
        self.starts = cut_waves(plan, lanes, boundaries)
        self._lanes = lanes
        self._evaluation_waves = np.searchsorted(self.starts, evaluations.position)
        self._integers = np.stack(
            [plan.worker, plan.staleness, plan.read_slot, plan.write_slot, plan.commit, plan.job],
            axis=1,
        ).astype(np.int32)
        self._weights = plan.weight.astype(jnp.result_type(float))

    @property
    def num_rows(self) -> int:
        """Rows of a chunk: a wave that starts at the last arrival must find its lanes."""
        return self.capacity + self._lanes

    @property
    def num_waves(self) -> int:
        """Number of waves of the whole plan."""
        return len(self.starts) - 1

    def wave_at(self, position: int) -> int:
        """Returns the wave that starts after so many arrivals.

        Raises:
          ValueError: if no wave starts there.
        """
        wave = int(np.searchsorted(self.starts, position))
        if wave == len(self.starts) or self.starts[wave] != position:
            raise ValueError(f"no wave starts after {position} arrivals")
        return wave

    def chunk(
        self, first_wave: int, first_evaluation: int, num_arrivals: int
    ) -> tuple[Chunk, ChunkSpan, int]:
        """Returns the chunk that starts at a wave, and the wave after it.

        Args:
          first_wave: where it starts.
          first_evaluation: the next evaluation that is due.
          num_arrivals: about how many arrivals it should hold, at most the capacity.
        """
        starts = self.starts
        first = starts[first_wave]
        limit = first + min(max(num_arrivals, self._lanes), self.capacity)
        last_wave = int(np.searchsorted(starts, limit, side="right")) - 1
        due = self._evaluation_waves[first_evaluation : first_evaluation + MAX_SEGMENTS - 1]
        num_due = int(np.searchsorted(due, last_wave, side="right"))
        if num_due == MAX_SEGMENTS - 1:
            last_wave = int(due[-1])
        ends = np.append(due[:num_due], last_wave) - first_wave
        arrivals = slice(first, starts[last_wave])
        wave_starts = starts[first_wave : last_wave + 1] - first
        chunk = self._packed(arrivals, wave_starts, ends)
        span = ChunkSpan(
            int(first), int(starts[last_wave]), first_evaluation, first_evaluation + num_due
        )
        return chunk, span, last_wave

    def trial(self, num_arrivals: int, arrivals_per_wave: int) -> Chunk:
        """Returns a chunk of waves of one length, whatever they read.

        It is for measuring: what it computes means nothing.
        """
        arrivals = np.arange(num_arrivals) % len(self._integers)
        wave_starts = np.append(np.arange(0, num_arrivals, arrivals_per_wave), num_arrivals)
        return self._packed(arrivals, wave_starts, np.array([len(wave_starts) - 1]))

    def _packed(
        self, arrivals: slice | np.ndarray, wave_starts: np.ndarray, segment_ends: np.ndarray
    ) -> Chunk:
        num_due = len(segment_ends) - 1
        return Chunk(
            integers=_padded(self._integers[arrivals], self.num_rows),
            weights=_padded(self._weights[arrivals], self.num_rows),
            wave_starts=_padded(wave_starts.astype(np.int32), self.capacity + 1),
            segment_ends=_padded(segment_ends.astype(np.int32), MAX_SEGMENTS),
            evaluates=_padded(np.arange(num_due + 1) < num_due, MAX_SEGMENTS),
            num_segments=np.int32(num_due + 1),
        )


def _padded(rows: np.ndarray, length: int) -> np.ndarray:
    padded = np.zeros((length, *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    return padded
