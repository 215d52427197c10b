"""Averaging in pairs: who is drawn, what moves, and what a graph must be."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from async_optax import transforms
from async_optax.transforms import (
    active_half,
    apply_updates,
    average_pairs,
    partner_sequence,
    partners_of,
    served_params,
    topologies,
)

RING = topologies.ring(6)
SQUARE = np.array([[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]])


def stack(num_agents, seed=0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    return {
        "w": jnp.asarray(rng.normal(size=(num_agents, 2, 3)), dtype),
        "b": jnp.asarray(rng.normal(size=num_agents), dtype),
        "none": None,
    }


def one(tree, agent):
    return jax.tree.map(lambda x: x[agent], tree)


@pytest.mark.parametrize("graph", [topologies.complete(5), topologies.ring(5)])
def test_the_mean_moves_by_the_step_alone(graph):
    tx = average_pairs(graph, optax.sgd(0.5), seed=3)
    agents = [4, 0, 2, 2, 3, 1, 4]
    partners, update = partner_sequence(graph, agents, seed=3), jax.jit(tx.update)
    params = stack(5)
    state = tx.init(params)
    for step, (agent, partner) in enumerate(zip(agents, partners, strict=True)):
        before, g = params, one(stack(5, seed=step + 1), 0)
        updates, state = update(g, state, params, worker=jnp.int32(agent))
        params = apply_updates(params, updates)
        assert updates.rows.tolist() == [agent, partner]
        for name in ("w", "b"):
            moved = params[name].mean(0) - before[name].mean(0)
            np.testing.assert_allclose(moved, -0.1 * g[name], atol=1e-6)
            changed = (params[name] != before[name]).reshape(5, -1).any(1)
            assert set(np.flatnonzero(changed)) <= {agent, int(partner)}
            assert changed[agent]
        served = served_params(params, state)
        jax.tree.map(np.testing.assert_array_equal, served, one(params, agent))


def test_partners_are_neighbours_and_equally_likely():
    agents = np.arange(6000) % 6
    drawn = partner_sequence(RING, agents, seed=1)
    for agent in range(6):
        partners, counts = np.unique(drawn[agents == agent], return_counts=True)
        assert partners.tolist() == sorted([(agent - 1) % 6, (agent + 1) % 6])
        assert abs(counts - 500).max() < 80  # 5 standard deviations
    assert not np.array_equal(drawn, partner_sequence(RING, agents, seed=2))
    # Only the order of arrivals decides: what comes later changes nothing.
    np.testing.assert_array_equal(drawn[:100], partner_sequence(RING, agents[:100], seed=1))


def test_links_count_in_either_direction():
    one_way = np.triu(SQUARE)
    for graph in (SQUARE, one_way, one_way.T, SQUARE != 0, topologies.ring(4)):
        found = partners_of(graph)
        assert found.candidates.tolist() == [[1, 3], [0, 2], [1, 3], [0, 2]]
        assert found.degree.tolist() == [2, 2, 2, 2]
    star = np.zeros((4, 4))
    star[0, 1:] = 0.2
    assert partners_of(star).candidates.tolist() == [[1, 2, 3], [0, 1, 1], [0, 2, 2], [0, 3, 3]]
    assert partners_of(star).degree.tolist() == [3, 1, 1, 1]


def test_passive_agents_only_take_their_step():
    active = active_half(topologies.ring(4))
    assert active.tolist() == [True, False, True, False]
    drawn = partner_sequence(SQUARE, [0, 1, 2, 3], active=active)
    assert drawn[1] == 1
    assert drawn[3] == 3
    assert {drawn[0], drawn[2]} <= {1, 3}
    tx = average_pairs(SQUARE, optax.sgd(0.5), active=active)
    params = stack(4)
    g = one(params, 2)
    updates, _ = tx.update(g, tx.init(params), params, worker=3)
    after = apply_updates(params, updates)
    np.testing.assert_allclose(after["w"][3], params["w"][3] - 0.5 * g["w"], rtol=1e-6)
    for agent in range(3):
        jax.tree.map(np.testing.assert_array_equal, one(after, agent), one(params, agent))


def test_inner_states_are_the_agents_own():
    """Each agent has the optimizer that it would have alone: counts, moments, booleans."""
    inner = optax.apply_if_finite(optax.adam(0.1), 3)
    tx = average_pairs(RING, inner)
    params = jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), stack(6))
    state, alone = tx.init(params), [inner.init(one(params, i)) for i in range(6)]
    update = jax.jit(tx.update)
    for step, agent in enumerate([0, 3, 0, 5, 3, 3]):
        g = one(stack(6, seed=step), 1)
        if step == 4:
            g = jax.tree.map(lambda x: x * jnp.nan, g)
        _, state = update(g, state, params, worker=jnp.int32(agent))
        _, alone[agent] = inner.update(g, alone[agent], one(params, agent))
    for agent in range(6):
        ours = one(state.inner_state, agent)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, alone[agent])


def test_inner_sees_the_mean_and_every_extra_argument():
    seen = {}

    def update(updates, state, params=None, **extra_args):
        seen.update(extra_args, params=params)
        return updates, state

    tx = average_pairs(
        SQUARE, optax.GradientTransformationExtraArgs(optax.init_empty_state, update)
    )
    params = stack(4)
    g = one(params, 0)
    updates, _ = tx.update(
        g, tx.init(params), params, worker=2, staleness=7, stale_params=one(params, 1)
    )
    partner = int(updates.rows[1])
    mean = (params["w"][2] + params["w"][partner]) / 2
    np.testing.assert_allclose(seen["params"]["w"], mean, rtol=1e-6)
    assert seen["staleness"] == 7
    np.testing.assert_array_equal(seen["stale_params"]["w"], params["w"][1])


def test_look_ahead_of_an_agent_is_served():
    tx = average_pairs(SQUARE, transforms.look_ahead(optax.sgd(0.5), num_steps=2))
    params = stack(4)
    g = one(params, 0)
    updates, state = tx.update(g, tx.init(params), params, worker=1)
    after = apply_updates(params, updates)
    served = served_params(after, state)
    np.testing.assert_allclose(served["w"], after["w"][1] - 2 * 0.5 * g["w"], rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_dtypes_are_kept(dtype):
    with jax.enable_x64(dtype == "float64"):
        params = stack(4, dtype=dtype)
        tx = average_pairs(SQUARE, optax.sgd(0.5, 0.9))
        update = jax.jit(tx.update)
        updates, state = update(one(params, 0), tx.init(params), params, worker=jnp.int32(1))
        assert {x.dtype for x in jax.tree.leaves(updates.values)} == {jnp.dtype(dtype)}
        assert updates.values["w"].shape == (2, 2, 3)
        start = jax.tree.map(lambda x: (x.shape, x.dtype), tx.init(params))
        assert start == jax.tree.map(lambda x: (x.shape, x.dtype), state)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: partners_of(np.ones((2, 3))), r"graph must be square, \[n, n\], got shape"),
        (lambda: partners_of([[0, np.nan], [1, 0]]), r"graph must have finite entries"),
        (
            lambda: partners_of(np.kron(np.eye(2), np.ones((2, 2)))),
            "graph must connect all agents, but agents 2, 3 cannot be reached",
        ),
        (lambda: partners_of(SQUARE, active=[True, False]), "active must be 4 booleans"),
        (lambda: partners_of(SQUARE, active=[1, 0, 1, 0]), "active must be 4 booleans"),
        (lambda: partners_of(SQUARE, active=[True] * 4), "0 and 1 are linked and both active"),
        (
            lambda: partners_of(SQUARE, active=[True, False, False, False]),
            "1 and 2 are linked and both passive",
        ),
        (lambda: active_half(topologies.ring(5)), "graph must be bipartite, but agents"),
        (lambda: partner_sequence(SQUARE, [0, 4]), r"agents must be integers in \[0, 4\), got 4"),
        (lambda: average_pairs(SQUARE, optax.sgd(0.1), seed=2**24), "seed must be .* < 2"),
        (lambda: average_pairs(SQUARE, optax.sgd(0.1), seed=-1), "seed must be .* >= 0"),
        (
            lambda: average_pairs(SQUARE, optax.sgd(0.1)).init(stack(5)),
            r"params\['b'\] must be stacked, with a leading axis of 4 agents",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message) as refused:
        make()
    assert "\n" not in str(refused.value)


def test_bad_updates():
    tx, params = average_pairs(SQUARE, optax.sgd(0.1)), stack(4)
    state, g = tx.init(params), one(params, 0)
    with pytest.raises(ValueError, match="average_pairs needs params"):
        tx.update(g, state, worker=0)
    with pytest.raises(ValueError, match=r"worker must be in \[0, 4\), got 4"):
        tx.update(g, state, params, worker=4)
    with pytest.raises(TypeError, match="worker"):
        tx.update(g, state, params)
    with pytest.raises(ValueError, match="a protocol in which every arrival commits"):
        tx.update(g, state, params, worker=0, commit=True, weight=1.0)
    with pytest.raises(TypeError, match="inner must be a gradient transformation"):
        average_pairs(SQUARE, 0.1)
    with pytest.raises(TypeError, match="seed must be an integer"):
        average_pairs(SQUARE, optax.sgd(0.1), seed=0.5)
