"""A worker program that keeps a state: momentum at the worker, and how many jobs it has done."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

import async_optax as ao


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KeepingMomentum:
    """Sends its momentum ``v <- decay * v + g``: what ``trace_per_worker`` does at the server."""

    decay: Any = 0.7

    def batch_keys(self, key):
        return ao.gradient().batch_keys(key)

    def init(self, problem, params):
        return {"velocity": jax.tree.map(jnp.zeros_like, params), "jobs": jnp.int32(0)}

    def __call__(self, problem, params, worker, key, state):
        gradient, loss = ao.gradient()(problem, params, worker, key)
        velocity = jax.tree.map(lambda v, g: self.decay * v + g, state["velocity"], gradient)
        return velocity, loss, {"velocity": velocity, "jobs": state["jobs"] + 1}
