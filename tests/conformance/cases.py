"""The table that conformance tests run over: one row per registered method."""

import jax.numpy as jnp
import optax

import async_optax as ao
from async_optax import transforms

# Arguments beside the learning rate, and the synchronous form that tau = 0 must equal bit for
# bit (None: neutral arguments are needed, below).
METHODS = {
    "sgd": ({}, lambda lr: optax.sgd(lr)),
    "clipped_sgd": (
        {"max_norm": 1.0},
        lambda lr: optax.chain(transforms.clip_by_global_norm(1.0), optax.sgd(lr)),
    ),
    "staleness_aware_sgd": ({}, lambda lr: optax.sgd(lr)),
    "delay_adaptive_sgd": ({"num_workers": 4}, lambda lr: optax.sgd(lr)),
    "dc_asgd": ({"strength": 0.5}, lambda lr: optax.sgd(lr)),
    "ringmaster_sgd": ({"max_staleness": 4}, lambda lr: optax.sgd(lr)),
    "dc_asgd_adaptive": ({"num_workers": 3}, lambda lr: optax.sgd(lr)),
    "multi_momentum": (
        {"num_workers": 3, "momentum": 0.5},
        lambda lr: optax.sgd(lr, momentum=0.5),
    ),
    "dana": (
        {"num_workers": 3, "momentum": 0.5},
        lambda lr: optax.sgd(lr, momentum=0.5, nesterov=True),
    ),
    "async_heavy_tailed": (
        {"threshold": 0.5, "weight_fn": ao.weights.polynomial(0.5)},
        lambda lr: optax.chain(transforms.bi_clip(0.0, 0.5), optax.sgd(lr)),
    ),
}

# Arguments with which staleness must not matter, and the optax optimizer that results.
NEUTRAL = {
    "sgd": ({}, optax.sgd),
    "clipped_sgd": ({"max_norm": 1e6}, optax.sgd),
    "delay_adaptive_sgd": ({"num_workers": 1e6}, optax.sgd),
    "dc_asgd": ({"strength": 0.0}, optax.sgd),
    "ringmaster_sgd": ({"max_staleness": 1e6}, optax.sgd),
    "dc_asgd_adaptive": ({"num_workers": 3, "strength": 0.0}, optax.sgd),
    "multi_momentum": ({"num_workers": 3, "momentum": 0.0}, optax.sgd),
    "dana": ({"num_workers": 3, "momentum": 0.0}, optax.sgd),
    "async_heavy_tailed": (
        {"clipping": "none", "compensation": 0.0, "weight_fn": ao.weights.constant()},
        optax.sgd,
    ),
}
# Staleness-aware SGD has no parameter that turns it off: only tau <= 1 does.
WITHOUT_NEUTRAL = {"staleness_aware_sgd"}


def make(name: str, learning_rate=0.1, **arguments):
    assert name in METHODS, f"{name} is registered: add a row to {__file__}"
    return ao.optimizers.make(name, learning_rate=learning_rate, **(METHODS[name][0] | arguments))


def extra_args(params, staleness=0, stale_params=None):
    return {
        "staleness": jnp.int32(staleness),
        "stale_params": params if stale_params is None else stale_params,
        "worker": jnp.int32(1),
    }
