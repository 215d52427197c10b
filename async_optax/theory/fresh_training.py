"""Training without staleness: where gradients and curvatures are looked at along a run."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from async_optax.theory.stochastic_problem import (
    StochasticProblem,
    functions_of,
    job_gradient,
)
from async_optax.transforms.sweepable import Structure, split_numbers
from async_optax.validation import require_count

_TRAIN = 1  # purpose of a key; collecting noise has 0


def train(
    problem: StochasticProblem,
    optimizer: optax.GradientTransformation,
    params: optax.Params,
    *,
    key: jax.Array,
    num_steps: int,
    first_step: int = 0,
    state: optax.OptState | None = None,
    num_workers: int = 1,
) -> tuple[optax.Params, optax.OptState, np.ndarray]:
    """Trains on fresh gradients: what one worker and its server would do.

    Args:
      problem: any with ``init``, ``loss`` and ``batch``, and perhaps ``noise``.
      optimizer: an optimizer of Optax, or of :mod:`async_optax.optimizers`.
      params: where to start.
      key: a typed key; step i draws from ``fold_in(fold_in(key, 1), first_step + i)``.
      num_steps: >= 0.
      first_step: number of the first step.
      state: the optimizer's state before, ``None`` for a fresh one.
      num_workers: step i has a batch of worker ``i % num_workers``.

    Returns:
      The parameters, the optimizer's state, and the losses float64 ``[num_steps]``.

    Raises:
      TypeError: if a number of steps is not an integer.
      ValueError: if one is negative, or parameters are not finite at the end.

    Example:
      >>> import async_optax as ao, jax, jax.numpy as jnp, optax
      >>> problem = ao.Problem(
      ...     init=lambda key: jnp.ones(1),
      ...     loss=lambda x, batch, key: jnp.sum((x - batch) ** 2) / 2,
      ...     batch=lambda key, worker: jnp.zeros(1),
      ... )
      >>> params, _, losses = train(
      ...     problem, optax.sgd(0.5), jnp.ones(1), key=jax.random.key(0), num_steps=2
      ... )
      >>> print(params, losses)
      [0.25] [0.5   0.125]
    """
    require_count("num_steps", num_steps, at_least=0)
    optimizer = optax.with_extra_args_support(optimizer)
    state = optimizer.init(params) if state is None else state
    if not num_steps:
        return params, state, np.zeros(0)
    numbers, structure = split_numbers((functions_of(problem), optimizer))
    steps = jnp.arange(first_step, first_step + num_steps, dtype=jnp.int32)
    params, state, losses = _train(
        structure, numbers, params, state, steps, jax.random.fold_in(key, _TRAIN), num_workers
    )
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(params)):
        raise ValueError(f"training diverged within {first_step + num_steps} steps")
    return params, state, np.asarray(losses, np.float64)


@functools.partial(jax.jit, static_argnums=(0, 6))
def _train(
    structure: Structure,
    numbers: Any,
    params: Any,
    state: Any,
    steps: jax.Array,
    key: jax.Array,
    num_workers: int,
) -> tuple[Any, Any, jax.Array]:
    functions, optimizer = structure.join(numbers)

    def advance(carry: tuple[Any, Any], step: jax.Array) -> tuple[tuple[Any, Any], jax.Array]:
        params, state = carry
        worker = step % num_workers
        loss, _, gradient = job_gradient(functions, params, jax.random.fold_in(key, step), worker)
        fresh = {"staleness": jnp.zeros((), jnp.int32), "stale_params": params, "worker": worker}
        updates, state = optimizer.update(gradient, state, params, **fresh)
        return (optax.apply_updates(params, updates), state), loss

    (params, state), losses = jax.lax.scan(advance, (params, state), steps)
    return params, state, losses
