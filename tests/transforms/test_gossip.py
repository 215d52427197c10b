"""Mixing over links with delays, and predicting or clipping late neighbours, against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import async_optax as ao
from async_optax import transforms
from async_optax.transforms import topologies
from tests.oracles import gossip

N, SIZE, ROUNDS, LR = 6, 4, 14, 0.1
RNG = np.random.default_rng(0)
X0 = RNG.normal(size=(N, SIZE))
TARGETS, CURVATURE = RNG.normal(size=(N, SIZE)), RNG.uniform(0.5, 2.0, size=(N, SIZE))
DELAYS = RNG.integers(0, 4, size=(N, N)) * ~np.eye(N, dtype=bool)
LATE = (RNG.random((N, N)) < 0.4) & ~np.eye(N, dtype=bool)
MIXINGS = {
    "ring": topologies.ring(N),
    "complete": topologies.complete(N),
    "varying": topologies.cycle([topologies.ring(N), topologies.exponential(N)]),
    "one peer": topologies.one_peer_exponential(N),
    "pairs": topologies.random_pairings(N, seed=4),
}
mixings = pytest.mark.parametrize("name", MIXINGS)


def gradient(t, x):
    """Of functions that differ by agent and round, and are not quadratic."""
    return CURVATURE * np.sin(x - TARGETS) + 0.1 * np.cos(t + np.arange(SIZE))


def run(tx, num_rounds=ROUNDS, x0=X0):
    """Parameters after each round; compiled once."""

    @jax.jit
    def step(g, state, x):
        updates, state = tx.update(g, state, x)
        return optax.apply_updates(x, updates), state

    x = {"w": jnp.asarray(x0[:, :3].reshape(N, 3, 1)), "b": jnp.asarray(x0[:, 3]), "none": None}
    state, history = tx.init(x), [x0]
    for t in range(num_rounds):
        g = gradient(t, history[-1])
        g = {"w": jnp.asarray(g[:, :3].reshape(N, 3, 1)), "b": jnp.asarray(g[:, 3]), "none": None}
        x, state = step(g, state, x)
        history.append(np.concatenate([np.asarray(x["w"])[..., 0], x["b"][:, np.newaxis]], 1))
    return np.array(history)


@pytest.mark.usefixtures("x64", "strict_dtypes")
@mixings
@pytest.mark.parametrize(
    ("delays", "order"), [(None, "mix_first"), (DELAYS, "mix_first"), (DELAYS, "step_first")]
)
def test_mixing_is_its_loop(name, delays, order):
    tx = optax.chain(optax.sgd(LR), transforms.mix_neighbours(MIXINGS[name], delays, order))
    matrices = MIXINGS[name].matrices_at(np.arange(ROUNDS))
    by_link = np.zeros((N, N), int) if delays is None else delays
    first = order == "step_first"
    expected = gossip.mix_neighbours(X0, gradient, matrices, LR, by_link, ROUNDS, first)
    np.testing.assert_allclose(run(tx), expected, rtol=0, atol=1e-13)


@pytest.mark.usefixtures("x64", "strict_dtypes")
@pytest.mark.parametrize(
    ("name", "theta", "delay"),
    [
        *(("ring", theta, 3) for theta in (0.0, 0.3, 1.0, "aligned", "opposed")),
        *((name, 0.3, 3) for name in MIXINGS if name != "ring"),
        ("pairs", "aligned", 2),
        ("complete", "opposed", 1),
    ],
)
def test_predicting_and_clipping_is_its_loop(name, theta, delay):
    tx = transforms.predict_clip(LR, MIXINGS[name], LATE, delay, theta, strength=0.7)
    matrices = MIXINGS[name].matrices_at(np.arange(ROUNDS))
    expected = gossip.predict_clip(X0, gradient, matrices, LR, LATE, delay, 0.7, theta, ROUNDS)
    np.testing.assert_allclose(run(tx), expected, rtol=0, atol=1e-13)


def test_the_practical_variant_decides_both_ways():
    """Else the two tests above would show nothing of the comparison."""
    runs = [
        gossip.predict_clip(
            X0, gradient, topologies.ring(N).matrices, LR, LATE, 3, 0.7, theta, ROUNDS
        )
        for theta in (0.0, 1.0, "aligned", "opposed")
    ]
    for i, one in enumerate(runs):
        for other in runs[:i]:
            assert np.abs(one - other).max() > 1e-3


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "theta"),
    [*((name, 0.4) for name in MIXINGS), ("ring", 0.0), ("ring", 1.0), ("complete", "aligned")],
)
def test_without_late_neighbours_theta_does_not_matter(name, theta):
    nobody = np.zeros((N, N), bool)
    tx = transforms.predict_clip(LR, MIXINGS[name], nobody, 2, theta)
    plain = ao.optimizers.d_psgd(LR, MIXINGS[name])
    np.testing.assert_allclose(run(tx), run(plain), rtol=0, atol=1e-14)


@pytest.mark.usefixtures("x64")
def test_the_ends_have_names():
    ring = MIXINGS["ring"]
    ends = {
        0.0: ao.optimizers.c_asgd(LR, ring, LATE),
        1.0: ao.optimizers.p_asgd(LR, ring, LATE, 3, 0.5),
    }
    for theta, end in ends.items():
        tx = ao.optimizers.pc_asgd(LR, ring, LATE, 3, theta, 0.5)
        np.testing.assert_allclose(run(end), run(tx), rtol=0, atol=1e-15)
    for prefer in ("aligned", "opposed"):
        np.testing.assert_array_equal(
            run(ao.optimizers.pc_asgd_practical(LR, ring, LATE, 3, 0.5, prefer)),
            run(transforms.predict_clip(LR, ring, LATE, 3, prefer, 0.5)),
        )


@pytest.mark.usefixtures("x64")
def test_strength_zero_extrapolates_and_delay_one_never_corrects():
    ring = MIXINGS["ring"]
    without, strong = (
        run(ao.optimizers.p_asgd(LR, ring, LATE, 1, strength)) for strength in (0.0, 5.0)
    )
    np.testing.assert_array_equal(without, strong)
    # By hand: neighbour k is taken to have made tau steps along its old gradient.
    history = run(ao.optimizers.p_asgd(LR, ring, LATE, 3, 0.0))
    t, (i, k) = 9, np.argwhere(LATE & ring.links())[0]
    w = ring.matrices[0]
    predicted = history[t - 3, k] - 3 * LR * gradient(t - 3, history[t - 3])[k]
    others = sum(w[i, j] * history[t, j] for j in range(N) if not LATE[i, j])
    rest = [j for j in range(N) if LATE[i, j] and j != k]
    others += sum(
        w[i, j] * (history[t - 3, j] - 3 * LR * gradient(t - 3, history[t - 3])[j]) for j in rest
    )
    expected = others + w[i, k] * predicted - LR * gradient(t, history[t])[i]
    np.testing.assert_allclose(history[t + 1, i], expected, rtol=0, atol=1e-13)


def test_theta_and_rate_may_be_schedules():
    ring = MIXINGS["ring"]
    halves = ao.optimizers.pc_asgd(lambda t: LR, ring, LATE, 2, lambda t: 0.0 * t + 0.25)
    np.testing.assert_allclose(
        run(halves), run(ao.optimizers.pc_asgd(LR, ring, LATE, 2, 0.25)), atol=1e-6
    )
    first = ao.optimizers.pc_asgd(LR, ring, LATE, 2, lambda t: jnp.where(t < 5, 1.0, 0.0))
    np.testing.assert_allclose(
        run(first, 5), run(ao.optimizers.p_asgd(LR, ring, LATE, 2), 5), atol=1e-6
    )


def test_local_optimizers_are_per_agent():
    """Adam is element-wise: mixed with nobody, each agent is Adam alone."""
    alone = [
        ao.optimizers.d_psgd(0.1, topologies.cycle([np.eye(N), topologies.ring(N)]), local=make)
        for make in (optax.adam, optax.sgd)
    ]
    after = [run(tx, 1)[1] for tx in alone]
    adam, start = optax.adam(0.1), jnp.asarray(X0[2])
    updates, _ = adam.update(jnp.asarray(gradient(0, X0)[2]), adam.init(start), start)
    np.testing.assert_allclose(after[0][2], X0[2] + updates, atol=1e-6)
    assert np.abs(after[0] - after[1]).max() > 1e-3


OPTIMIZERS = {
    "d_psgd": ao.optimizers.d_psgd(0.1, MIXINGS["ring"], DELAYS),
    "pc_asgd": ao.optimizers.pc_asgd(0.1, MIXINGS["complete"], LATE, 2),
    "pc_asgd_practical": ao.optimizers.pc_asgd_practical(0.1, MIXINGS["pairs"], LATE, 2),
}


@pytest.mark.usefixtures("strict_dtypes")
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtypes_and_states_are_kept(name, dtype):
    with jax.enable_x64(dtype == "float64"):
        tx, x = OPTIMIZERS[name], {"w": jnp.ones((N, 2), dtype), "none": None}
        state = tx.init(x)
        updates, after = jax.jit(tx.update)(x, state, x)
        assert updates["w"].dtype == jnp.dtype(dtype)
        assert after[-1] is not None
        for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
            assert (one.shape, one.dtype) == (other.shape, other.dtype)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_equal_agents_with_equal_gradients_stay_equal(name):
    """And mixing adds nothing, not even in low precision."""
    tx = OPTIMIZERS[name]
    x = jnp.broadcast_to(jnp.linspace(0.1, 0.7, 5), (N, 5))
    updates, _ = jax.jit(tx.update)(jnp.ones_like(x), tx.init(x), x)
    np.testing.assert_allclose(updates, -0.1 * jnp.ones_like(x), atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_scan_equals_a_loop(name):
    tx, x = OPTIMIZERS[name], jnp.asarray(X0, jnp.float32)

    def step(carry, t):
        x, state = carry
        updates, state = tx.update(jnp.sin(x + t), state, x)
        return (optax.apply_updates(x, updates), state), None

    looped, one = (x, tx.init(x)), jax.jit(step)
    for t in range(7):
        looped, _ = one(looped, jnp.float32(t))
    scanned, _ = jax.lax.scan(step, (x, tx.init(x)), jnp.arange(7.0))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), looped, scanned)


def test_infinite_predictions_do_not_reach_clipping():
    tx = ao.optimizers.pc_asgd(0.1, MIXINGS["ring"], LATE, 1, theta=0.0)
    x, state = jnp.asarray(X0, jnp.float32), None
    state = tx.init(x)
    _, state = tx.update(jnp.full_like(x, 1e30), state, x)  # its square is infinite
    updates, _ = tx.update(jnp.ones_like(x), state, x)
    assert jnp.isfinite(updates).all()


RING = MIXINGS["ring"]
HALF_A_MATRIX = topologies.from_matrix([[0.0, 1.0], [1.0, 0.0]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: transforms.mix_neighbours(RING, [[0]]), r"delays must have shape \(6, 6\)"),
        (lambda: transforms.mix_neighbours(RING, -DELAYS), r"delays must be integers >= 0, got"),
        (lambda: transforms.mix_neighbours(RING, DELAYS + 0.5), "delays must be integers >= 0"),
        (lambda: transforms.mix_neighbours(RING, DELAYS + 1), r"an agent knows itself; got delays"),
        (
            lambda: ao.optimizers.d_psgd(0.1, RING, order="last"),
            "order must be one of mix_first, s",
        ),
        (lambda: ao.optimizers.d_psgd(-1.0, RING), "learning_rate must be .* > 0, got -1.0"),
        (lambda: ao.optimizers.pc_asgd(0.1, RING, LATE, 0), "delay must be an integer >= 1"),
        (lambda: ao.optimizers.pc_asgd(0.1, RING, LATE, 1, 1.5), "theta must be .* <= 1, got 1.5"),
        (lambda: ao.optimizers.pc_asgd(0.1, RING, LATE, 1, -0.1), "theta must be .* >= 0"),
        (
            lambda: ao.optimizers.pc_asgd(0.1, RING, LATE, 1, lambda t: 2.0 - t),
            r"theta\(0\) must be .* <= 1, got 2",
        ),
        (
            lambda: ao.optimizers.pc_asgd(0.1, RING, LATE, 1, strength=-1.0),
            "strength must be a finite number >= 0, got -1.0",
        ),
        (
            lambda: ao.optimizers.pc_asgd(0.1, RING, LATE[:2], 1),
            r"delayed must have shape \(6, 6\)",
        ),
        (lambda: ao.optimizers.pc_asgd(0.1, RING, 2 * LATE, 1), "delayed must be true or false"),
        (lambda: ao.optimizers.pc_asgd(0.1, RING, ~LATE, 1), r"got delayed\[0, 0\]=1"),
        (
            lambda: ao.optimizers.c_asgd(0.1, HALF_A_MATRIX, [[0, 1], [0, 0]]),
            "delayed must leave agent 0 itself or a neighbour",
        ),
        (lambda: transforms.predict_clip(0.1, RING, LATE, 1, "practical"), "aligned, opposed; got"),
        (
            lambda: ao.optimizers.pc_asgd_practical(0.1, RING, LATE, 1, prefer="both"),
            "prefer must be one of aligned, opposed; got 'both'",
        ),
        (lambda: OPTIMIZERS["d_psgd"].init({"w": jnp.ones(3)}), r"params\['w'\] must be stacked"),
        (lambda: OPTIMIZERS["pc_asgd"].init({"w": jnp.ones(())}), r"params\['w'\] must be stacked"),
        (
            lambda: transforms.mix_neighbours(RING).update(
                jnp.ones(6), transforms.mix_neighbours(RING).init(jnp.ones(6))
            ),
            "mix_neighbours needs params, got None",
        ),
        (
            lambda: OPTIMIZERS["pc_asgd"].update(
                jnp.ones(6), OPTIMIZERS["pc_asgd"].init(jnp.ones(6))
            ),
            "predict_clip needs params, got None",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_wrong_kinds():
    with pytest.raises(TypeError, match="mixing must be a mixing such as topologies.ring"):
        transforms.mix_neighbours(np.eye(3))
    with pytest.raises(TypeError, match=r"from_matrix\(W\); got an array of shape \(2, 2\)"):
        ao.optimizers.d_psgd(0.1, np.full((2, 2), 0.5))
    with pytest.raises(TypeError, match="theta must be a number in .*: see pc_asgd_practical"):
        ao.optimizers.pc_asgd(0.1, RING, LATE, 1, "aligned")
    with pytest.raises(TypeError, match="local must be a function such as optax.adam"):
        ao.optimizers.d_psgd(0.1, RING, local=optax.sgd(0.1))
