"""Named methods of the literature, each a short composition of transformations.

Every method takes ``learning_rate`` first. Those of the registry run under every protocol and are
found by their name through :func:`names`, :func:`get` and :func:`make`; those for stages
(``pipelines``), for stacked agents (``d_psgd``, the ``c_``, ``p_`` and ``pc_asgd`` family,
``ad_psgd``) and for elastic averaging need problems, timelines or workers of their own.
"""

from async_optax.optimizers import pipelines
from async_optax.optimizers.adadelay import adadelay
from async_optax.optimizers.averaging import diloco, parameter_averaging
from async_optax.optimizers.delay_compensated import dana_dc, dc_asgd, dc_asgd_adaptive
from async_optax.optimizers.elastic import eamsgd, easgd
from async_optax.optimizers.federated import fadas, fedasync, fedbuff
from async_optax.optimizers.gap_aware import dana_gap_aware, gap_aware
from async_optax.optimizers.global_batch import gba
from async_optax.optimizers.gossip import c_asgd, d_psgd, p_asgd, pc_asgd, pc_asgd_practical
from async_optax.optimizers.gradient_descent import (
    clipped_sgd,
    delay_adaptive_sgd,
    ringmaster_sgd,
    sgd,
    staleness_aware_sgd,
)
from async_optax.optimizers.heavy_tailed import async_heavy_tailed
from async_optax.optimizers.nesterov import nadam_delayed, nesterov_delayed
from async_optax.optimizers.normalized import normalized_momentum_sgd
from async_optax.optimizers.pairwise import ad_psgd
from async_optax.optimizers.per_worker_momentum import dana, multi_momentum
from async_optax.optimizers.registry import get, make, names, register
from async_optax.optimizers.shared_momentum import linear_weight_prediction, momentum_sgd, smega2

__all__ = [
    "ad_psgd",
    "adadelay",
    "async_heavy_tailed",
    "c_asgd",
    "clipped_sgd",
    "d_psgd",
    "dana",
    "dana_dc",
    "dana_gap_aware",
    "dc_asgd",
    "dc_asgd_adaptive",
    "delay_adaptive_sgd",
    "diloco",
    "eamsgd",
    "easgd",
    "fadas",
    "fedasync",
    "fedbuff",
    "gap_aware",
    "gba",
    "get",
    "linear_weight_prediction",
    "make",
    "momentum_sgd",
    "multi_momentum",
    "nadam_delayed",
    "names",
    "nesterov_delayed",
    "normalized_momentum_sgd",
    "p_asgd",
    "parameter_averaging",
    "pc_asgd",
    "pc_asgd_practical",
    "pipelines",
    "register",
    "ringmaster_sgd",
    "sgd",
    "smega2",
    "staleness_aware_sgd",
]
