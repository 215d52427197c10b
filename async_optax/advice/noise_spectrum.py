"""Which curvatures the noise of gradients falls on."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from async_optax.advice.clips import Clip
from async_optax.theory.curvature import hessian_operator
from async_optax.theory.lanczos import spectral_measure
from async_optax.theory.stochastic_problem import StochasticProblem, functions_of, job_gradient
from async_optax.transforms import bi_clip, clip_by_global_norm
from async_optax.transforms.precision import working_dtype
from async_optax.transforms.sweepable import Structure, split_numbers


def noise_spectrum(
    problem: StochasticProblem,
    params: optax.Params,
    clip: Clip,
    *,
    key: jax.Array,
    num_workers: int,
    num_batches: int,
    basis_size: int,
    num_products: int = 12,
    num_draws: int = 2,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns how the variance of the noise is spread over the curvatures.

    The difference of two gradients behind the clip is noise without a mean. Lanczos' method from
    there gives nodes and weights of the spectral measure of the Hessian that it sees. Noise in
    directions without curvature does no harm, and in almost flat ones only after a long time:
    most of noise that is spread evenly over all coordinates is of this kind.

    Args:
      problem: any with ``init``, ``loss`` and ``batch``, and perhaps ``noise``.
      params: where.
      clip: what gradients go through.
      key: a typed key.
      num_workers: whose batches are used.
      num_batches: of the Hessian.
      basis_size: room for vectors.
      num_products: Hessian-vector products for each draw.
      num_draws: differences.

    Returns:
      Curvatures and shares, float64 ``[num]``; shares add up to 1.
    """
    hessian_key, *keys = jax.random.split(key, 1 + num_draws)
    operator = hessian_operator(
        problem, params, key=hessian_key, num_batches=num_batches, num_workers=num_workers
    )
    numbers, structure = split_numbers(functions_of(problem))
    nodes, shares = [], []
    for draw, draw_key in enumerate(keys):
        workers = np.array([2 * draw, 2 * draw + 1]) % num_workers
        noise = _difference(
            structure, numbers, params, draw_key, workers.astype(np.int32), clip.kind,
            clip.threshold,
        )  # fmt: skip
        if not any(bool(jnp.any(leaf)) for leaf in jax.tree.leaves(noise)):
            continue
        found = spectral_measure(operator, noise, num_products=num_products, basis_size=basis_size)
        nodes.append(found[0])
        shares.append(found[1] / num_draws)
    if not nodes:
        return np.zeros(1), np.ones(1)
    weights = np.concatenate(shares)
    return np.concatenate(nodes), weights / weights.sum()


@functools.partial(jax.jit, static_argnums=(0, 5))
def _difference(
    structure: Structure,
    numbers: Any,
    params: optax.Params,
    key: jax.Array,
    workers: jax.Array,
    kind: str,
    threshold: float,
) -> optax.Updates:
    functions = structure.join(numbers)

    def clipped(job: tuple[jax.Array, jax.Array]) -> optax.Updates:
        _, _, gradient = job_gradient(functions, params, *job)
        gradient = jax.tree.map(lambda g: g.astype(working_dtype(g)), gradient)
        if kind == "coordinate":
            transformation = bi_clip(0.0, threshold)
        elif kind == "global_norm":
            transformation = clip_by_global_norm(threshold)
        else:
            return gradient
        return transformation.update(gradient, transformation.init(gradient))[0]

    pair = jax.lax.map(clipped, (jax.random.split(key, 2), workers))
    return jax.tree.map(lambda g: g[0] - g[1], pair)
