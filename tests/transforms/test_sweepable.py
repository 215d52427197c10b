"""Sweepable factories: numbers are leaves, structure is static."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import async_optax as ao
from async_optax.transforms import split_numbers, sweepable


@sweepable(static_argnames=("size",))
def padded(scale, size, mode="double"):
    factor = {"double": 2, "same": 1}[mode]
    return optax.GradientTransformation(
        lambda params: jnp.zeros(size),
        lambda g, state, params=None: (jax.tree.map(lambda x: factor * scale * x, g), state),
    )


def test_numbers_are_traced_and_structure_is_static():
    traces = []

    @jax.jit
    def step(tx, g):
        traces.append(1)
        return tx.update(g, tx.init(g))[0]

    g = jnp.ones(2)
    as_argument = lambda tx: jax.tree.map(lambda leaf: leaf, tx)  # noqa: E731
    np.testing.assert_array_equal(step(as_argument(padded(3.0, 4)), g), [6, 6])
    np.testing.assert_array_equal(step(as_argument(padded(5, size=4)), g), [10, 10])
    assert len(traces) == 1
    np.testing.assert_array_equal(step(as_argument(padded(5.0, 4, "same")), g), [5, 5])
    assert len(traces) == 2


def test_a_grid_is_a_vmap():
    rates = jnp.array([0.1, 0.2, 0.4])
    numbers, structure = split_numbers(ao.optimizers.clipped_sgd(0.1, max_norm=1.0))
    stacked = [jnp.broadcast_to(n, 3) if n != 0.1 else rates for n in numbers]

    def step(numbers):
        tx = structure.join(numbers)
        g = jnp.array([3.0, 4.0])
        return tx.update(g, tx.init(g))[0]

    updates = jax.vmap(step)(tuple(stacked))
    np.testing.assert_allclose(updates, -rates[:, None] * np.array([[0.6, 0.8]]), rtol=1e-6)


def test_split_and_join_are_inverse():
    tree = {"a": [1, "x", None], "b": (2.5, True, jnp.arange(3)), "c": len}
    numbers, structure = split_numbers(tree)
    assert len(numbers) == 2  # integers may decide shapes: they stay
    joined = structure.join(numbers)
    assert joined["a"] == [1, "x", None]
    assert joined["b"][:2] == (2.5, True)
    assert joined["c"] is len
    assert hash(structure) == hash(split_numbers(tree)[1])


def test_the_factory_keeps_its_signature_and_checks_at_once():
    assert "max_norm" in inspect.signature(ao.optimizers.clipped_sgd).parameters
    with pytest.raises(ValueError, match="max_norm must be"):
        ao.optimizers.clipped_sgd(0.1, max_norm=-1.0)
    with pytest.raises(TypeError, match="missing a required argument: 'learning_rate'"):
        ao.optimizers.sgd()


def test_works_as_a_plain_optax_transformation():
    tx = optax.chain(ao.transforms.clip_by_global_norm(1.0), optax.adam(0.1))
    g = {"w": jnp.array([3.0, 4.0])}
    updates, _ = jax.jit(tx.update)(g, tx.init(g), g)
    assert np.isfinite(updates["w"]).all()
