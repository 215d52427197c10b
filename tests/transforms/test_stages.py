"""Transformations of tuples of stages: delays, predictions, scales, momentum."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from async_optax import transforms
from async_optax.transforms import stages


class Seen(NamedTuple):
    staleness: jax.Array
    stale_params: optax.Params


def recording():
    """SGD that keeps what it has been told, as zeros before the first update."""

    def init(params):
        return Seen(jnp.zeros([], jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def update(updates, state, params=None, *, staleness, stale_params, **extra_args):
        return jax.tree.map(lambda g: -g, updates), Seen(staleness, stale_params)

    return optax.GradientTransformationExtraArgs(init, update)


def start(num_stages):
    return tuple({"w": jnp.full(2, 10.0 * i), "none": None} for i in range(num_stages))


def steps(num_stages, m):
    """Gradients whose negative adds m + 1 to stage 0, twice that to stage 1, and so on."""
    return tuple({"w": jnp.full(2, -(m + 1.0) * (i + 1)), "none": None} for i in range(num_stages))


@pytest.mark.parametrize("delays", [None, (0, 0, 0), (1, 1, 1), (0, 3, 1), (5, 0, 2)])
@pytest.mark.parametrize("stash", [True, False])
@pytest.mark.parametrize("jit", [False, True])
def test_versions_are_those_of_a_full_history(delays, stash, jit):
    taus = (2, 1, 0) if delays is None else delays
    tx = transforms.delay_stages(recording(), stash=stash, delays=delays)
    params, state, history = start(3), None, [start(3)]
    state = tx.init(params)
    update = jax.jit(tx.update) if jit else tx.update
    for m in range(12):
        mixed = tuple(history[max(0, m - tau)][i] for i, tau in enumerate(taus))
        served = transforms.served_params(params, state)
        if not stash:
            assert [part is None for part in served.forward] == [tau == 0 for tau in taus]
            jax.tree.map(np.testing.assert_array_equal, served.backward, params)
            served = served.mixed
        jax.tree.map(np.testing.assert_array_equal, served, mixed)
        updates, state = update(steps(3, m), state, params)
        assert state.inner_state.staleness == min(m, max(taus))
        jax.tree.map(np.testing.assert_array_equal, state.inner_state.stale_params, mixed)
        params = optax.apply_updates(params, updates)
        history.append(params)
    rows = [0 if ring is None else len(ring["w"]) for ring in state.rings]
    assert rows == list(taus)


@pytest.mark.parametrize("traced", [False, True])
def test_versions_stay_until_a_commit(traced):
    tx = transforms.delay_stages(transforms.accumulate_until_commit(optax.sgd(1.0)))
    one, state = start(3), None
    state = tx.init(one)
    for _ in range(3):
        updates, state = tx.update(steps(3, 0), state, one, commit=True, weight=1.0)
        one = optax.apply_updates(one, updates)
    before = transforms.served_params(one, state)
    commit = jnp.bool_(False) if traced else False
    updates, after = jax.jit(tx.update, static_argnames=() if traced else ("commit",))(
        steps(3, 0), state, one, commit=commit, weight=0.5
    )
    assert not np.any(updates[0]["w"])
    assert after.step == 3
    jax.tree.map(np.testing.assert_array_equal, transforms.served_params(one, after), before)
    jax.tree.map(np.testing.assert_array_equal, after.rings, state.rings)


def test_given_stale_params_are_passed_on():
    tx = transforms.delay_stages(recording(), stash=False)
    params, given = start(2), start(2)[::-1]
    state = tx.init(params)
    versions = transforms.StageVersions((given[0], None), params)
    _, state = tx.update(steps(2, 0), state, params, stale_params=versions, staleness=0)
    expected = (given[0], params[1])
    jax.tree.map(np.testing.assert_array_equal, state.inner_state.stale_params, expected)


def test_predictions_are_multiples_of_the_last_step():
    tx = transforms.predict_stages(optax.sgd(0.5, momentum=0.9))
    params = start(3)
    state = tx.init(params)
    jax.tree.map(np.testing.assert_array_equal, transforms.served_params(params, state), params)
    for m in range(3):
        updates, state = tx.update(steps(3, m), state, params)
        params = optax.apply_updates(params, updates)
        for i, served in enumerate(transforms.served_params(params, state)):
            expected = params[i]["w"] + (2 - i) * updates[i]["w"]
            np.testing.assert_allclose(served["w"], expected, rtol=1e-6)
    assert state.last_step[2] is None


def test_delayed_predictions_are_those_of_their_version():
    tx = transforms.delay_stages(transforms.predict_stages(optax.sgd(1.0)))
    params = start(3)
    state, history = tx.init(params), []
    for m in range(6):
        history.append(transforms.served_params(params, state.inner_state))
        served = transforms.served_params(params, state)
        for i in range(3):
            expected = history[max(0, m - 2 + i)][i]["w"]
            np.testing.assert_array_equal(served[i]["w"], expected)
        updates, state = tx.update(steps(3, m), state, params)
        params = optax.apply_updates(params, updates)


@pytest.mark.parametrize("annealing_steps", [4, 10.0])
def test_learning_rates_are_divided_by_less_and_less(annealing_steps):
    tx = stages.scale_by_stage_delay(annealing_steps)
    g = tuple(jnp.ones(1) for _ in range(4))
    state = tx.init(g)
    for t in range(12):
        out, state = tx.update(g, state)
        power = 1 - min(t / annealing_steps, 1)
        np.testing.assert_allclose(np.concatenate(out), [3.0**-power, 2.0**-power, 1, 1], rtol=1e-6)


def test_only_commits_are_steps():
    tx = transforms.accumulate_until_commit(stages.scale_by_stage_delay(4))
    g = tuple(jnp.ones(1) for _ in range(3))
    state = tx.init(g)
    for commit in (False, False, True):
        _, state = tx.update(g, state, commit=commit, weight=1.0)
    assert state.inner_state.step == 1


def test_each_stage_gets_its_own_transformation():
    tx = stages.transform_stages(
        lambda delay, largest: transforms.compensate_delay(float(delay + largest))
    )
    params = tuple(jnp.full(2, 3.0) for _ in range(3))
    stale = tuple(jnp.full(2, 1.0) for _ in range(3))
    g = tuple(jnp.full(2, 0.5) for _ in range(3))
    out, _ = tx.update(g, tx.init(params), params, stale_params=stale, gradient_fn=None)
    expected = [0.5 + strength * 0.25 * 2 for strength in (4, 3, 2)]
    np.testing.assert_allclose([x[0] for x in out], expected)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_grows_with_the_delay(nesterov):
    tx = stages.scale_by_stage_momentum(0.8, 0.98, nesterov=nesterov)
    g = tuple(jnp.ones(1) for _ in range(3))
    _, state = tx.update(g, tx.init(g))
    moments = [float(inner.mu[0]) for inner in state.inner_states]
    np.testing.assert_allclose(moments, [1 - 0.92, 1 - 0.86, 1 - 0.8], rtol=1e-5)
    momentum = transforms.scale_by_nadam_delayed(0.92) if nesterov else optax.scale_by_adam(0.92)
    whole, _ = momentum.update(g[0], momentum.init(g[0]))
    np.testing.assert_allclose(tx.update(g, tx.init(g))[0][0], whole, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: transforms.delay_stages(optax.sgd(0.5)),
        lambda: transforms.delay_stages(optax.sgd(0.5), stash=False),
        lambda: transforms.predict_stages(optax.sgd(0.5)),
        lambda: stages.scale_by_stage_delay(10),
        lambda: stages.scale_by_stage_momentum(),
        lambda: stages.scale_by_stage_momentum(nesterov=False),
    ],
)
def test_dtypes_are_kept_and_states_are_fixed_points(make, dtype):
    with jax.enable_x64(dtype == "float64"):
        params = tuple(jnp.ones(3, dtype) for _ in range(3))
        tx = make()
        updates, state = jax.jit(tx.update)(params, tx.init(params), params)
        assert {u.dtype for u in updates} == {jnp.dtype(dtype)}
        assert {x.dtype for x in jax.tree.leaves(transforms.served_params(params, state))} == {
            jnp.dtype(dtype)
        }
        first, second = (
            jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (tx.init(params), state)
        )
        assert jax.tree.structure(state) == jax.tree.structure(tx.init(params))
        assert first == second


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: transforms.delay_stages(0.1), TypeError, "inner must be a gradient transf"),
        (lambda: transforms.predict_stages(0.1), TypeError, "inner must be a gradient transf"),
        (
            lambda: transforms.delay_stages(optax.sgd(0.1), stash="no"),
            TypeError,
            "stash must be True or False, got 'no'",
        ),
        (
            lambda: transforms.delay_stages(optax.sgd(0.1), delays=[1]),
            TypeError,
            r"delays must be a tuple of integers, one per stage, got \[1\]",
        ),
        (
            lambda: transforms.delay_stages(optax.sgd(0.1), delays=(1, -1)),
            ValueError,
            r"delays\[1\] must be an integer >= 0, got -1",
        ),
        (
            lambda: transforms.delay_stages(optax.sgd(0.1)).init({"a": jnp.ones(1)}),
            TypeError,
            "params must be a tuple of stages, .* got dict",
        ),
        (
            lambda: transforms.delay_stages(optax.sgd(0.1)).init(()),
            ValueError,
            "params must be a tuple of at least one stage, got none",
        ),
        (
            lambda: transforms.delay_stages(optax.sgd(0.1)).update(start(2), start(2)),
            ValueError,
            "delay_stages keeps versions of the parameters: pass params",
        ),
        (lambda: stages.scale_by_stage_delay(0), ValueError, "annealing_steps must be .* got 0"),
        (lambda: stages.transform_stages(1), TypeError, "make must be a function of two delays"),
        (lambda: stages.scale_by_stage_momentum(1.0), ValueError, "b1 must be .* < 1, got 1.0"),
        (
            lambda: stages.scale_by_stage_momentum(0.9, 0.8),
            ValueError,
            "largest_b1 must be at least b1=0.9, got 0.8",
        ),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()
