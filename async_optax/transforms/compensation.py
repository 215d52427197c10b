"""Delay compensation: estimates of the gradient at the current parameters from a stale one."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from async_optax.transforms.precision import global_norm, working_dtype
from async_optax.transforms.sweepable import sweepable
from async_optax.transforms.workers import (
    read_worker,
    require_worker,
    write_worker,
    zeros_per_worker,
)
from async_optax.validation import require_count, require_number


@sweepable
def compensate_delay(
    strength: ArrayLike = 0.04, max_ratio: ArrayLike | None = None
) -> optax.GradientTransformationExtraArgs:
    """Corrects a stale gradient by a Taylor step: ``g + strength * g * g * (x - s)``.

    Here g is the gradient taken at the stale parameters s, x are the current parameters and
    products are element-wise: ``strength * g * g`` stands for the diagonal of the Hessian.
    They are taken in at least float32.
    The correction is quadratic in g: after clipping at c the natural unit of the strength is
    ``1 / c**2``. At tau = 0, where x = s, gradients pass unchanged, bit for bit.

    Where s and x are far apart the Taylor step means nothing, and may be larger than the
    gradient. With ``max_ratio`` the strength of an arrival is at most
    ``max_ratio * norm(g) / norm(g * g * (x - s))``, norms of the whole tree, so that no
    correction's norm exceeds that share of its gradient's.

    Args:
      strength: >= 0; 0 turns the compensation off.
      max_ratio: >= 0, or ``None`` for no bound. It costs two norms; 0.5 lost no run where the
        bare rule diverged (``experiments/adaptive``).

    Returns:
      A stateless transformation whose ``update`` requires ``params`` (x) and
      ``stale_params`` (s, a pytree like ``params``). Updates keep their shapes and dtypes.

    Raises:
      ValueError: if a number is negative or not finite; in ``update``, if ``params`` or
        ``stale_params`` is ``None``.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = compensate_delay(strength=0.5)
      >>> x, s, g = jnp.array([1.0]), jnp.array([0.5]), jnp.array([2.0])
      >>> print(tx.update(g, tx.init(x), x, stale_params=s)[0])
      [3.]

    References:
      Zheng et al., `Asynchronous Stochastic Gradient Descent with Delay Compensation
      <https://arxiv.org/abs/1609.08326>`_, 2017. The outer product is the Hessian's estimate
      for likelihood losses only: on a quadratic it is wrong. ``max_ratio`` is ours. Under
      ``optax.masked`` it needs ``mask_compatible_extra_args=True``, so that the mask reaches
      ``stale_params``.
    """
    require_number("strength", strength, at_least=0)
    if max_ratio is not None:
        require_number("max_ratio", max_ratio, at_least=0)

    def update_fn(
        updates: optax.Updates,
        state: optax.EmptyState,
        params: optax.Params | None = None,
        *,
        stale_params: optax.Params,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.EmptyState]:
        del extra_args
        if params is None or stale_params is None:
            raise ValueError("compensate_delay needs params and stale_params, got None")

        used = strength
        if max_ratio is not None:
            used = _bounded(strength, max_ratio, updates, params, stale_params)
        corrected = jax.tree.map(
            lambda g, x, s: _corrected(g, x, s, used), updates, params, stale_params
        )
        return corrected, state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update_fn)


class CompensateDelayAdaptiveState(NamedTuple):
    """State of :func:`compensate_delay_adaptive`.

    Attributes:
      mean_square: running mean of g * g for each worker, like params with a leading axis
        ``[num_workers]``, in at least float32.
    """

    mean_square: optax.Updates


@sweepable(static_argnames=("num_workers",))
def compensate_delay_adaptive(
    num_workers: int,
    strength: ArrayLike = 2.0,
    decay: ArrayLike = 0.95,
    eps: ArrayLike = 1e-7,
) -> optax.GradientTransformationExtraArgs:
    """Corrects a stale gradient by a Taylor step whose strength follows the gradients' size.

    With g the gradient of worker j at the stale parameters s, and x the current ones::

        ms_j <- decay * ms_j + (1 - decay) * g * g
        g + strength / sqrt(ms_j + eps) * g * g * (x - s)

    Products are element-wise, ``ms_j`` starts at zero, is kept per worker and is updated before
    it is used. With ``decay=0`` the correction is ``strength * abs(g) * (x - s)``, up to eps.

    Args:
      num_workers: number of workers, >= 1; the state holds that many copies.
      strength: >= 0; 0 turns the compensation off. Not the scale of
        :func:`compensate_delay`: here g * g is divided by the size of g.
      decay: in [0, 1).
      eps: > 0, inside the root.

    Returns:
      A transformation whose ``update`` requires ``params`` (x), ``stale_params`` (s) and
      ``worker`` (int32 scalar). Updates keep their shapes and dtypes.

    Raises:
      ValueError: if a number is out of range; in ``update``, if ``params`` or
        ``stale_params`` is ``None`` or a concrete ``worker`` is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = compensate_delay_adaptive(num_workers=2, strength=0.5, decay=0.0)
      >>> x, s, g = jnp.array([1.0]), jnp.array([0.5]), jnp.array([2.0])
      >>> print(tx.update(g, tx.init(x), x, stale_params=s, worker=1)[0].round(4))
      [2.5]

    References:
      Zheng et al., `Asynchronous Stochastic Gradient Descent with Delay Compensation
      <https://arxiv.org/abs/1609.08326>`_, 2017 (DC-ASGD-a), as in the authors' code: one mean
      square per worker, where the paper (as we recall) writes a single one.
    """
    require_count("num_workers", num_workers)
    require_number("strength", strength, at_least=0)
    require_number("decay", decay, at_least=0, below=1)
    require_number("eps", eps, above=0)

    def init_fn(params: optax.Params) -> CompensateDelayAdaptiveState:
        return CompensateDelayAdaptiveState(
            jax.tree.map(lambda x: zeros_per_worker(x, num_workers, working_dtype(x)), params)
        )

    def update_fn(
        updates: optax.Updates,
        state: CompensateDelayAdaptiveState,
        params: optax.Params | None = None,
        *,
        stale_params: optax.Params,
        worker: ArrayLike,
        **extra_args: Any,
    ) -> tuple[optax.Updates, CompensateDelayAdaptiveState]:
        del extra_args
        if params is None or stale_params is None:
            raise ValueError("compensate_delay_adaptive needs params and stale_params, got None")
        require_worker(worker, num_workers)

        def refresh(copies: jax.Array, g: jax.Array) -> jax.Array:
            rate = jnp.asarray(decay, copies.dtype)
            square = jnp.square(g.astype(copies.dtype))
            return rate * read_worker(copies, worker) + (1 - rate) * square

        mean_square = jax.tree.map(refresh, state.mean_square, updates)
        corrected = jax.tree.map(
            lambda g, x, s, ms: _corrected(
                g, x, s, jnp.asarray(strength, ms.dtype) / jnp.sqrt(ms + jnp.asarray(eps, ms.dtype))
            ),
            updates,
            params,
            stale_params,
            mean_square,
        )
        copies = jax.tree.map(
            lambda all_workers, ms: write_worker(all_workers, worker, ms),
            state.mean_square,
            mean_square,
        )
        return corrected, CompensateDelayAdaptiveState(copies)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _corrected(g: jax.Array, x: jax.Array, s: jax.Array, strength: ArrayLike) -> jax.Array:
    """``g + strength * g * g * (x - s)`` in at least float32, cast back to the dtype of g."""
    dtype = working_dtype(g, x)
    wide, factor = g.astype(dtype), jnp.asarray(strength, dtype)
    drift = x.astype(dtype) - s.astype(dtype)
    # Not g * g first: a large gradient must not overflow when its correction is small.
    corrected = wide + factor * drift * wide * wide
    # Without drift or strength the correction is zero, not the NaN of 0 * inf.
    unchanged = (drift == 0) | (factor == 0)
    return jnp.where(unchanged, g, corrected.astype(g.dtype))


def _bounded(
    strength: ArrayLike,
    max_ratio: ArrayLike,
    updates: optax.Updates,
    params: optax.Params,
    stale_params: optax.Params,
) -> jax.Array:
    """The strength, or less if the correction would exceed ``max_ratio`` of the gradient."""
    norm = global_norm(updates)
    known = (norm > 0) & jnp.isfinite(norm)
    unit = jnp.where(known, norm, jnp.ones_like(norm))

    def square(g: jax.Array, x: jax.Array, s: jax.Array) -> jax.Array:
        # Of the direction of g, so that products stay in range. Summed here: as an operand of
        # the branches within a norm they would be written to memory first.
        dtype = working_dtype(g, x)
        u = g.astype(dtype) / unit.astype(dtype)
        product = (x.astype(dtype) - s.astype(dtype)) * u * u
        return jnp.sum(jnp.square(product)).astype(norm.dtype)

    squares = jax.tree.leaves(jax.tree.map(square, updates, params, stale_params))
    length = unit * jnp.sqrt(sum(squares, jnp.zeros_like(norm)))
    bounded = length > 0
    bound = jnp.asarray(max_ratio, norm.dtype) / jnp.where(bounded, length, jnp.ones_like(length))
    used = jnp.asarray(strength, norm.dtype)
    return jnp.where(bounded, jnp.minimum(used, bound), used)
