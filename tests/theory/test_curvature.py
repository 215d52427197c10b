"""Largest curvatures against dense Hessians, and Lanczos' method against dense eigenvalues."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

import async_optax as ao
from async_optax.theory.curvature import hessian_eigenvalues, hessian_vector_product
from async_optax.theory.lanczos import lanczos, power_iteration, spectral_measure
from async_optax.theory.stochastic_problem import draw_batches


def net(dtype=jnp.float32, counted=lambda: None):
    """A network of 33 parameters with smooth units, whose last layer may have another dtype."""

    def init(key):
        first, last = jax.random.split(key)
        return {
            "first": jax.random.normal(first, (4, 5)),
            "last": jax.random.normal(last, (5, 2)).astype(dtype),
            "bias": jnp.zeros(3)[:2],
        }

    def loss(params, batch, key):
        counted()
        x, y = batch
        hidden = jnp.tanh(x @ params["first"])
        scale = 1 + jax.random.normal(key, (5,)) / 10  # stands for dropout
        out = (hidden * scale[None]) @ params["last"] + params["bias"][None]
        return jnp.mean((out - y) ** 2)

    def batch(key, worker):
        x = jax.random.normal(key, (8, 4))
        return x, jnp.sin(x[:, :2]) + worker

    return ao.Problem(init, loss, batch)


def dense_hessian(problem, params, key, num_batches, num_workers=1):
    """The mean of ``jax.hessian`` over the batches that the key means."""
    batch_key, loss_key = jax.random.split(jax.random.split(jax.random.split(key)[1])[0])
    flat, unravel = ravel_pytree(params)
    keys = jax.random.split(loss_key, num_batches)
    total = np.zeros((flat.size, flat.size))
    draw = jax.jit(problem.batch)
    hessian = jax.jit(jax.hessian(lambda x, batch, key: problem.loss(unravel(x), batch, key)))
    for i, batch_key_i in enumerate(jax.random.split(batch_key, num_batches)):
        batch = draw(batch_key_i, i % num_workers)
        total += np.asarray(hessian(flat, batch, keys[i]), np.float64) / num_batches
    return total


def test_eigenvalues_are_those_of_the_dense_hessian(x64):
    problem, key = net(jnp.float64), jax.random.key(3)
    params = problem.init(jax.random.split(key)[0])
    dense = np.linalg.eigvalsh(dense_hessian(problem, params, key, 3, num_workers=2))[::-1]
    for basis_size in (None, 7):
        found = hessian_eigenvalues(
            problem,
            key=key,
            num_eigenvalues=3,
            num_batches=3,
            num_workers=2,
            tolerance=1e-9,
            max_products=200,
            basis_size=basis_size,
        )
        assert found.converged
        np.testing.assert_allclose(found.eigenvalues, dense[:3], rtol=1e-8)


def test_residuals_are_those_of_the_vectors_and_bound_the_error():
    problem, key = net(), jax.random.key(1)
    params = problem.init(jax.random.key(5))
    found = hessian_eigenvalues(
        problem, params, key=key, num_eigenvalues=2, num_batches=2, max_products=6, tolerance=0
    )
    assert not found.converged
    assert found.num_products == 6
    dense = dense_hessian(problem, params, key, 2)
    exact = np.linalg.eigvalsh(dense)
    for i in range(2):
        vector = ravel_pytree(jax.tree.map(lambda v, i=i: v[i], found.vectors))[0]
        vector = np.asarray(vector, np.float64)
        assert np.linalg.norm(vector) == pytest.approx(1, rel=1e-5)
        residual = np.linalg.norm(dense @ vector - found.eigenvalues[i] * vector)
        assert found.residuals[i] == pytest.approx(residual, rel=1e-2, abs=1e-5)
        assert np.abs(exact - found.eigenvalues[i]).min() <= residual * (1 + 1e-3)
    assert found.largest <= exact[-1] * (1 + 1e-5)


def test_low_precision_parameters_have_the_curvature_of_their_values():
    key = jax.random.key(2)
    problem = net(jnp.bfloat16)
    params = problem.init(jax.random.key(7))
    assert params["last"].dtype == jnp.bfloat16
    widened = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    found = hessian_eigenvalues(
        problem, params, key=key, num_batches=2, tolerance=1e-4, max_products=33
    )
    assert found.vectors["last"].dtype == jnp.float32
    exact = np.linalg.eigvalsh(dense_hessian(net(), widened, key, 2))[-1]
    assert found.largest == pytest.approx(exact, rel=1e-3)


def test_power_iteration_agrees_and_nothing_is_compiled_twice():
    traces = []
    problem, key = net(counted=lambda: traces.append(0)), jax.random.key(1)
    first = hessian_eigenvalues(problem, key=key, num_batches=2, tolerance=1e-3)
    number = len(traces)
    again = hessian_eigenvalues(problem, key=jax.random.key(9), num_batches=2, tolerance=1e-3)
    assert len(traces) == number
    assert again.largest != first.largest
    power = hessian_eigenvalues(problem, key=key, num_batches=2, tolerance=1e-3, method="power")
    assert power.converged
    assert power.largest == pytest.approx(first.largest, rel=1e-3)
    assert power.num_products > first.num_products


def test_products_are_averaged_over_batches():
    problem, key = net(), jax.random.key(4)
    params = problem.init(key)
    batches = draw_batches(problem, key, 3)
    keys = jax.random.split(key, 3)
    vector = jax.tree.map(jnp.ones_like, params)
    product = hessian_vector_product(problem.loss, params, batches, keys, vector)
    singles = [
        hessian_vector_product(
            problem.loss,
            params,
            jax.tree.map(lambda b, i=i: b[i : i + 1], batches),
            keys[i : i + 1],
            vector,
        )
        for i in range(3)
    ]
    mean = jax.tree.map(lambda *parts: sum(parts) / 3, *singles)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), product, mean)


def on_diagonal(diagonal, num_values, start=None, **settings):
    diagonal = jnp.asarray(diagonal, jnp.float32)
    settings = {"basis_size": len(diagonal), "max_products": 100, "tolerance": 1e-6} | settings
    start = jnp.ones_like(diagonal) if start is None else jnp.asarray(start, jnp.float32)
    return lanczos(
        Partial(jnp.multiply, diagonal), start, num_values, key=jax.random.key(0), **settings
    )


def test_repeated_eigenvalues_are_found_as_often_as_they_are():
    found = on_diagonal([3.0, 3.0, 1.0, 0.0, -7.0], 3)
    np.testing.assert_allclose(found.values, [3, 3, 1], atol=1e-5)


def test_a_start_in_an_invariant_subspace_does_not_hide_the_rest():
    found = on_diagonal([5.0, 2.0, 1.0, 0.5], 2, start=[0.0, 0.0, 1.0, 0.0])
    np.testing.assert_allclose(found.values, [5, 2], atol=1e-5)
    flat = on_diagonal([0.0, 0.0, 0.0, 0.0], 2)
    np.testing.assert_array_equal(flat.values, 0)
    np.testing.assert_array_equal(flat.residuals, 0)


def test_restarts_find_close_eigenvalues():
    """A hundred values, the largest 2 % apart: far more products than vectors."""
    diagonal = np.concatenate([np.linspace(-1, 1, 97), [2.0, 2.04, 2.08]])
    found = on_diagonal(diagonal, 3, basis_size=10, max_products=400, tolerance=1e-5)
    np.testing.assert_allclose(found.values, [2.08, 2.04, 2.0], atol=1e-5)
    assert 10 < found.num_products < 400
    vectors = np.asarray(found.vectors)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(3), atol=1e-5)


def test_the_spectral_measure_integrates_polynomials():
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((30, 30))
    matrix += matrix.T
    start = rng.standard_normal(30)
    nodes, weights = spectral_measure(
        Partial(jnp.matmul, jnp.asarray(matrix, jnp.float32)),
        jnp.asarray(start, jnp.float32),
        num_products=4,
        basis_size=6,
    )
    assert len(nodes) == 4
    unit = start / np.linalg.norm(start)
    for power in range(8):
        exact = unit @ np.linalg.matrix_power(matrix, power) @ unit
        assert weights @ nodes**power == pytest.approx(exact, rel=1e-3, abs=1e-3 * 15**power)


def test_power_iteration_has_the_sign():
    found = power_iteration(
        Partial(jnp.multiply, jnp.array([1.0, -4.0])), jnp.ones(2), max_products=60, tolerance=1e-5
    )
    assert found.values[0] == pytest.approx(-4, rel=1e-4)


def test_progress_is_reported():
    seen = []
    hessian_eigenvalues(
        net(), key=jax.random.key(0), progress=lambda done, most: seen.append((done, most))
    )
    assert seen[0] == (1, 18)
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"key": 0}, TypeError, "key must be one typed key"),
        ({"num_eigenvalues": 0}, ValueError, "num_eigenvalues must be an integer >= 1, got 0"),
        ({"num_eigenvalues": 33}, ValueError, "num_eigenvalues must be <= 32"),
        ({"num_batches": 0}, ValueError, "num_batches must be an integer >= 1, got 0"),
        ({"method": "qr"}, ValueError, "method must be one of lanczos, power; got 'qr'"),
        ({"method": "power", "num_eigenvalues": 2}, ValueError, "finds one eigenvalue"),
        ({"tolerance": -1.0}, ValueError, "tolerance must be a finite number >= 0"),
        ({"max_products": 0}, ValueError, "max_products must be an integer >= 1"),
        ({"basis_size": 1}, ValueError, "basis_size must be an integer >= 2, got 1"),
        ({"params": {"a": jnp.ones(2, jnp.int32)}}, ValueError, "got int32 at params"),
        ({"params": {}}, ValueError, "at least one array"),
        ({"params": {"a": jnp.array([1.0, jnp.nan])}}, ValueError, "must be finite"),
        ({"progress": 1}, TypeError, "progress must be a function"),
    ],
)
def test_wrong_arguments_are_refused(changes, error, message):
    with pytest.raises(error, match=message):
        hessian_eigenvalues(net(), **{"key": jax.random.key(0)} | changes)


def test_wrong_problems_are_refused():
    with pytest.raises(TypeError, match="without init"):
        hessian_eigenvalues("digits", key=jax.random.key(0))
    cube_root = ao.Problem(
        init=lambda key: jnp.zeros(2),
        loss=lambda x, batch, key: jnp.sum(jnp.abs(x) ** 1.5),
        batch=lambda key, worker: jnp.zeros(1),
    )
    with pytest.raises(ValueError, match="product 1 with the operator is not finite"):
        hessian_eigenvalues(cube_root, key=jax.random.key(0))
