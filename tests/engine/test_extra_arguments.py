"""What the engine hands to optimizers, and which optimizers it can hand it to."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import async_optax as ao
from async_optax import transforms
from tests.engine.problems import make_timeline, run_quadratic


def test_jitted_updates_take_every_extra_argument():
    bare = ao.optimizers.dc_asgd(0.1, strength=0.2)
    jitted = optax.GradientTransformationExtraArgs(bare.init, jax.jit(bare.update))
    timeline = make_timeline(60)
    expected, result = (run_quadratic(optimizer=tx, timeline=timeline) for tx in (bare, jitted))
    np.testing.assert_allclose(result.params, expected.params, rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_gradient_fn_is_the_jobs_own_gradient():
    """At the stale parameters it is the update itself, batch and noise included."""

    def update(updates, state, params=None, *, stale_params, gradient_fn, **extra_args):
        again = gradient_fn(stale_params)
        return jax.tree.map(lambda g, a: -0.1 * g + 1e6 * (g - a), updates, again), state

    same = optax.GradientTransformationExtraArgs(optax.init_empty_state, update)
    timeline = make_timeline(40)
    plain = run_quadratic(optimizer=ao.optimizers.sgd(0.1), timeline=timeline)
    for lanes in (1, 3):
        result = run_quadratic(optimizer=same, timeline=timeline, lanes=lanes)
        np.testing.assert_allclose(result.params, plain.params, rtol=1e-8)


def test_evaluations_are_of_the_servers_parameters():
    tx = ao.optimizers.linear_weight_prediction(0.05, num_steps=5, momentum=0.5)
    result = run_quadratic(optimizer=tx, timeline=make_timeline(30), evaluate_every=30)
    distance = jnp.linalg.norm(result.params - 1)
    np.testing.assert_allclose(result.evaluations["distance"][-1], distance, rtol=1e-6)
    served = transforms.served_params(result.params, result.opt_state)
    assert jnp.abs(served - result.params).max() > 1e-3
