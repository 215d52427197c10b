"""Nesterov methods against PyTorch, against Optax, and against the papers' form."""

import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import async_optax as ao
from async_optax import transforms
from tests.oracles import nadam_torch

RECORDED = json.loads((pathlib.Path(nadam_torch.__file__).with_suffix(".json")).read_text())


def ours(options):
    b1, b2 = options.get("betas", (0.9, 0.999))
    tx = ao.optimizers.nadam_delayed(
        options["lr"],
        b1,
        b2,
        momentum_decay=options.get("momentum_decay", 0.004),
        weight_decay=options.get("weight_decay", 0.0),
    )
    x = jnp.asarray(nadam_torch.start())
    state, update = tx.init(x), jax.jit(tx.update)
    points = []
    for step in range(nadam_torch.STEPS):
        updates, state = update(jnp.asarray(nadam_torch.gradient(x.tolist(), step)), state, x)
        x = optax.apply_updates(x, updates)
        points.append(np.asarray(x))
    return np.array(points)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("setting", nadam_torch.SETTINGS)
def test_nadam_equals_the_numbers_of_pytorch(setting):
    points = ours(nadam_torch.SETTINGS[setting])
    np.testing.assert_allclose(points, RECORDED[setting], rtol=1e-12, atol=1e-12)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.parametrize("setting", nadam_torch.SETTINGS)
def test_the_numbers_are_those_of_the_pytorch_installed(setting):
    live = nadam_torch.trajectory(nadam_torch.SETTINGS[setting])
    np.testing.assert_allclose(live, RECORDED[setting], rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_without_a_schedule_it_is_optax_nadam():
    tx = ao.optimizers.nadam_delayed(0.1, b1=0.9, momentum_decay=1e6, weight_decay=0.0)
    reference = optax.nadam(0.1)
    x = jnp.array([1.0, -2.0])
    states = [tx.init(x), reference.init(x)]
    for i in range(20):
        g = jnp.array([jnp.cos(i), jnp.sin(2.0 * i)])
        updates, states[0] = tx.update(g, states[0], x)
        expected, states[1] = reference.update(g, states[1], x)
        np.testing.assert_allclose(updates, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("delay", [0, 3, 7])
@pytest.mark.parametrize(
    "gamma",
    [0.9, lambda t: jnp.maximum(t - 2.0, 0.0) / jnp.maximum(jnp.asarray(t, float), 1.0)],
    ids=["constant", "schedule"],
)
def test_the_papers_form_with_a_fixed_delay(gamma, delay):
    """``w_(t+1) = w_t + d_t - eta (1 - gamma_t) f'(w_(t-tau) + d_(t-tau))``, ours holds w + d."""
    curvature, eta = np.array([1.0, 0.1]), 0.02
    gamma_at = gamma if callable(gamma) else lambda t: gamma

    def gradient(x):
        return curvature * np.tanh(x)

    w = previous = np.array([2.0, -3.0])
    points = []
    tx = ao.optimizers.nesterov_delayed(eta, gamma)
    y = jnp.asarray(w)
    state, update = tx.init(y), jax.jit(tx.update)
    served = []
    for t in range(300):
        g_t = float(gamma_at(t))
        d = g_t * (w - previous)
        points.append(w + d)
        w, previous = w + d - eta * (1 - g_t) * gradient(points[max(t - delay, 0)]), w
        served.append(np.asarray(y))
        np.testing.assert_allclose(served[-1], points[-1], rtol=0, atol=1e-12)
        updates, state = update(jnp.asarray(gradient(served[max(t - delay, 0)])), state, y)
        y = optax.apply_updates(y, updates)


@pytest.mark.usefixtures("x64")
def test_the_delayed_method_is_nesterov_sgd_at_a_discounted_rate():
    """Same iterates as Nesterov SGD with ``eta * (1 - gamma)``, fed with stale gradients."""
    eta, gamma, delay = 0.3, 0.9, 5
    pair = ao.optimizers.nesterov_delayed(eta, gamma), optax.sgd(eta * (1 - gamma), gamma, True)
    histories = []
    for tx in pair:
        x = jnp.array([2.0, -3.0])
        state, history = tx.init(x), [x]
        for t in range(100):
            stale = history[max(t - delay, 0)]
            updates, state = tx.update(jnp.tanh(stale), state, x)
            x = x + updates
            history.append(x)
        histories.append(np.array(history))
    np.testing.assert_allclose(*histories, rtol=0, atol=1e-13)


def test_the_schedules_of_the_docstrings_are_finite():
    nesterov = ao.optimizers.nesterov_delayed(
        0.1, momentum=lambda t: jnp.maximum(t - 1.0, 0) / (t + 1.0)
    )
    normalized = ao.optimizers.normalized_momentum_sgd(
        lambda t: 0.1 * (t + 1.0) ** -0.75, lambda t: 1 - jnp.maximum(t, 1.0) ** -0.5
    )
    for tx in (nesterov, normalized):
        x = jnp.ones(2)
        state = tx.init(x)
        for _ in range(4):
            updates, state = tx.update(x, state, x)
            assert (jnp.isfinite(updates) & (updates < 0)).all()


@pytest.mark.parametrize(
    "factory", [transforms.trace_nesterov_delayed, transforms.scale_by_normalized_momentum]
)
def test_momenta_near_one_move_in_low_precision(factory):
    tx, g = factory(0.999), jnp.ones(2, jnp.bfloat16)
    assert (tx.update(g, tx.init(g))[0] > 0).all()


def test_bad_arguments():
    with pytest.raises(ValueError, match="momentum must be a finite number >= 0 and < 1, got 1.0"):
        transforms.trace_nesterov_delayed(1.0)
    for name in ("b1", "b2"):
        with pytest.raises(ValueError, match=f"{name} must be .* >= 0 and < 1, got 1.5"):
            transforms.scale_by_nadam_delayed(**{name: 1.5})
    with pytest.raises(ValueError, match="momentum_decay must be a finite number >= 0, got -1"):
        transforms.scale_by_nadam_delayed(momentum_decay=-1)
    with pytest.raises(ValueError, match="weight_decay must be a finite number >= 0, got -1"):
        ao.optimizers.nadam_delayed(0.1, weight_decay=-1)
