"""Averages per row of a table, against NumPy and against what they must equal."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import async_optax as ao
from async_optax.transforms import accumulate_until_commit, average_touched_rows
from tests.engine.problems import make_timeline, softmax_problem
from tests.oracles.replay import SoftmaxRegression, replay

ROWS, WIDTH = 5, 2
IS_TABLE = {"table": True, "dense": False}


def pushes(seed, num_pushes, share=0.4):
    """Gradients of which a share of the rows is touched: ``[num_pushes, ...]`` each."""
    rng = np.random.default_rng(seed)
    present = rng.random((num_pushes, ROWS, 1)) < share
    return {
        "table": rng.normal(size=(num_pushes, ROWS, WIDTH)) * present,
        "dense": rng.normal(size=(num_pushes, 3)),
    }


def zeros(dtype=float):
    return {"table": jnp.zeros((ROWS, WIDTH), dtype), "dense": jnp.zeros(3, dtype)}


def arrival(gradients, i):
    return jax.tree.map(lambda g: jnp.asarray(g[i]), gradients)


def averaged(gradients, weights):
    """The rule, row by row."""
    table = np.zeros((ROWS, WIDTH))
    for row in range(ROWS):
        total, divisor = np.zeros(WIDTH), 0.0
        for g, weight in zip(gradients["table"], weights, strict=True):
            if weight > 0 and np.any(g[row] != 0):
                total += weight * g[row]
                divisor += weight
        if divisor > 0:
            table[row] = total / divisor
    dense = sum(w * g for w, g in zip(weights, gradients["dense"], strict=True))
    return {"table": table, "dense": dense}


def commit_of(tx, state, gradients, weights):
    """Lets a transformation see the arrivals of one commit; returns what the commit does."""
    last = len(weights) - 1
    for i, weight in enumerate(weights):
        g = arrival(gradients, i)
        updates, state = tx.update(g, state, zeros(), commit=i == last, weight=weight)
        if i < last:
            assert not any(leaf.any() for leaf in jax.tree.leaves(updates))
    return updates, state


def assert_close(ours, theirs, **tolerance):
    tolerance = {"rtol": 1e-12, "atol": 1e-14} | tolerance
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), ours, theirs)


@settings(max_examples=20)
@given(
    seed=st.integers(0, 10**6),
    commits=st.lists(
        st.lists(st.sampled_from([0.0, 0.125, 0.5, 1.0]), min_size=1, max_size=5),
        min_size=1,
        max_size=4,
    ),
)
def test_every_commit_equals_numpy(seed, commits):
    with jax.enable_x64(True):
        tx = average_touched_rows(optax.sgd(0.5, momentum=0.9), IS_TABLE)
        state, trace = tx.init(zeros()), jax.tree.map(np.asarray, zeros())
        for i, weights in enumerate(commits):
            gradients = pushes(seed + i, len(weights))
            updates, state = commit_of(tx, state, gradients, weights)
            mean = averaged(gradients, weights)
            trace = jax.tree.map(lambda g, t: g + 0.9 * t, mean, trace)
            assert_close(updates, jax.tree.map(lambda t: -0.5 * t, trace))


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 6))
def test_rows_that_all_touch_receive_the_plain_average(seed, size):
    with jax.enable_x64(True):
        gradients, weights = pushes(seed, size, share=1.1), [1 / size] * size
        server = optax.adam(0.1)
        ours, plain = average_touched_rows(server, IS_TABLE), accumulate_until_commit(server)
        updates, _ = commit_of(ours, ours.init(zeros()), gradients, weights)
        expected, _ = commit_of(plain, plain.init(zeros()), gradients, weights)
        assert_close(updates, expected)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), order=st.permutations(range(5)))
def test_the_order_of_arrivals_does_not_matter(seed, order):
    with jax.enable_x64(True):
        gradients = pushes(seed, 5)
        weights = np.random.default_rng(seed).choice([0.0, 0.2, 0.7], 5)
        tx = average_touched_rows(optax.sgd(1.0), IS_TABLE)
        order = np.array(order)
        moved = jax.tree.map(lambda g: g[order], gradients)
        updates, _ = commit_of(tx, tx.init(zeros()), gradients, weights)
        expected, _ = commit_of(tx, tx.init(zeros()), moved, weights[order])
        assert_close(updates, expected, rtol=1e-10)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 6))
def test_equal_weights_are_the_mean_over_the_batches_that_hold_the_id(seed, size):
    """Synchronous training on the batches of all workers, each row averaged over its own."""
    with jax.enable_x64(True):
        gradients = pushes(seed, size)
        tx = average_touched_rows(optax.sgd(1.0), IS_TABLE)
        updates, _ = commit_of(tx, tx.init(zeros()), gradients, [1 / size] * size)
        table = gradients["table"]
        number = np.any(table != 0, axis=2).sum(axis=0)[:, None]
        expected = {
            "table": -table.sum(axis=0) / np.maximum(number, 1),
            "dense": -gradients["dense"].mean(axis=0),
        }
        assert_close(updates, expected)


class PerEntry:
    """SGD on averages per entry of a vector, for the replay."""

    def __init__(self, learning_rate):
        self.learning_rate = learning_rate
        self.total = self.divisor = 0.0

    def step(self, x, g, stale, tau, worker, weight, commit):
        self.total = self.total + weight * g
        self.divisor = self.divisor + weight * (g != 0)
        if not commit:
            return x
        step = np.where(self.divisor > 0, self.total / np.maximum(self.divisor, 1e-300), 0.0)
        self.total = self.divisor = 0.0
        return x - self.learning_rate * step

    def served(self, x):
        return x


class SparseRegression(SoftmaxRegression):
    """Most features are absent from most examples: their weights are rows that few touch."""

    def __init__(self):
        super().__init__()
        self.features *= np.random.default_rng(1).random(self.features.shape) < 0.15


@pytest.mark.usefixtures("x64")
def test_the_engine_equals_a_replay():
    model, key = SparseRegression(), jax.random.key(3)
    timeline = make_timeline(num_commits=30, protocol=ao.protocols.token_control(3, tolerance=1))
    versions, _ = replay(model, PerEntry(0.5), timeline, key, np.linspace(-1.0, 1.0, model.size))
    problem = softmax_problem(model)
    optimizer = ao.optimizers.gba(0.5, None, per_row=True)
    result = ao.simulate(problem, optimizer, timeline, key=key, lanes=1)
    np.testing.assert_allclose(result.params, versions[-1], rtol=0, atol=1e-12)
    plain = ao.simulate(problem, ao.optimizers.gba(0.5, None), timeline, key=key, lanes=1)
    assert np.abs(plain.params - result.params).max() > 0.01


def test_arrivals_that_commit_in_full_have_no_average_to_take():
    tx, plain = average_touched_rows(optax.adam(0.1), IS_TABLE), optax.adam(0.1)
    gradients = jax.tree.map(lambda g: g.astype(np.float32), pushes(0, 3))
    params = zeros(jnp.float32)
    state, plain_state = tx.init(params), plain.init(params)
    for i in range(3):
        g = arrival(gradients, i)
        updates, state = tx.update(g, state, params)
        expected, plain_state = plain.update(g, plain_state)
        jax.tree.map(np.testing.assert_array_equal, updates, expected)


def sparse_adam(gradients, weights, steps, learning_rate=0.1, b1=0.9, b2=0.999, eps=1e-8):
    """Adam on averages per row; rows that nobody touched keep everything. Returns the table."""
    x, m, v = np.zeros((3, ROWS, WIDTH))
    for t, g in enumerate(gradients[:steps], start=1):
        mean = averaged(g, weights)["table"]
        for row in np.flatnonzero(np.any(mean != 0, axis=1)):
            m[row] = b1 * m[row] + (1 - b1) * mean[row]
            v[row] = b2 * v[row] + (1 - b2) * mean[row] ** 2
            x[row] -= learning_rate * (m[row] / (1 - b1**t)) / (np.sqrt(v[row] / (1 - b2**t)) + eps)
    return x


@pytest.mark.usefixtures("x64")
def test_lazy_rows_stay_where_they_are():
    weights = [0.5, 0.5]
    gradients = [pushes(seed, 2, share=0.3) for seed in range(6)]
    lazy = average_touched_rows(optax.adam(0.1), IS_TABLE, lazy=True)
    eager = average_touched_rows(optax.adam(0.1), IS_TABLE)
    params, others = zeros(), zeros()
    state, other_state = lazy.init(params), eager.init(params)
    some_stayed = False
    for step, g in enumerate(gradients, start=1):
        updates, state = commit_of(lazy, state, g, weights)
        other_updates, other_state = commit_of(eager, other_state, g, weights)
        params = optax.apply_updates(params, updates)
        others = optax.apply_updates(others, other_updates)
        np.testing.assert_allclose(
            params["table"], sparse_adam(gradients, weights, step), rtol=1e-10, atol=1e-12
        )
        absent = ~np.any(g["table"] != 0, axis=(0, 2))
        assert not np.any(np.asarray(updates["table"])[absent])
        some_stayed |= step > 1 and bool(np.any(np.asarray(other_updates["table"])[absent]))
        # Other parameters are not concerned.
        np.testing.assert_array_equal(params["dense"], others["dense"])
    assert some_stayed  # momentum would have moved them


def test_an_arrival_without_weight_touches_nothing():
    tx = average_touched_rows(optax.sgd(1.0), IS_TABLE)
    broken = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), zeros())
    _, state = tx.update(broken, tx.init(zeros()), zeros(), commit=False, weight=0.0)
    ones = jax.tree.map(jnp.ones_like, zeros())
    updates, _ = tx.update(ones, state, zeros(), commit=True, weight=0.25)
    np.testing.assert_array_equal(updates["table"], -1.0)
    np.testing.assert_array_equal(updates["dense"], -0.25)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.usefixtures("strict_dtypes")
def test_states_are_a_fixed_point_under_scan(dtype, lazy):
    tx = average_touched_rows(optax.sgd(0.5, momentum=0.5), IS_TABLE, lazy)
    gradients = jax.tree.map(lambda g: jnp.asarray(g, dtype), pushes(0, 6))
    commits, params = jnp.arange(6) % 3 == 2, zeros(dtype)

    def step(state, given):
        g, commit = given
        updates, state = tx.update(g, state, params, commit=commit, weight=jnp.float32(1 / 3))
        return state, updates

    state, scanned = jax.lax.scan(step, tx.init(params), (gradients, commits))
    assert jax.eval_shape(tx.init, params) == jax.eval_shape(lambda: state)
    assert {leaf.dtype for leaf in jax.tree.leaves(scanned)} == {jnp.dtype(dtype)}
    looped = tx.init(params)
    for i in range(6):
        looped, updates = step(looped, (arrival(gradients, i), commits[i]))
        assert_close(updates, arrival(scanned, i), rtol=2e-2, atol=1e-3)


def test_tables_by_path_or_by_mask_are_the_same():
    nested = {"tables": {"user": jnp.ones((3, 2)), "item": jnp.ones(4)}, "bias": jnp.ones(2)}
    by_path = average_touched_rows(optax.sgd(1.0), lambda path: path.startswith("tables/"))
    by_mask = average_touched_rows(optax.sgd(1.0), {"tables": True, "bias": False})
    weights = [tx.init(nested).row_weights for tx in (by_path, by_mask)]
    assert jax.tree.structure(weights[0]) == jax.tree.structure(weights[1])
    shapes = jax.tree.map(jnp.shape, weights[1])
    assert shapes == {"tables": {"user": (3,), "item": (4,)}, "bias": None}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"is_table": lambda path: False}, ValueError, "is_table marks none of the parameters"),
        ({"is_table": {"table": 1, "dense": False}}, TypeError, "is_table must say True or False"),
        (
            {"is_table": {"table": True}},
            ValueError,
            "is_table must be a pytree of booleans like the parameters dense, table, or a prefix",
        ),
        ({"is_table": lambda path: None}, TypeError, "is_table must say True or False"),
        ({"is_table": IS_TABLE, "lazy": 1}, TypeError, "lazy must be True or False, got 1"),
        ({"inner": "adam", "is_table": IS_TABLE}, TypeError, "inner must be a gradient transform"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message) as refused:
        average_touched_rows(**({"inner": optax.sgd(1.0)} | arguments)).init(zeros())
    assert "\n" not in str(refused.value)


def test_bad_tables_and_calls():
    tx = average_touched_rows(optax.sgd(1.0), is_table=True)
    with pytest.raises(ValueError, match="a table has rows, but bias is a scalar"):
        tx.init({"bias": jnp.zeros([])})
    factored = average_touched_rows(
        optax.scale_by_factored_rms(min_dim_size_to_factor=2), True, True
    )
    with pytest.raises(ValueError, match="lazy needs one row of state for each of a table's 5"):
        factored.init(jnp.zeros((5, 4)))
    state = tx.init(jnp.zeros(2))
    for arguments in ({"commit": True}, {"weight": 1.0}):
        with pytest.raises(TypeError, match="commit and weight go together"):
            tx.update(jnp.zeros(2), state, **arguments)
