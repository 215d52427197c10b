"""Learning rates that see the staleness, alone and injected into any optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from async_optax import transforms
from async_optax.transforms import schedules, weights

G = {"w": jnp.array([2.0, -1.0]), "none": None}


def halving(step):
    return 0.5 ** jnp.asarray(step, jnp.float32)


@pytest.mark.parametrize(
    ("schedule", "formula"),
    [
        (
            schedules.weighted(halving, weights.polynomial(0.5)),
            lambda t, k: 0.5**t / (1 + k) ** 0.5,
        ),
        (
            schedules.capped(halving, max_staleness=3),
            lambda t, k: 0.5**t if k <= 3 else min(0.5**t, 1 / k),
        ),
        (
            schedules.adadelay(halving, scale=0.3),
            lambda t, k: 1 / (2**t + 0.3 * np.sqrt(t + 1 + k)),
        ),
        (lambda t, k: 0.1 / (1 + t + k), lambda t, k: 0.1 / (1 + t + k)),
    ],
    ids=["weighted", "capped", "adadelay", "own"],
)
def test_rates_follow_step_and_staleness(schedule, formula):
    scale = transforms.scale_by_staleness_schedule(schedule)
    injected = optax.inject_hyperparams(optax.sgd)(
        learning_rate=transforms.InjectedStalenessSchedule(schedule)
    )
    states = [scale.init(G), injected.init(G)]
    for t, tau in enumerate([0, 7, 3, 5, 0]):
        for i, tx in enumerate((scale, injected)):
            updates, states[i] = jax.jit(tx.update)(G, states[i], G, staleness=jnp.int32(tau))
            np.testing.assert_allclose(updates["w"], -formula(t, tau) * G["w"], rtol=1e-6)
    np.testing.assert_allclose(states[1].hyperparams["learning_rate"], formula(4, 0), rtol=1e-6)


def test_steps_count_commits():
    tx = transforms.scale_by_staleness_schedule(schedules.weighted(halving, weights.constant()))
    state = tx.init(G)
    for commit, expected in ((False, 1.0), (True, 1.0), (False, 0.5), (True, 0.5), (True, 0.25)):
        updates, state = tx.update(G, state, staleness=0, commit=commit)
        np.testing.assert_allclose(updates["w"], -expected * G["w"])


def test_a_commit_sees_its_largest_staleness():
    rate = schedules.capped(1.0, max_staleness=2)
    tx = transforms.accumulate_until_commit(transforms.scale_by_staleness_schedule(rate))
    state = tx.init(G)

    def commit(arrivals, state):
        for i, (tau, weight) in enumerate(arrivals):
            last = i == len(arrivals) - 1
            updates, state = jax.jit(tx.update)(
                G, state, G, staleness=tau, weight=weight, commit=last
            )
        return updates["w"], state

    stalest, state = commit([(1, 0.25), (8, 0.5), (0, 0.25)], state)
    np.testing.assert_allclose(stalest, -G["w"] / 8)
    fresh, state = commit([(2, 0.5), (0, 0.5)], state)  # the commit before is forgotten
    np.testing.assert_allclose(fresh, -G["w"])
    dropped, state = commit([(9, 0.0), (1, 1.0)], state)  # what has no weight does not count
    np.testing.assert_allclose(dropped, -G["w"])


@pytest.mark.parametrize(("bad", "error"), [(-1, ValueError), (2.7, TypeError)])
def test_bad_staleness_is_not_swallowed_by_a_commit(bad, error):
    tx = transforms.accumulate_until_commit(
        transforms.scale_by_staleness_schedule(schedules.capped(1.0, max_staleness=2))
    )
    with pytest.raises(error, match="staleness must be an integer >= 0"):
        tx.update(G, tx.init(G), staleness=bad, commit=True, weight=1.0)


def test_missing_staleness_raises():
    schedule = schedules.capped(0.1, max_staleness=2)
    tx = transforms.scale_by_staleness_schedule(schedule)
    with pytest.raises(TypeError, match="staleness"):
        tx.update(G, tx.init(G))
    injected = optax.inject_hyperparams(optax.adam)(
        learning_rate=transforms.InjectedStalenessSchedule(schedule)
    )
    with pytest.raises(TypeError, match="staleness"):
        injected.update(G, injected.init(G), G)


@pytest.mark.parametrize("bad", [0.1, lambda step: 0.1, lambda step, tau: jnp.ones(2)])
def test_schedules_of_another_signature_raise(bad):
    for factory in (transforms.scale_by_staleness_schedule, transforms.InjectedStalenessSchedule):
        with pytest.raises(TypeError, match="must map a step and a staleness to one number"):
            factory(bad)


def test_bad_numbers_raise():
    with pytest.raises(ValueError, match="max_staleness must be a finite number >= 0, got -1"):
        schedules.capped(0.1, max_staleness=-1)
    with pytest.raises(ValueError, match="scale must be a finite number >= 0, got -1"):
        schedules.adadelay(0.1, scale=-1)
    with pytest.raises(ValueError, match="learning_rate must be a finite number > 0, got 0.0"):
        schedules.weighted(0.0, weights.inverse())
