"""The bound on a compensation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_optax import transforms

pytestmark = pytest.mark.usefixtures("strict_dtypes")

TX = jax.jit(
    lambda g, x, s, strength, ratio: transforms.compensate_delay(strength, ratio).update(
        g, transforms.compensate_delay().init(x), x, stale_params=s
    )[0]
)
numbers = st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=3)


@given(g=numbers, x=numbers, s=numbers, strength=st.floats(0, 1e4), ratio=st.floats(0, 10))
def test_no_correction_exceeds_its_share(g, x, s, strength, ratio):
    g, x, s = (jnp.asarray(v, jnp.float32) for v in (g, x, s))
    correction = np.asarray(TX(g, x, s, strength, ratio), float) - np.asarray(g, float)
    size = np.linalg.norm(np.asarray(g, float))
    # Up to the rounding of the sum that contains the correction.
    assert np.linalg.norm(correction) <= ratio * size * (1 + 1e-4) + 1e-6 * size + 1e-30


def test_small_corrections_pass_whole():
    g, x, s = jnp.array([1.0, -2.0]), jnp.array([0.5, 0.5]), jnp.array([0.4, 0.6])
    bare = TX(g, x, s, 0.1, 1e9)
    loose, _ = transforms.compensate_delay(0.1).update(g, None, x, stale_params=s)
    np.testing.assert_array_equal(bare, loose)
    bound = TX(g, x, s, 1e6, 0.5)
    np.testing.assert_allclose(jnp.linalg.norm(bound - g), 0.5 * jnp.linalg.norm(g), rtol=1e-5)
    np.testing.assert_allclose((bound - g) / (loose - g), ((bound - g) / (loose - g))[0], rtol=1e-4)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_products_beyond_the_range_are_bounded_too(size):
    g, x, s = jnp.array([size]), jnp.array([1.0]), jnp.array([0.0])
    np.testing.assert_allclose(TX(g, x, s, 1e35, 0.5), 1.5 * g, rtol=1e-5)
    np.testing.assert_array_equal(TX(g, x, x, 1.0, 0.5), g)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strength": -1.0}, "strength must be a finite number >= 0, got -1.0"),
        ({"max_ratio": -1.0}, "max_ratio must be a finite number >= 0, got -1.0"),
        ({"max_ratio": np.inf}, "max_ratio must be a finite number >= 0, got inf"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        transforms.compensate_delay(**arguments)
