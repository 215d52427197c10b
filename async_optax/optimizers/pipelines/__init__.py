"""Methods for pipelines, whose parameters are a tuple of stages; see ``ao.pipeline``.

They are not in the registry of methods, which run on any parameters. All step by
``x <- x - learning_rate * (d + weight_decay * x)``, with d a direction that is theirs, at each
commit; a norm clip, if there is one, sees the gradient first, as in the code of Ajanthan et al.
2025, where it is 10. The norm is that of all stages (``max_norm``), which no asynchronous pipeline
can know when its last stage steps: clipped results are of a simulation that can.
"""

from async_optax.optimizers.pipelines.baselines import (
    gpipe,
    pipedream,
    pipemare,
    weight_prediction,
)
from async_optax.optimizers.pipelines.nesterov import (
    nesterov_pipeline,
    nesterov_pipeline_no_stash,
    stage_momentum,
)

__all__ = [
    "gpipe",
    "nesterov_pipeline",
    "nesterov_pipeline_no_stash",
    "pipedream",
    "pipemare",
    "stage_momentum",
    "weight_prediction",
]
