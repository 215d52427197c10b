"""Problems whose modes are known, and how fast they grow in a run."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from async_optax.engine import Problem

_SMALLEST = 1e-30


def modes(curvatures: jax.Array, start: float = 1.0) -> Problem:
    """Independent modes, one for each curvature, all from one start; evaluates their sizes.

    Args:
      curvatures: ``[num_modes]``.
      start: of every mode.

    Returns:
      The problem; ``mode_i`` is the size of mode i.
    """
    curvatures = jnp.asarray(curvatures, float)
    return Problem(
        Partial(_start, jnp.full_like(curvatures, start)),
        Partial(_loss, curvatures),
        _no_batch,
        _sizes,
    )


def floor(num_coordinates: int) -> Problem:
    """Equal modes of curvature 1 at their minimum; evaluates their mean square."""
    problem = modes(jnp.ones(num_coordinates), 0.0)
    return Problem(problem.init, problem.loss, problem.batch, _variance)


def bowl(curvatures: jax.Array, start: float) -> Problem:
    """A quadratic; evaluates the norm of its true gradient."""
    problem = modes(curvatures, start)
    evaluate = Partial(_gradient_norm, problem.loss)
    return Problem(problem.init, problem.loss, problem.batch, evaluate)


def waves(num_coordinates: int, start: float) -> Problem:
    """The sum of ``1 - cos(x)``, not convex; evaluates the norm of its true gradient."""
    problem = modes(jnp.ones(num_coordinates), start)
    return Problem(problem.init, _wave_loss, _no_batch, Partial(_gradient_norm, _wave_loss))


def growth(sizes: np.ndarray, times: np.ndarray, num_blocks: int = 12) -> float:
    """The slope of the logarithm of sizes, by the maxima of blocks of the second half.

    Args:
      sizes: >= 0, ``[num]``; shorter than ``times`` if the run has diverged.
      times: of the sizes, ``[num]``.
      num_blocks: of the second half.

    Returns:
      Per unit of time; infinite if the run has diverged. What is below 1e-30 at the end, where
      single precision ends, is left out; ``-inf`` if little remains.
    """
    if len(sizes) < len(times) or not np.isfinite(sizes).all():
        return np.inf
    last = np.flatnonzero(sizes > _SMALLEST)
    sizes = sizes[: last[-1] + 1 if len(last) else 0]
    times = times[: len(sizes)]
    each = len(sizes) // 2 // num_blocks
    if not each:
        return -np.inf
    blocks = sizes[-each * num_blocks :].reshape(num_blocks, each)
    places = times[-each * num_blocks :].reshape(num_blocks, each)
    rows = np.flatnonzero(blocks.max(axis=1))  # a mode may hit 0 on its way
    if len(rows) < 2:
        return -np.inf
    tops = blocks[rows].argmax(axis=1)
    return float(np.polyfit(places[rows, tops], np.log(blocks[rows, tops]), 1)[0])


def crossing(steps: np.ndarray, rates: np.ndarray) -> float:
    """From where on growth is positive, between two steps by a straight line.

    Returns:
      The step; NaN if growth is positive at all steps or not at the last.
    """
    below = np.flatnonzero(rates <= 0)
    if not len(below) or below[-1] == len(steps) - 1:
        return np.nan
    i = below[-1] + 1
    low, high = rates[i - 1], rates[i]
    if not (np.isfinite(low) and np.isfinite(high)):
        return float(np.sqrt(steps[i - 1] * steps[i]))
    return float(steps[i - 1] + (steps[i] - steps[i - 1]) * low / (low - high))


def _start(start: jax.Array, key: jax.Array) -> jax.Array:
    del key
    return start


def _no_batch(key: jax.Array, worker: jax.Array) -> jax.Array:
    del key, worker
    return jnp.zeros(())


def _loss(curvatures: jax.Array, x: jax.Array, batch: jax.Array, key: jax.Array) -> jax.Array:
    del batch, key
    return jnp.sum(curvatures * x * x) / 2


def _wave_loss(x: jax.Array, batch: jax.Array, key: jax.Array) -> jax.Array:
    del batch, key
    return jnp.sum(1 - jnp.cos(x))


def _sizes(x: jax.Array) -> dict[str, jax.Array]:
    return {f"mode_{i}": jnp.abs(x[i]) for i in range(len(x))}


def _variance(x: jax.Array) -> dict[str, jax.Array]:
    return {"variance": jnp.mean(x * x)}


def _gradient_norm(loss: Partial, x: jax.Array) -> dict[str, jax.Array]:
    gradient = jax.grad(loss)(x, jnp.zeros(()), jax.random.key(0))
    return {"gradient": jnp.linalg.norm(gradient)}
