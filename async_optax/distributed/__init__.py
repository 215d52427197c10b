"""Real asynchronous training on Ray: servers, workers, records, replays."""

from async_optax.distributed.compression import compressed
from async_optax.distributed.limits import Limits
from async_optax.distributed.messages import Status
from async_optax.distributed.recorded_jobs import RecordedJobs
from async_optax.distributed.recording import Recording
from async_optax.distributed.replay import replay, what_if_timeline
from async_optax.distributed.session import ray_session
from async_optax.distributed.supervision import Resources
from async_optax.distributed.train import TrainResult, train

__all__ = [
    "Limits",
    "Recording",
    "RecordedJobs",
    "Resources",
    "Status",
    "TrainResult",
    "compressed",
    "ray_session",
    "replay",
    "train",
    "what_if_timeline",
]
