"""Noise models against their laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import async_optax as ao
from async_optax import noise

pytestmark = pytest.mark.usefixtures("strict_dtypes")

SIZE = 40_000


def draw(model, size=SIZE, seed=0):
    return np.asarray(model(jax.random.key(seed), jnp.zeros(size)), np.float64)


LAWS = {
    "cauchy": (noise.alpha_stable(1.0, 2.0), scipy.stats.cauchy(scale=2)),
    "stable gaussian": (noise.alpha_stable(2.0, 3.0), scipy.stats.norm(scale=3 * np.sqrt(2))),
    "student 3": (noise.student_t(3.0, 0.5), scipy.stats.t(3, scale=0.5)),
    "student 1.2": (noise.student_t(1.2), scipy.stats.t(1.2)),
    "student 1e6": (noise.student_t(1e6), scipy.stats.norm()),
    "laplace": (noise.sub_weibull(1.0, 2.0), scipy.stats.laplace(scale=2)),
    "sub-weibull 2": (noise.sub_weibull(2.0, 0.5), scipy.stats.dweibull(0.5, scale=0.5)),
    "gaussian": (noise.gaussian(0.1), scipy.stats.norm(scale=0.1)),
}


@pytest.mark.parametrize("name", LAWS)
def test_law(name):
    model, law = LAWS[name]
    assert scipy.stats.kstest(draw(model), law.cdf).pvalue > 0.01


@pytest.mark.parametrize("alpha", [0.7, 1.2, 1.5, 1.9])
def test_stable_characteristic_function(alpha):
    # E cos(t x) = exp(-|s t|^alpha): the definition of the symmetric stable law.
    draws = draw(noise.alpha_stable(alpha, 0.5), 200_000)
    for t in (0.3, 1.0, 3.0, 8.0):
        expected = np.exp(-(np.abs(0.5 * t) ** alpha))
        assert np.mean(np.cos(t * draws)) == pytest.approx(expected, abs=0.006)


def test_stable_tail_index():
    # P(|x| > t) ~ C t^-alpha: the slope between far quantiles.
    draws = np.abs(draw(noise.alpha_stable(1.2), 400_000))
    far, farther = np.quantile(draws, [0.99, 0.9999])
    assert np.log(100) / np.log(farther / far) == pytest.approx(1.2, abs=0.1)


@pytest.mark.parametrize("name", LAWS)
def test_draws_are_symmetric_finite_and_never_constant(name):
    draws = draw(LAWS[name][0], 500_000)
    assert np.isfinite(draws).all()
    assert np.mean(draws > 0) == pytest.approx(0.5, abs=0.005)
    assert len(np.unique(draws)) > 10_000


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_pytrees_keep_structure_and_dtype(name, dtype):
    with jax.enable_x64(dtype == "float64"):
        like = {"w": jnp.zeros((3, 4), dtype), "b": [jnp.zeros((), dtype), None]}
        drawn = LAWS[name][0](jax.random.key(0), like)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), drawn) == jax.tree.map(
            lambda x: (x.shape, x.dtype), like
        )
        assert drawn["b"][0] != drawn["w"][0, 0]


def test_numbers_are_leaves():
    assert jax.tree.leaves(noise.alpha_stable(1.2, 0.5)) == [1.2, 0.5]

    @jax.jit
    def sample(model):
        return model(jax.random.key(0), jnp.zeros(3))

    np.testing.assert_allclose(
        sample(noise.gaussian(3.0)), 3 * sample(noise.gaussian(1.0)), rtol=1e-6
    )
    assert sample._cache_size() == 1


def test_noise_is_added_to_the_gradient():
    problem = ao.Problem(
        init=lambda key: jnp.zeros(3),
        loss=lambda x, batch, key: jnp.sum(x * batch),
        batch=lambda key, worker: jnp.array([1.0, 2.0, 3.0]),
    )
    key, worker = jax.random.key(5), jnp.int32(0)
    model = noise.student_t(2.0, 0.1)
    noisy, loss = ao.engine.gradient()(problem.with_noise(model), jnp.ones(3), worker, key)
    clean, clean_loss = ao.engine.gradient()(problem, jnp.ones(3), worker, key)
    drawn = model(jax.random.split(key, 3)[2], jnp.zeros(3))
    np.testing.assert_allclose(noisy - clean, drawn, rtol=1e-5)
    assert loss == clean_loss


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: noise.alpha_stable(0.0), "alpha must be a finite number > 0 and <= 2, got 0.0"),
        (lambda: noise.alpha_stable(2.1), "alpha must be"),
        (lambda: noise.alpha_stable(1.5, -1.0), "scale must be a finite number > 0, got -1.0"),
        (lambda: noise.student_t(-1), "df must be"),
        (lambda: noise.sub_weibull(float("nan")), "theta must be .* got nan"),
        (lambda: noise.gaussian(0), "scale must be"),
    ],
)
def test_bad_numbers_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()
