"""Gradient transformations that see how stale a gradient is, composable in ``optax.chain``.

Staleness travels as extra arguments of ``update``: ``staleness`` (int32 scalar, versions
committed between read and arrival), ``stale_params`` (what the gradient was computed on),
``worker`` (int32 scalar), ``commit`` (bool scalar) and ``weight`` (float scalar). What a
transformation needs is required, what it does not need is ignored. In a chain, clipping and
compensation come first and see the raw gradient; staleness weights stand next to the learning
rate; :func:`accumulate_until_commit` separates what is done per arrival from the server.
"""

from async_optax.transforms import weights
from async_optax.transforms.accumulation import (
    AccumulateUntilCommitState,
    accumulate_until_commit,
    gathers_arrivals,
)
from async_optax.transforms.clipping import BiClipState, bi_clip, clip_by_global_norm
from async_optax.transforms.compensation import (
    CompensateDelayAdaptiveState,
    compensate_delay,
    compensate_delay_adaptive,
)
from async_optax.transforms.momentum import TracePerWorkerState, trace_per_worker
from async_optax.transforms.staleness import scale_by_staleness
from async_optax.transforms.sweepable import Structure, split_numbers, sweepable
from async_optax.transforms.tracking import TrackStalenessState, track_staleness, worker_params

__all__ = [
    "AccumulateUntilCommitState",
    "BiClipState",
    "CompensateDelayAdaptiveState",
    "Structure",
    "TracePerWorkerState",
    "TrackStalenessState",
    "accumulate_until_commit",
    "bi_clip",
    "clip_by_global_norm",
    "compensate_delay",
    "compensate_delay_adaptive",
    "gathers_arrivals",
    "scale_by_staleness",
    "split_numbers",
    "sweepable",
    "trace_per_worker",
    "track_staleness",
    "weights",
    "worker_params",
]
