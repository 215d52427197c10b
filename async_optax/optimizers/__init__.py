"""Named methods of the literature, each a short composition of transformations.

Every method takes ``learning_rate`` first, runs under every protocol, and is found by its name
through :func:`names`, :func:`get` and :func:`make`.
"""

from async_optax.optimizers.delay_compensated import dc_asgd, dc_asgd_adaptive
from async_optax.optimizers.gradient_descent import (
    clipped_sgd,
    delay_adaptive_sgd,
    ringmaster_sgd,
    sgd,
    staleness_aware_sgd,
)
from async_optax.optimizers.heavy_tailed import async_heavy_tailed
from async_optax.optimizers.per_worker_momentum import dana, multi_momentum
from async_optax.optimizers.registry import get, make, names, register

__all__ = [
    "async_heavy_tailed",
    "clipped_sgd",
    "dana",
    "dc_asgd",
    "dc_asgd_adaptive",
    "delay_adaptive_sgd",
    "get",
    "make",
    "multi_momentum",
    "names",
    "register",
    "ringmaster_sgd",
    "sgd",
    "staleness_aware_sgd",
]
