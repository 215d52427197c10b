"""Gradient noise of a problem: how far stochastic gradients are from their mean."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from async_optax.theory.fresh_training import train
from async_optax.theory.stochastic_problem import (
    StochasticProblem,
    functions_of,
    job_gradient,
    require_key,
    require_params,
    require_problem,
)
from async_optax.transforms.precision import global_norm, working_dtype
from async_optax.transforms.sweepable import Structure, split_numbers
from async_optax.validation import require_count

_SAMPLE = 0  # purpose of a key; fresh training has 1
_FEW = 10**6  # parameters, of which some can be drawn without replacement


@dataclasses.dataclass(frozen=True, eq=False)
class GradientNoise:
    """Stochastic gradients at one place, and their differences to their mean.

    Attributes:
      step: steps of training before.
      loss: mean over the samples.
      norms: float64 ``[num_samples]``, norms of the noise.
      coordinates: float64 ``[num_samples, num_coordinates]``, some coordinates of the noise.
      gradient_norms: float64 ``[num_samples]``, norms of the gradients themselves.
      gradient_coordinates: float64 ``[num_samples, num_coordinates]``, of the same coordinates.
      mean_norm: norm of the mean gradient, without the problem's ``noise``.
      num_parameters: number of all coordinates.
    """

    step: int
    loss: float
    norms: np.ndarray
    coordinates: np.ndarray
    gradient_norms: np.ndarray
    gradient_coordinates: np.ndarray
    mean_norm: float
    num_parameters: int

    @property
    def variance(self) -> float:
        """Mean squared norm of the noise, unbiased; its law has one only if that is finite."""
        number = len(self.norms)
        return float(np.mean(self.norms**2) * number / (number - 1))


def gradient_noise(
    problem: StochasticProblem,
    params: optax.Params | None = None,
    *,
    key: jax.Array,
    num_samples: int = 1000,
    num_coordinates: int = 100,
    num_workers: int = 1,
    step: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> GradientNoise:
    """Collects stochastic gradients at one place and subtracts their mean.

    Sample i is ``g_i = grad loss(params, batch_i, key_i) + noise_i``, as a job of a run computes
    it; the mean is that of the gradients without ``noise_i``, which have a mean even where the
    noise has none. Gradients are computed twice, so that one of them is in memory at a time.

    Args:
      problem: any with ``init``, ``loss`` and ``batch``, and perhaps ``noise(key, gradient)``.
      params: where, a pytree of floating-point numbers; ``None``: the start of
        ``simulate(..., key=key)``.
      key: a typed key, of the start, batches, losses, noise and choice of coordinates.
      num_samples: >= 2.
      num_coordinates: how many coordinates to keep, >= 1 and at most all; drawn once, without
        replacement where there are fewer than a million.
      num_workers: >= 1; sample i is one of worker ``i % num_workers``.
      step: what to write into the record.
      progress: called with the samples done, and all of them.

    Returns:
      A :class:`GradientNoise`.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if a number is out of range, or gradients are not finite.

    Example:
      >>> import async_optax as ao, jax, jax.numpy as jnp
      >>> problem = ao.Problem(
      ...     init=lambda key: jnp.zeros(3),
      ...     loss=lambda x, batch, key: jnp.sum((x - batch) ** 2) / 2,
      ...     batch=lambda key, worker: 1 + jax.random.normal(key, (3,)),
      ... )
      >>> noise = gradient_noise(problem, key=jax.random.key(0), num_coordinates=2)
      >>> noise.coordinates.shape, round(noise.variance)
      ((1000, 2), 3)
    """
    require_problem(problem)
    require_key(key)
    require_count("num_samples", num_samples, at_least=2)
    require_count("num_coordinates", num_coordinates)
    require_count("num_workers", num_workers)
    init_key, job_key = jax.random.split(key)
    if params is None:
        params = jax.jit(problem.init)(init_key)
    require_params(params)
    sizes = [int(np.prod(jnp.shape(leaf))) for leaf in jax.tree.leaves(params)]
    places = _places(sizes, min(num_coordinates, sum(sizes)), job_key)
    numbers, structure = split_numbers(functions_of(problem))
    keys = jax.random.split(jax.random.fold_in(job_key, _SAMPLE), num_samples)
    workers = jnp.arange(num_samples, dtype=jnp.int32) % num_workers
    mean, loss = _mean_gradient(structure, numbers, params, keys, workers)
    if progress:
        progress(num_samples // 2, num_samples)
    found = _samples(structure, numbers, params, keys, workers, mean, places)
    norms, gradient_norms, coordinates, gradient_coordinates = (
        np.asarray(x, np.float64) for x in found
    )
    if not (np.isfinite(norms).all() and np.isfinite(float(loss))):
        bad = int(np.argmin(np.isfinite(norms)))
        raise ValueError(f"gradients must be finite, got norm {gradient_norms[bad]} in one sample")
    if progress:
        progress(num_samples, num_samples)
    return GradientNoise(
        step=step,
        loss=float(loss),
        norms=norms,
        coordinates=coordinates,
        gradient_norms=gradient_norms,
        gradient_coordinates=gradient_coordinates,
        mean_norm=float(global_norm(mean)),
        num_parameters=sum(sizes),
    )


def gradient_noise_along_run(
    problem: StochasticProblem,
    optimizer: optax.GradientTransformation,
    *,
    key: jax.Array,
    steps: Sequence[int] = (0, 100, 1000),
    num_samples: int = 1000,
    num_coordinates: int = 100,
    num_workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[GradientNoise]:
    """Trains one worker, never stale, and collects gradient noise after some of its steps.

    Args:
      problem: as of :func:`gradient_noise`.
      optimizer: an optimizer of Optax that needs no extra arguments, such as ``optax.sgd(0.1)``,
        or of :mod:`async_optax.optimizers`.
      key: a typed key.
      steps: steps after which noise is collected, integers >= 0, increasing.
      num_samples: as of :func:`gradient_noise`, at each.
      num_coordinates: as of :func:`gradient_noise`.
      num_workers: whose batches come in turns, >= 1.
      progress: called with the collections done, and all of them.

    Returns:
      A :class:`GradientNoise` for each of ``steps``.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if a number is out of range, or training diverges.

    Example:
      >>> import async_optax as ao, jax, jax.numpy as jnp, optax
      >>> problem = ao.Problem(
      ...     init=lambda key: jnp.ones(1),
      ...     loss=lambda x, batch, key: jnp.sum((1 + batch) * x**2) / 2,
      ...     batch=lambda key, worker: jax.random.normal(key, (1,)),
      ... )
      >>> noises = gradient_noise_along_run(
      ...     problem, optax.sgd(0.1), key=jax.random.key(0), steps=(0, 20), num_coordinates=1
      ... )
      >>> [noise.mean_norm > 0.5 for noise in noises]  # noise shrinks with the gradient
      [True, False]
    """
    require_problem(problem)
    require_key(key)
    if not len(steps):
        raise ValueError("steps must hold at least one number of steps, got none")
    for step in steps:
        require_count("steps", step, at_least=0)
    if any(b <= a for a, b in zip(steps, steps[1:], strict=False)):
        raise ValueError(f"steps must increase, got {tuple(steps)}")
    params = jax.jit(problem.init)(jax.random.split(key)[0])
    require_params(params)
    state, collected, before = None, [], 0
    for place, step in enumerate(steps):
        params, state, _ = train(
            problem,
            optimizer,
            params,
            key=key,
            num_steps=step - before,
            first_step=before,
            state=state,
            num_workers=num_workers,
        )
        before = step
        collected.append(
            gradient_noise(
                problem,
                params,
                key=key,
                num_samples=num_samples,
                num_coordinates=num_coordinates,
                num_workers=num_workers,
                step=step,
            )
        )
        if progress:
            progress(place + 1, len(steps))
    return collected


@functools.partial(jax.jit, static_argnums=0)
def _mean_gradient(
    structure: Structure, numbers: Any, params: Any, keys: jax.Array, workers: jax.Array
) -> tuple[Any, jax.Array]:
    functions = structure.join(numbers)

    def add(total: Any, job: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        loss, clean, _ = job_gradient(functions, params, *job)
        added = {"loss": loss, "gradient": clean}
        return jax.tree.map(lambda t, x: t + x.astype(t.dtype), total, added), None

    zeros = {
        "loss": jnp.zeros(()),
        "gradient": jax.tree.map(lambda x: jnp.zeros(x.shape, working_dtype(x)), params),
    }
    total, _ = jax.lax.scan(add, zeros, (keys, workers))
    return jax.tree.map(lambda x: x / len(keys), total["gradient"]), total["loss"] / len(keys)


@functools.partial(jax.jit, static_argnums=0)
def _samples(
    structure: Structure,
    numbers: Any,
    params: Any,
    keys: jax.Array,
    workers: jax.Array,
    mean: Any,
    places: list[jax.Array],
) -> tuple[jax.Array, ...]:
    functions = structure.join(numbers)

    def of_job(job: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
        _, _, gradient = job_gradient(functions, params, *job)
        gradient = jax.tree.map(lambda g, m: g.astype(m.dtype), gradient, mean)
        noise = jax.tree.map(jnp.subtract, gradient, mean)
        return global_norm(noise), global_norm(gradient), _at(noise, places), _at(gradient, places)

    return jax.lax.map(of_job, (keys, workers))


def _places(sizes: list[int], number: int, key: jax.Array) -> list[jax.Array]:
    """Draws coordinates of all leaves alike, as indices into each flattened leaf."""
    total = sum(sizes)
    seed = np.asarray(jax.random.key_data(key)).astype(np.uint32).tolist()
    rng = np.random.Generator(np.random.PCG64(seed))
    chosen = np.unique(
        rng.choice(total, number, replace=False)
        if total < 10**6
        else rng.integers(0, total, number)
    )
    ends = np.cumsum(sizes)
    parts = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
    starts = ends - sizes
    return [jnp.asarray(part - start, jnp.int32) for part, start in zip(parts, starts, strict=True)]


def _at(tree: Any, places: list[jax.Array]) -> jax.Array:
    leaves = jax.tree.leaves(tree)
    return jnp.concatenate([x.ravel()[p] for x, p in zip(leaves, places, strict=True)])
