"""Gradient transformations that see how stale a gradient is, composable in ``optax.chain``.

Staleness travels as extra arguments of ``update``: ``staleness`` (int32 scalar, versions
committed between read and arrival), ``stale_params`` (what the gradient was computed on),
``worker`` (int32 scalar), ``commit`` (bool scalar), ``weight`` (float scalar) and
``gradient_fn`` (the arrival's gradient as a function of the parameters). What a transformation
needs is required, what it does not need is ignored. In a chain, clipping and
compensation come first and see the raw gradient; staleness weights stand next to the learning
rate; :func:`accumulate_until_commit` separates what is done per arrival from the server.
"""

from async_optax.transforms import schedules, stages, topologies, weights
from async_optax.transforms.accumulation import (
    AccumulateUntilCommitState,
    accumulate_until_commit,
)
from async_optax.transforms.adadelay import ScaleByAdadelayState, scale_by_adadelay
from async_optax.transforms.adaptive_clipping import (
    ClipByQuantileState,
    ClipCoordinatesByQuantileState,
    clip_by_quantile,
    clip_coordinates_by_quantile,
)
from async_optax.transforms.checking import check_arrival
from async_optax.transforms.clipping import BiClipState, bi_clip, clip_by_global_norm
from async_optax.transforms.compensation import (
    CompensateDelayAdaptiveState,
    compensate_delay,
    compensate_delay_adaptive,
)
from async_optax.transforms.dynamic_compensation import (
    CompensateDelayDynamicState,
    compensate_delay_dynamic,
)
from async_optax.transforms.elastic import ElasticAverageState, ElasticCopy, elastic_average
from async_optax.transforms.exact_compensation import compensate_delay_exact
from async_optax.transforms.gap import ScaleByGapMomentumState, scale_by_gap_momentum
from async_optax.transforms.gathering import require_gathering
from async_optax.transforms.gossip import MixNeighboursState, mix_neighbours
from async_optax.transforms.lookahead import (
    LookAheadState,
    ServesParams,
    TraceWithLookAheadState,
    look_ahead,
    served_params,
    serves_params,
    trace_with_look_ahead,
)
from async_optax.transforms.mixing import (
    DifferenceToWorkerModelState,
    difference_to_worker_model,
)
from async_optax.transforms.momentum import TracePerWorkerState, trace_per_worker
from async_optax.transforms.nesterov import (
    ScaleByNadamDelayedState,
    TraceNesterovDelayedState,
    scale_by_nadam_delayed,
    trace_nesterov_delayed,
)
from async_optax.transforms.normalization import (
    ScaleByNormalizedMomentumState,
    scale_by_normalized_momentum,
)
from async_optax.transforms.pairwise import AveragePairsState, average_pairs
from async_optax.transforms.partners import Partners, active_half, partner_sequence, partners_of
from async_optax.transforms.predict_clip import PredictClipState, predict_clip
from async_optax.transforms.rows import RowUpdates, apply_updates
from async_optax.transforms.schedules import (
    InjectedStalenessSchedule,
    ScaleByStalenessScheduleState,
    scale_by_staleness_schedule,
)
from async_optax.transforms.smega2 import TraceSmega2State, trace_smega2
from async_optax.transforms.stage_prediction import PredictStagesState, predict_stages
from async_optax.transforms.stage_versions import (
    DelayStagesState,
    DelayStagesWithoutStashState,
    StageVersions,
    delay_stages,
)
from async_optax.transforms.staleness import scale_by_staleness
from async_optax.transforms.sweepable import Structure, split_numbers, sweepable
from async_optax.transforms.touched_rows import AverageTouchedRowsState, average_touched_rows
from async_optax.transforms.tracking import TrackStalenessState, track_staleness, worker_params

__all__ = [
    "AccumulateUntilCommitState",
    "AveragePairsState",
    "AverageTouchedRowsState",
    "BiClipState",
    "ClipByQuantileState",
    "ClipCoordinatesByQuantileState",
    "CompensateDelayAdaptiveState",
    "CompensateDelayDynamicState",
    "DelayStagesState",
    "DelayStagesWithoutStashState",
    "DifferenceToWorkerModelState",
    "ElasticAverageState",
    "ElasticCopy",
    "InjectedStalenessSchedule",
    "LookAheadState",
    "MixNeighboursState",
    "ScaleByAdadelayState",
    "ScaleByGapMomentumState",
    "ScaleByNadamDelayedState",
    "ScaleByNormalizedMomentumState",
    "ScaleByStalenessScheduleState",
    "ServesParams",
    "Partners",
    "PredictClipState",
    "PredictStagesState",
    "RowUpdates",
    "StageVersions",
    "Structure",
    "TraceNesterovDelayedState",
    "TracePerWorkerState",
    "TraceSmega2State",
    "TraceWithLookAheadState",
    "TrackStalenessState",
    "accumulate_until_commit",
    "active_half",
    "apply_updates",
    "average_pairs",
    "average_touched_rows",
    "bi_clip",
    "check_arrival",
    "clip_by_global_norm",
    "clip_by_quantile",
    "clip_coordinates_by_quantile",
    "compensate_delay",
    "compensate_delay_adaptive",
    "compensate_delay_dynamic",
    "compensate_delay_exact",
    "delay_stages",
    "difference_to_worker_model",
    "elastic_average",
    "look_ahead",
    "mix_neighbours",
    "partner_sequence",
    "partners_of",
    "predict_clip",
    "predict_stages",
    "require_gathering",
    "scale_by_adadelay",
    "scale_by_gap_momentum",
    "scale_by_nadam_delayed",
    "scale_by_normalized_momentum",
    "scale_by_staleness",
    "scale_by_staleness_schedule",
    "schedules",
    "served_params",
    "serves_params",
    "split_numbers",
    "stages",
    "sweepable",
    "topologies",
    "trace_nesterov_delayed",
    "trace_per_worker",
    "trace_smega2",
    "trace_with_look_ahead",
    "track_staleness",
    "weights",
    "worker_params",
]
