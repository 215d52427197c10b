"""The table that conformance tests run over: one row per registered method."""

import contextlib

import jax
import jax.numpy as jnp
import optax

import async_optax as ao
from async_optax import transforms

WORKERS = {"num_workers": 3, "momentum": 0.5}


def _momentum(lr):
    return optax.sgd(lr, momentum=0.5)


def _nesterov(lr):
    return optax.sgd(lr, momentum=0.5, nesterov=True)


# Arguments beside the learning rate, and the synchronous form that tau = 0 must equal bit for
# bit: the optax optimizer, after what the method does to fresh gradients, too.
METHODS = {
    "sgd": ({}, optax.sgd),
    "clipped_sgd": (
        {"max_norm": 1.0},
        lambda lr: optax.chain(transforms.clip_by_global_norm(1.0), optax.sgd(lr)),
    ),
    "staleness_aware_sgd": ({}, optax.sgd),
    "delay_adaptive_sgd": ({"num_workers": 4}, optax.sgd),
    "ringmaster_sgd": ({"max_staleness": 4}, optax.sgd),
    "normalized_momentum_sgd": (
        {"momentum": 0.5},
        lambda lr: optax.chain(transforms.scale_by_normalized_momentum(0.5), optax.sgd(lr)),
    ),
    "dc_asgd": ({"strength": 0.5}, optax.sgd),
    "dc_asgd_adaptive": ({"num_workers": 3}, optax.sgd),
    "momentum_sgd": ({"momentum": 0.5}, _momentum),
    "linear_weight_prediction": ({"num_steps": 2, "momentum": 0.5}, _momentum),
    "smega2": (
        WORKERS,
        lambda lr: optax.chain(transforms.trace_smega2(3, lr, 0.5), optax.sgd(lr)),
    ),
    "multi_momentum": (WORKERS, _momentum),
    "dana": (WORKERS, _nesterov),
    "dana_dc": (WORKERS | {"strength": 0.04}, _momentum),
    "gap_aware": ({"momentum": 0.5}, _momentum),
    "dana_gap_aware": (WORKERS, _momentum),
    "nesterov_delayed": (
        {"momentum": 0.5},
        lambda lr: optax.chain(optax.scale(0.5), _nesterov(lr)),
    ),
    "nadam_delayed": (
        {"weight_decay": 0.0},
        lambda lr: optax.chain(transforms.scale_by_nadam_delayed(), optax.sgd(lr)),
    ),
    "parameter_averaging": ({}, optax.sgd),
    "diloco": ({"momentum": 0.5}, _nesterov),
    "fedasync": ({"mixing": 1.0}, optax.sgd),
    "fedbuff": ({"momentum": 0.5}, _momentum),
    "fadas": ({"max_staleness": 4}, optax.amsgrad),
    "gba": ({"max_staleness": 4, "server": optax.sgd}, optax.sgd),
    "adadelay": (
        {"scale": 0.5},
        lambda lr: optax.sgd(
            lambda step: lr / (1 + lr * 0.5 * jnp.sqrt(jnp.asarray(step, float) + 1))
        ),
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
    "ringmaster_sgd": ({"max_staleness": 1e6}, optax.sgd),
    "dc_asgd": ({"strength": 0.0}, optax.sgd),
    "dc_asgd_adaptive": ({"num_workers": 3, "strength": 0.0}, optax.sgd),
    "momentum_sgd": ({"momentum": 0.5, "nesterov": True}, _nesterov),
    "linear_weight_prediction": ({"num_steps": 0, "momentum": 0.5}, _momentum),
    "smega2": ({"num_workers": 3, "momentum": 0.0}, optax.sgd),
    "multi_momentum": ({"num_workers": 3, "momentum": 0.0}, optax.sgd),
    "dana": ({"num_workers": 3, "momentum": 0.0}, optax.sgd),
    "dana_dc": ({"num_workers": 3, "momentum": 0.0, "strength": 0.0}, optax.sgd),
    "nesterov_delayed": ({"momentum": 0.0}, optax.sgd),
    "diloco": ({"momentum": 0.5, "weight_fn": ao.weights.constant()}, _nesterov),
    "fedbuff": ({"weight_fn": ao.weights.constant()}, optax.sgd),
    "fadas": ({"max_staleness": 1e6}, optax.amsgrad),
    "gba": ({"max_staleness": 1e6, "server": optax.sgd}, optax.sgd),
    "adadelay": ({"scale": 0.0}, optax.sgd),
    "async_heavy_tailed": (
        {"clipping": "none", "compensation": 0.0, "weight_fn": ao.weights.constant()},
        optax.sgd,
    ),
}
WITHOUT_NEUTRAL = {
    "staleness_aware_sgd": "only tau <= 1 turns it off",
    "normalized_momentum_sgd": "ignores staleness and always normalises",
    "gap_aware": "only a gap of zero turns it off",
    "dana_gap_aware": "only a gap of zero turns it off",
    "nadam_delayed": "ignores staleness; its limit is optax.nadam, see the oracles",
    "fedasync": "a stale model is mixed as it is",
    "parameter_averaging": "a stale model is taken as it is",
}

# Methods around optax transformations that do not stand strict promotion of dtypes.
NOT_STRICT = {"fadas"}
# Methods whose step does not grow in proportion to the learning rate.
NOT_PROPORTIONAL = {
    "parameter_averaging",
    "fedasync",
    "fadas",
    "adadelay",
    "gap_aware",
    "dana_gap_aware",
}


def promotion(name):
    """Strict promotion of dtypes where all parts of a method stand it."""
    if name in NOT_STRICT:
        return jax.numpy_dtype_promotion("standard")
    return contextlib.nullcontext()


def make(name: str, learning_rate=0.1, **arguments):
    assert name in METHODS, f"{name} is registered: add a row to {__file__}"
    return ao.optimizers.make(name, learning_rate=learning_rate, **(METHODS[name][0] | arguments))


def extra_args(params, staleness=0, stale_params=None):
    return {
        "staleness": jnp.int32(staleness),
        "stale_params": params if stale_params is None else stale_params,
        "worker": jnp.int32(1),
    }
