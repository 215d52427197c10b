"""Collecting gradient noise, against gradients computed one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import async_optax as ao
from async_optax.theory import tails
from async_optax.theory.fresh_training import train

KEY = jax.random.key(2)


def least_squares(noise=None):
    def loss(params, batch, key):
        x, y = batch
        keep = jax.random.bernoulli(key, 0.5, (3,))
        return jnp.mean(((x * keep[None]) @ params["w"] + params["b"] - y) ** 2)

    def batch(key, worker):
        x = jax.random.normal(key, (4, 3))
        return x, x[:, 0] + worker

    params = {"b": jnp.float32(0.5), "w": jnp.arange(3.0)}
    return ao.Problem(lambda key: params, loss, batch, noise=noise)


def one_job(problem):
    """What a job computes: its loss, its gradient and the noise on top."""

    @jax.jit
    def compute(params, key, worker):
        batch_key, loss_key, noise_key = jax.random.split(key, 3)
        batch = problem.batch(batch_key, worker)
        loss, gradient = jax.value_and_grad(problem.loss)(params, batch, loss_key)
        return loss, gradient, problem.noise(noise_key, gradient)

    return compute


def gradients_one_by_one(problem, params, num_samples, num_workers):
    keys = jax.random.split(jax.random.fold_in(jax.random.split(KEY)[1], 0), num_samples)
    clean, noisy, losses = [], [], []
    compute = one_job(problem)
    for i, key in enumerate(keys):
        loss, gradient, noise = compute(params, key, jnp.int32(i % num_workers))
        losses.append(float(loss))
        clean.append(np.asarray(ravel_pytree(gradient)[0], np.float64))
        noisy.append(clean[-1] + np.asarray(ravel_pytree(noise)[0], np.float64))
    return np.array(clean), np.array(noisy), np.array(losses)


def test_samples_are_the_gradients_of_jobs():
    problem = least_squares(ao.noise.alpha_stable(1.3, 0.1))
    params = problem.init(KEY)
    found = tails.gradient_noise(
        problem, key=KEY, num_samples=10, num_coordinates=4, num_workers=2, step=7
    )
    clean, noisy, losses = gradients_one_by_one(problem, params, 10, 2)
    noise = noisy - clean.mean(axis=0)
    np.testing.assert_allclose(found.norms, np.linalg.norm(noise, axis=1), rtol=1e-4)
    np.testing.assert_allclose(found.gradient_norms, np.linalg.norm(noisy, axis=1), rtol=1e-4)
    np.testing.assert_allclose(found.coordinates, noise, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found.gradient_coordinates, noisy, rtol=1e-3, atol=1e-5)
    assert found.loss == pytest.approx(losses.mean(), rel=1e-5)
    assert found.mean_norm == pytest.approx(np.linalg.norm(clean.mean(axis=0)), rel=1e-4)
    assert (found.step, found.num_parameters) == (7, 4)


def test_the_variance_is_unbiased():
    problem = ao.Problem(
        init=lambda key: jnp.zeros(5),
        loss=lambda x, batch, key: jnp.sum(x * batch),
        batch=lambda key, worker: 2 * jax.random.normal(key, (5,)),
    )
    few = [
        tails.gradient_noise(problem, key=jax.random.key(seed), num_samples=4).variance
        for seed in range(40)
    ]
    assert np.mean(few) == pytest.approx(20, rel=0.15)
    some = tails.gradient_noise(problem, key=KEY, num_coordinates=2)
    assert some.coordinates.shape == (1000, 2)


def test_the_noise_of_a_problem_shows_in_the_verdict():
    problem = least_squares(ao.noise.alpha_stable(1.2, 5.0))
    found = tails.gradient_noise(problem, key=KEY, num_samples=3000)
    report = tails.judge_tail(found.coordinates, num_draws=40)
    assert report.verdict == "infinite variance"
    assert report.index == pytest.approx(1.2, rel=0.15)
    norms = tails.judge_tail(found.norms, signed=False, num_draws=40)
    assert norms.verdict == "infinite variance"


def test_a_run_is_training_with_fresh_gradients():
    problem = least_squares(ao.noise.gaussian(0.1))
    steps = (0, 3, 5)
    found = tails.gradient_noise_along_run(
        problem, ao.optimizers.sgd(0.1), key=KEY, steps=steps, num_samples=10, num_workers=2
    )
    assert [noise.step for noise in found] == list(steps)
    params, _, losses = train(
        problem, optax.sgd(0.1), problem.init(KEY), key=KEY, num_steps=5, num_workers=2
    )
    alone = tails.gradient_noise(problem, params, key=KEY, num_samples=10, num_workers=2)
    np.testing.assert_allclose(found[-1].norms, alone.norms, rtol=1e-4)
    # Step by step, as a job computes it.
    expected, compute = problem.init(KEY), one_job(problem)
    for step in range(5):
        key = jax.random.fold_in(jax.random.fold_in(KEY, 1), step)
        loss, gradient, noise = compute(expected, key, jnp.int32(step % 2))
        assert losses[step] == pytest.approx(float(loss), rel=1e-4)
        expected = jax.tree.map(lambda x, g, n: x - 0.1 * (g + n), expected, gradient, noise)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), params, expected)


def test_divergence_is_an_error():
    with pytest.raises(ValueError, match="training diverged within 300 steps"):
        tails.gradient_noise_along_run(
            least_squares(), optax.sgd(50.0), key=KEY, steps=(300,), num_samples=2
        )


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"key": 3}, TypeError, "key must be one typed key"),
        ({"num_samples": 1}, ValueError, "num_samples must be an integer >= 2, got 1"),
        ({"num_coordinates": 0}, ValueError, "num_coordinates must be an integer >= 1"),
        ({"num_workers": 0}, ValueError, "num_workers must be an integer >= 1"),
        ({"params": jnp.array([jnp.inf])}, ValueError, "params must be finite"),
    ],
)
def test_wrong_arguments_are_refused(changes, error, message):
    with pytest.raises(error, match=message):
        tails.gradient_noise(least_squares(), **{"key": KEY} | changes)


@pytest.mark.parametrize("steps", [(), (3, 3), (-1,)])
def test_wrong_steps_are_refused(steps):
    with pytest.raises(ValueError, match="steps must"):
        tails.gradient_noise_along_run(least_squares(), optax.sgd(0.1), key=KEY, steps=steps)
