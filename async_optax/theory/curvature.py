"""The largest curvatures of a loss, from Hessian-vector products."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from async_optax.theory.lanczos import RitzPairs, lanczos, power_iteration, random_like
from async_optax.theory.stochastic_problem import (
    StochasticProblem,
    draw_batches,
    require_key,
    require_params,
    require_problem,
)
from async_optax.transforms.precision import working_dtype
from async_optax.validation import require_choice, require_count, require_number

_METHODS = ("lanczos", "power")
_PRODUCTS_PER_VALUE = 18
_ROOM = 11  # vectors beside the wanted ones before the basis is cut down


@dataclasses.dataclass(frozen=True, eq=False)
class Curvature:
    """The largest eigenvalues of a Hessian.

    Attributes:
      eigenvalues: float64 ``[num_eigenvalues]``, the largest first; in units of the loss over the
        parameters' squared.
      residuals: float64 ``[num_eigenvalues]``: an eigenvalue of the Hessian of these batches lies
        within this distance.
      converged: whether all residuals are within the tolerance.
      num_products: Hessian-vector products computed, each over all batches.
      num_batches: batches that the Hessian is the mean over.
      vectors: the unit vectors that belong to them, a pytree like the parameters with leading axis
        ``num_eigenvalues``, in at least float32.
    """

    eigenvalues: np.ndarray
    residuals: np.ndarray
    converged: bool
    num_products: int
    num_batches: int
    vectors: Any

    @property
    def largest(self) -> float:
        """The largest eigenvalue."""
        return float(self.eigenvalues[0])


def hessian_eigenvalues(
    problem: StochasticProblem,
    params: optax.Params | None = None,
    *,
    key: jax.Array,
    num_eigenvalues: int = 1,
    num_batches: int = 8,
    num_workers: int = 1,
    method: Literal["lanczos", "power"] = "lanczos",
    tolerance: float = 0.02,
    max_products: int | None = None,
    basis_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Curvature:
    """Returns the largest eigenvalues of the Hessian of the mean loss of some batches.

    With H the Hessian at ``params`` of ``mean_b loss(params, batch_b, key_b)``, each step computes
    ``H v = d/de grad(params + e v)`` for one v, about the cost of two gradients of those batches;
    H itself is never formed. Lanczos' method keeps an orthonormal basis of ``basis_size + 1``
    vectors as large as the parameters, orthogonalises fully against it, and restarts from its best
    part when it is full (see :func:`async_optax.theory.lanczos.lanczos`). The power method keeps
    three vectors, needs more products, and finds the one eigenvalue of largest magnitude.

    A learning rate eta acts on the mode of eigenvalue h as a = eta * h. Few batches
    overestimate the largest eigenvalue of the whole data: its error is theirs, too, and not among
    ``residuals``.

    Args:
      problem: any with ``init``, ``loss`` and ``batch``. Its ``noise``, if any, has no part.
      params: where; a pytree of any floating-point dtypes, of which the loss is taken in at least
        float32. ``None``: the start of ``simulate(..., key=key)``.
      key: a typed key, of the start, the batches, the losses and the first vector.
      num_eigenvalues: k >= 1, and 1 for the power method.
      num_batches: >= 1, drawn once.
      num_workers: >= 1; batch i is one of worker ``i % num_workers``.
      method: ``"lanczos"`` or ``"power"``.
      tolerance: >= 0; stop when all residuals are at most this share of the largest magnitude.
      max_products: most products, by default 18 k (the power method: 100).
      basis_size: most vectors before a restart, > k; by default k + 11.
      progress: called with the products computed, and the most there will be.

    Returns:
      A :class:`Curvature`, converged or not.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if a number is out of range, ``params`` are not finite floating-point numbers,
        or a product is not finite.

    Example:
      >>> import async_optax as ao, jax, jax.numpy as jnp
      >>> problem = ao.Problem(
      ...     init=lambda key: jnp.ones(3),
      ...     loss=lambda x, batch, key: jnp.sum(batch * x**2) / 2,
      ...     batch=lambda key, worker: jnp.array([4.0, 1.0, 0.5]),
      ... )
      >>> found = hessian_eigenvalues(problem, key=jax.random.key(0), num_eigenvalues=2)
      >>> print(found.eigenvalues.round(3), found.num_products)
      [4. 1.] 3

    References:
      Pearlmutter, `Fast Exact Multiplication by the Hessian
      <https://doi.org/10.1162/neco.1994.6.1.147>`_, 1994. Ghorbani, Krishnan, Xiao, `An
      Investigation into Neural Net Optimization via Hessian Eigenvalue Density
      <https://arxiv.org/abs/1901.10159>`_, 2019, run Lanczos on networks. Certainty: our reading.
    """
    require_problem(problem)
    require_key(key)
    require_count("num_eigenvalues", num_eigenvalues)
    require_choice("method", method, _METHODS)
    require_number("tolerance", tolerance, at_least=0)
    if progress is not None and not callable(progress):
        raise TypeError(f"progress must be a function of two integers or None, got {progress!r}")
    if method == "power" and (num_eigenvalues != 1 or basis_size is not None):
        raise ValueError(
            "method='power' finds one eigenvalue without a basis: num_eigenvalues must be 1 and "
            f"basis_size None, got {num_eigenvalues} and {basis_size}"
        )
    if max_products is None:
        max_products = 100 if method == "power" else _PRODUCTS_PER_VALUE * num_eigenvalues
    require_count("max_products", max_products)
    if method == "lanczos" and max_products < num_eigenvalues:
        raise ValueError(
            f"max_products must be >= num_eigenvalues={num_eigenvalues}, got {max_products}"
        )
    if basis_size is not None:
        require_count("basis_size", basis_size, at_least=num_eigenvalues + 1)
    init_key, job_key = jax.random.split(key)
    if params is None:
        params = jax.jit(problem.init)(init_key)
    require_params(params)
    num_dimensions = sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(params))
    if num_eigenvalues > num_dimensions:
        raise ValueError(
            f"num_eigenvalues must be <= {num_dimensions}, the number of parameters; "
            f"got {num_eigenvalues}"
        )
    hessian_key, start_key = jax.random.split(job_key)
    operator = hessian_operator(
        problem, params, key=hessian_key, num_batches=num_batches, num_workers=num_workers
    )
    start = random_like(_widened(params), start_key)
    limits: dict[str, Any] = {"max_products": max_products, "tolerance": tolerance}
    if method == "power":
        pairs = power_iteration(operator, start, **limits, progress=progress)
    else:
        size = num_eigenvalues + _ROOM if basis_size is None else basis_size
        size = min(size, num_dimensions, max_products)
        pairs = lanczos(
            operator,
            start,
            num_eigenvalues,
            basis_size=size,
            key=start_key,
            progress=progress,
            **limits,
        )
    return _described(pairs, tolerance, num_batches)


def hessian_vector_product(
    loss: Callable[[optax.Params, Any, jax.Array], jax.Array],
    params: optax.Params,
    batches: Any,
    keys: jax.Array,
    vector: Any,
) -> Any:
    """Returns ``H v``, H the Hessian at ``params`` of the mean of ``loss(params, batch, key)``.

    Batches are taken one after another, so memory is that of one.

    Args:
      loss: a function of a problem.
      params: a pytree of floating-point arrays.
      batches: ``[num_batches, ...]``.
      keys: typed keys ``[num_batches]``.
      vector: v, a pytree of the shapes and dtypes of ``params``.

    Returns:
      A pytree like ``vector``.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> keys = jax.random.split(jax.random.key(0), 2)
      >>> print(hessian_vector_product(
      ...     lambda x, batch, key: batch * jnp.sum(x**3), jnp.ones(2), jnp.array([1.0, 2.0]),
      ...     keys, jnp.array([1.0, 0.0]),
      ... ))
      [9. 0.]
    """

    def add(total: Any, sample: Any) -> tuple[Any, None]:
        batch, key = sample
        gradient = jax.grad(loss)
        _, product = jax.jvp(lambda p: gradient(p, batch, key), (params,), (vector,))
        return jax.tree.map(jnp.add, total, product), None

    zeros = jax.tree.map(jnp.zeros_like, params)
    total, _ = jax.lax.scan(add, zeros, (batches, keys))
    return jax.tree.map(lambda x: x / len(keys), total)


def hessian_operator(
    problem: StochasticProblem,
    params: optax.Params,
    *,
    key: jax.Array,
    num_batches: int = 8,
    num_workers: int = 1,
) -> Partial:
    """Returns the function ``v -> H v`` of some batches, for :mod:`async_optax.theory.lanczos`.

    Args:
      problem: any with ``init``, ``loss`` and ``batch``.
      params: a pytree of floating-point arrays; the loss is taken in at least float32.
      key: a typed key, of batches and losses.
      num_batches: >= 1.
      num_workers: >= 1; batch i is one of worker ``i % num_workers``.

    Returns:
      A ``jax.tree_util.Partial`` on pytrees like ``params``, in at least float32.
    """
    batch_key, loss_key = jax.random.split(key)
    params = _widened(params)
    batches = draw_batches(problem, batch_key, num_batches, num_workers)
    keys = jax.random.split(loss_key, num_batches)
    # A Partial of a Partial must not be merged: its own arguments stay the loss's.
    return Partial(hessian_vector_product, problem.loss, params, batches, keys)


def _widened(params: optax.Params) -> optax.Params:
    return jax.tree.map(lambda x: jnp.asarray(x, working_dtype(jnp.asarray(x))), params)


def _described(pairs: RitzPairs, tolerance: float, num_batches: int) -> Curvature:
    scale = max(float(np.abs(pairs.values).max()), np.finfo(np.float64).tiny)
    return Curvature(
        eigenvalues=pairs.values,
        residuals=pairs.residuals,
        converged=bool((pairs.residuals <= tolerance * scale).all()),
        num_products=pairs.num_products,
        num_batches=num_batches,
        vectors=pairs.vectors,
    )
