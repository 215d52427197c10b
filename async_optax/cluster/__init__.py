"""Would asynchrony help a cluster? Protocols on the same workers, compared by what they compute."""

from async_optax.cluster.comparison import compare_protocols, default_max_time, verdict
from async_optax.cluster.defaults import default_protocols
from async_optax.cluster.measured import TraceFacts, describe_trace
from async_optax.cluster.statistics import ProtocolStatistics

__all__ = [
    "ProtocolStatistics",
    "TraceFacts",
    "compare_protocols",
    "default_max_time",
    "default_protocols",
    "describe_trace",
    "verdict",
]
