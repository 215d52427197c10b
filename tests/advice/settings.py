"""A quadratic of known curvature, noise and minimum, and what was measured of one, made up."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import async_optax as ao
from async_optax.advice import Clip, Measured, ProgressCurve
from async_optax.theory import tails

CURVATURES = (4.0, 1.0, 0.25)
NOISE = 0.5  # standard deviation of each coordinate of a gradient


def quadratic(noise=None):
    """``sum_i h_i x_i**2 / 2`` from ones, with Gaussian gradient noise, plus a constant."""
    curvatures = jnp.array(CURVATURES)

    def loss(x, batch, key):
        return jnp.sum(curvatures * x**2) / 2 + jnp.sum(batch * x) + 0.5

    def batch(key, worker):
        return NOISE * jax.random.normal(key, (3,))

    return ao.Problem(lambda key: jnp.ones(3), loss, batch, noise=noise)


def made_up(**changes):
    """A measured problem: curvature 2, loss 1 / (1 + s) above 0.1, noise of variance 0.6."""
    one = np.ones(1)
    curve = ProgressCurve(one, one, one, one, 0.1 * one, horizon=100.0)
    report = tails.judge_tail(np.ones(1))
    clip = Clip("none", np.inf, None, 1.0, "no reason")
    values = {field.name: None for field in dataclasses.fields(Measured)}
    values |= {
        "num_parameters": 3,
        "curvature_start": 3.0,
        "curvature": 2.0,
        "eigenvalues": np.array([2.0]),
        "residuals": np.array([0.0]),
        "rungs": (),
        "steps": 1000,
        "learning_rate": 0.1,
        "norms_start": report,
        "norms": report,
        "coordinates": report,
        "variance": 0.6,
        "noise_curvatures": np.array([2.0, 0.5, 0.0]),
        "noise_shares": np.array([0.25, 0.25, 0.5]),
        "clip": clip,
        "curve": curve,
        "loss_start": 1.1,
        "loss_end": 0.11,
        "num_gradients": 1000,
    }
    return Measured(**values | changes)
