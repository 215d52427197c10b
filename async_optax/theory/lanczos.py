"""Eigenvalues of a symmetric operator on a pytree, from its products with vectors."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from async_optax.transforms.precision import global_norm
from async_optax.transforms.sweepable import Structure, split_numbers

Operator = Callable[[Any], Any]
_PASSES = 2  # of Gram-Schmidt: twice is enough (Kahan)


class RitzPairs(NamedTuple):
    """Approximate eigenvalues of a symmetric operator.

    Attributes:
      values: float64 ``[num]``, the largest first.
      residuals: float64 ``[num]``, norm of ``H v - value * v`` for the unit vector v: an
        eigenvalue lies within it.
      vectors: unit vectors as a pytree with leading axis ``num``.
      num_products: products with the operator that were computed.
    """

    values: np.ndarray
    residuals: np.ndarray
    vectors: Any
    num_products: int


def lanczos(
    operator: Operator,
    start: Any,
    num_values: int,
    *,
    basis_size: int,
    max_products: int,
    tolerance: float,
    key: jax.Array,
    progress: Callable[[int, int], None] | None = None,
) -> RitzPairs:
    """The largest eigenvalues by Lanczos' method, restarted when the basis is full.

    Orthonormal v_0, v_1, ... span what the operator H makes of the start. T = V^T H V is small;
    its largest eigenvalues are the approximations (Ritz values, never above the true ones but
    for rounding), with residual norms ``beta * abs(last entry of T's eigenvector)``, beta being
    the norm of what of H v the basis lacks. All of the basis is orthogonalised against, twice, so
    that no eigenvalue comes up a second time; a full basis is cut down to its best part (a thick
    restart), so that memory is bounded by ``basis_size + 1`` vectors.

    Args:
      operator: symmetric; best a ``jax.tree_util.Partial`` over what it holds, which is then an
        argument of the compiled program.
      start: a pytree of arrays, not all zero.
      num_values: number of eigenvalues, >= 1 and at most the number of dimensions.
      basis_size: most vectors held, > ``num_values`` unless it is the number of dimensions.
      max_products: most products with the operator.
      tolerance: stop when each residual is at most this share of the largest absolute value.
      key: of a new direction, should the start lie in an invariant subspace.
      progress: called with the products computed, and ``max_products``.

    Returns:
      The approximations.

    Raises:
      ValueError: if a product is not finite.

    Example:
      >>> import jax.numpy as jnp
      >>> diagonal = jnp.array([3.0, -5.0, 1.0, 0.5])
      >>> pairs = lanczos(
      ...     jax.tree_util.Partial(jnp.multiply, diagonal), jnp.ones(4), 2, basis_size=4,
      ...     max_products=4, tolerance=0.0, key=jax.random.key(0),
      ... )
      >>> print(pairs.values.round(4))
      [3. 1.]

    References:
      Wu, Simon, `Thick-Restart Lanczos Method for Large Symmetric Eigenvalue Problems
      <https://doi.org/10.1137/S0895479898334605>`_, 2000. Certainty: our reading; T is computed
      by projection rather than by the recurrence.
    """
    size = sum(leaf.size for leaf in jax.tree.leaves(start))
    numbers, structure = split_numbers(operator)
    basis = _first(start, basis_size + 1)
    projected = np.zeros((basis_size, basis_size))
    used = products = 0
    exhausted = False
    while True:
        basis, column = _expand(structure, numbers, basis, used)
        *coefficients, beta = np.asarray(column, np.float64)
        if not np.isfinite(beta):
            raise ValueError(f"product {products + 1} with the operator is not finite")
        used, products = used + 1, products + 1
        projected[:used, used - 1] = projected[used - 1, :used] = coefficients[:used]
        values, vectors = scipy.linalg.eigh(projected[:used, :used])
        values, vectors = values[::-1], vectors[:, ::-1]
        scale = np.abs(values).max()
        stuck = beta <= np.sqrt(used) * _unit_roundoff(start) * scale
        exhausted |= stuck
        residuals = (0.0 if stuck else beta) * np.abs(vectors[-1])
        if progress:
            progress(products, max_products)
        close = used >= num_values and (residuals[:num_values] <= tolerance * scale).all()
        # Who has left an invariant subspace cannot know what else is there: all products are used.
        if used == size or products == max_products or (close and not exhausted):
            break
        if stuck:
            direction = random_like(start, jax.random.fold_in(key, products))
            basis = _orthogonal(basis, direction, used)
        if used == basis_size:
            used = _kept(num_values, basis_size)
            # Their coupling to the vector kept last comes with its own product.
            basis = _rotated(basis, _cut(vectors, used, basis_size), used)
            projected[:] = 0
            projected[range(used), range(used)] = values[:used]
    found = min(num_values, used)
    vectors = _combine(basis, _cut(vectors[:used], found, basis_size))
    return RitzPairs(values[:found].copy(), residuals[:found].copy(), vectors, products)


def spectral_measure(
    operator: Operator, start: Any, *, num_products: int, basis_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """How a vector is spread over the eigenvalues of a symmetric operator.

    With u the unit vector of the start and q_i the unit eigenvectors, ``sum_i (u . q_i)**2 f(h_i)``
    is ``sum_j weights[j] f(nodes[j])`` for all polynomials f of degree below twice the number of
    nodes, and nearly so for smooth f: Gauss quadrature, from Lanczos' method without restarts.

    Args:
      operator: as of :func:`lanczos`.
      start: a pytree of arrays, not all zero.
      num_products: products with the operator, hence nodes, >= 1; fewer where these suffice.
      basis_size: vectors there is room for, >= ``num_products``.

    Returns:
      ``(nodes, weights)``, float64 ``[num_nodes]``, the largest node first; weights add up to 1.

    Raises:
      ValueError: if a product is not finite.

    Example:
      >>> import jax.numpy as jnp
      >>> diagonal = jax.tree_util.Partial(jnp.multiply, jnp.array([4.0, 1.0, 0.0]))
      >>> nodes, weights = spectral_measure(
      ...     diagonal, jnp.array([3.0, 0.0, 4.0]), num_products=3, basis_size=3
      ... )
      >>> print(nodes.round(3), weights.round(2))
      [4. 0.] [0.36 0.64]

    References:
      Golub, Meurant, `Matrices, Moments and Quadrature <https://doi.org/10.1515/9781400833887>`_,
      2010. Certainty: our reading.
    """
    numbers, structure = split_numbers(operator)
    basis = _first(start, basis_size + 1)
    projected = np.zeros((num_products, num_products))
    used = 0
    while used < num_products:
        basis, column = _expand(structure, numbers, basis, used)
        *coefficients, beta = np.asarray(column, np.float64)
        if not np.isfinite(beta):
            raise ValueError(f"product {used + 1} with the operator is not finite")
        used += 1
        projected[:used, used - 1] = projected[used - 1, :used] = coefficients[:used]
        scale = np.abs(projected).max()
        if beta <= np.sqrt(used) * _unit_roundoff(start) * scale:
            break
    values, vectors = scipy.linalg.eigh(projected[:used, :used])
    return values[::-1].copy(), np.square(vectors[0])[::-1].copy()


def power_iteration(
    operator: Operator,
    start: Any,
    *,
    max_products: int,
    tolerance: float,
    progress: Callable[[int, int], None] | None = None,
) -> RitzPairs:
    """The eigenvalue of largest magnitude: ``v <- H v / norm(H v)``, value ``v^T H v``.

    Only three vectors are held, but it needs more products than :func:`lanczos`: the error falls
    by the ratio of the two largest magnitudes per product.

    Args:
      operator: as of :func:`lanczos`.
      start: a pytree of arrays, not all zero.
      max_products: most products.
      tolerance: stop when the residual is at most this share of the absolute value.
      progress: as of :func:`lanczos`.

    Returns:
      One approximation. Its sign is that of the eigenvalue.

    Raises:
      ValueError: if a product is not finite.

    Example:
      >>> import jax.numpy as jnp
      >>> diagonal = jax.tree_util.Partial(jnp.multiply, jnp.array([3.0, -5.0]))
      >>> pairs = power_iteration(diagonal, jnp.ones(2), max_products=50, tolerance=1e-3)
      >>> print(pairs.values.round(2), pairs.num_products)
      [-5.] 16
    """
    numbers, structure = split_numbers(operator)
    vector, product = _first(start, 1), start
    for products in range(1, max_products + 1):
        product, summary = _power_step(structure, numbers, vector)
        value, residual = (float(x) for x in np.asarray(summary, np.float64))
        if not np.isfinite(residual):
            raise ValueError(f"product {products} with the operator is not finite")
        if progress:
            progress(products, max_products)
        done = residual <= tolerance * abs(value) or products == max_products
        if done or not float(global_norm(product)):
            break
        vector = _first(product, 1)
    return RitzPairs(np.array([value]), np.array([residual]), vector, products)


def _kept(num_values: int, basis_size: int) -> int:
    """How many vectors survive a restart: the wanted ones, and half of the others."""
    return min(basis_size - 1, num_values + (basis_size - num_values) // 2)


def _cut(vectors: np.ndarray, number: int, basis_size: int) -> jax.Array:
    """The first ``number`` columns, with rows of zeros for the unused part of the basis."""
    rows = np.zeros((basis_size + 1, number))
    rows[: len(vectors)] = vectors[:, :number]
    return jnp.asarray(rows)


def _unit_roundoff(tree: Any) -> float:
    return max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(tree))


@functools.partial(jax.jit, static_argnums=1)
def _first(vector: Any, size: int) -> Any:
    """An empty basis ``[size, ...]`` whose first vector is the unit one of this direction."""
    norm = global_norm(vector)
    return jax.tree.map(
        lambda x: jnp.zeros((size, *x.shape), x.dtype).at[0].set(x / norm.astype(x.dtype)), vector
    )


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def _expand(structure: Structure, numbers: Any, basis: Any, index: int) -> tuple[Any, jax.Array]:
    """Multiplies vector ``index`` and appends what is new; returns the coefficients and beta."""
    product = structure.join(numbers)(jax.tree.map(lambda v: v[index], basis))
    product, coefficients = _project_out(basis, product, index + 1)
    norm = global_norm(product)
    safe = jnp.where(norm > 0, norm, jnp.ones_like(norm))
    basis = jax.tree.map(
        lambda v, w: v.at[index + 1].set((w / safe).astype(v.dtype)), basis, product
    )
    return basis, jnp.concatenate([coefficients, norm[jnp.newaxis]])


@functools.partial(jax.jit, donate_argnums=0)
def _orthogonal(basis: Any, direction: Any, index: int) -> Any:
    """Puts a direction, made orthogonal to the vectors before, in place ``index``."""
    direction, _ = _project_out(basis, direction, index)
    norm = global_norm(direction)
    return jax.tree.map(lambda v, w: v.at[index].set((w / norm).astype(v.dtype)), basis, direction)


def _project_out(basis: Any, vector: Any, number: jax.Array | int) -> tuple[Any, jax.Array]:
    """Takes out of ``vector`` its parts along the first ``number`` vectors of the basis."""
    size = len(jax.tree.leaves(basis)[0])
    used = jnp.arange(size) < number
    total = jnp.zeros(size)
    for _ in range(_PASSES):
        products = jax.tree.map(lambda v, w: jnp.tensordot(v, w, axes=w.ndim), basis, vector)
        dots = jax.tree.reduce(jnp.add, products)
        dots = jnp.where(used, dots, jnp.zeros_like(dots))
        vector = jax.tree.map(
            lambda v, w, dots=dots: w - jnp.tensordot(dots.astype(v.dtype), v, axes=1),
            basis,
            vector,
        )
        total = total + dots.astype(total.dtype)
    return vector, total


@functools.partial(jax.jit, static_argnums=2, donate_argnums=0)
def _rotated(basis: Any, vectors: jax.Array, kept: int) -> Any:
    """Combines the basis by ``vectors``; the newest vector follows."""

    def rotate(v: jax.Array) -> jax.Array:
        combined = jnp.tensordot(vectors.T.astype(v.dtype), v, axes=1)
        return jnp.zeros_like(v).at[:kept].set(combined).at[kept].set(v[-1])

    return jax.tree.map(rotate, basis)


@jax.jit
def _combine(basis: Any, vectors: jax.Array) -> Any:
    return jax.tree.map(lambda v: jnp.tensordot(vectors.T.astype(v.dtype), v, axes=1), basis)


@jax.jit
def random_like(tree: Any, key: jax.Array) -> Any:
    """Returns a pytree like ``tree`` with independent standard normal entries."""
    leaves, treedef = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    drawn = [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(treedef, drawn)


@functools.partial(jax.jit, static_argnums=0)
def _power_step(structure: Structure, numbers: Any, vector: Any) -> tuple[Any, jax.Array]:
    unit = jax.tree.map(lambda v: v[0], vector)
    product = structure.join(numbers)(unit)
    value = jax.tree.reduce(jnp.add, jax.tree.map(jnp.vdot, unit, product))
    residual = global_norm(jax.tree.map(lambda w, v: w - value.astype(w.dtype) * v, product, unit))
    return product, jnp.stack([value.astype(residual.dtype), residual])
