"""Adaptive rules that were tried and did not make it into the library."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from async_optax.transforms import sweepable


def _inner(a: Any, b: Any) -> jax.Array:
    return sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def _ratio(a: ArrayLike, b: ArrayLike) -> jax.Array:
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1.0), 0.0)


def _squared_drift(g: Any, x: Any, s: Any) -> Any:
    return jax.tree.map(lambda g, x, s: g * g * (x - s), g, x, s)


def _plus(g: Any, strength: jax.Array, q: Any) -> Any:
    return jax.tree.map(lambda g, q: g + strength * q, g, q)


class ClipByMeanState(NamedTuple):
    """Gradients so far, and the running mean of their mean magnitude."""

    step: jax.Array
    mean: jax.Array


@sweepable
def clip_by_mean(
    factor: ArrayLike = 1.0, decay: ArrayLike = 0.9
) -> optax.GradientTransformationExtraArgs:
    """Clips coordinates at ``factor`` times a running mean of the mean magnitude."""

    def init_fn(params: Any) -> ClipByMeanState:
        del params
        return ClipByMeanState(jnp.zeros([], jnp.int32), jnp.zeros([]))

    def update_fn(updates: Any, state: ClipByMeanState, params: Any = None, **extra_args: Any):
        del params, extra_args
        total = optax.tree.sum(jax.tree.map(jnp.abs, updates))
        mean = decay * state.mean + (1 - decay) * total / optax.tree.size(updates)
        step = state.step + 1
        c = factor * mean / (1 - decay**step)
        return jax.tree.map(lambda g: jnp.clip(g, -c, c), updates), ClipByMeanState(step, mean)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


class PairState(NamedTuple):
    """The gradient before and its parameters, and the running sums of the regression."""

    gradient: Any
    point: Any
    explained: jax.Array
    predicted: jax.Array


@sweepable
def compensate_own_square(decay: ArrayLike = 0.99) -> optax.GradientTransformationExtraArgs:
    """``g + a / b * g * g * (x - s)``: the form of DC-ASGD, its strength fitted by regression.

    As ``compensate_delay_dynamic``, with the square of the gradient itself for its running mean.
    """

    def init_fn(params: Any) -> PairState:
        zero = jnp.zeros([])
        return PairState(jax.tree.map(jnp.zeros_like, params), params, zero, zero)

    def update_fn(
        updates: Any,
        state: PairState,
        params: Any = None,
        *,
        stale_params: Any,
        staleness: Any,
        **extra_args: Any,
    ):
        del extra_args
        expected = _squared_drift(state.gradient, stale_params, state.point)
        happened = jax.tree.map(jnp.subtract, updates, state.gradient)
        rate = jnp.where(staleness > 0, decay, 1.0)
        a = rate * state.explained + (1 - rate) * _inner(happened, expected)
        b = rate * state.predicted + (1 - rate) * _inner(expected, expected)
        strength = jnp.maximum(_ratio(a, b), 0.0)
        out = _plus(updates, strength, _squared_drift(updates, params, stale_params))
        return out, PairState(updates, stale_params, a, b)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


class HypergradientState(NamedTuple):
    """The correction before, and the logarithm of the strength in units of 1/clip^2."""

    correction: Any
    log_strength: jax.Array


@sweepable
def compensate_by_hypergradient(
    start: ArrayLike = 0.1, clip: ArrayLike = 0.03, rate: ArrayLike = 0.05
) -> optax.GradientTransformationExtraArgs:
    """The log-strength follows the cosine of this gradient and the last correction.

    If they agree, the step along the correction was downhill.
    """

    def init_fn(params: Any) -> HypergradientState:
        return HypergradientState(
            jax.tree.map(jnp.zeros_like, params), jnp.log(jnp.asarray(start, float))
        )

    def update_fn(
        updates: Any,
        state: HypergradientState,
        params: Any = None,
        *,
        stale_params: Any,
        **extra_args: Any,
    ):
        del extra_args
        size = jnp.sqrt(_inner(updates, updates) * _inner(state.correction, state.correction))
        log_strength = state.log_strength + rate * _ratio(_inner(updates, state.correction), size)
        correction = _squared_drift(updates, params, stale_params)
        out = _plus(updates, jnp.exp(log_strength) / clip**2, correction)
        return out, HypergradientState(correction, log_strength)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
