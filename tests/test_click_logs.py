"""The generator of click logs, its model and its measure, against NumPy and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

import async_optax as ao
from async_optax.problems import (
    auc,
    click_logs,
    click_loss,
    deep_fm_logits,
    ideal_auc,
    init_deep_fm,
)

SMALL = {"num_users": 50, "num_items": 20, "num_days": 2, "test_size": 300, "dimension": 3}


@settings(max_examples=30)
@given(
    scored=st.lists(
        st.tuples(st.sampled_from([-1.5, 0.0, 0.25, 0.5, 3.0]), st.booleans()),
        min_size=25,
        max_size=25,
    ).filter(lambda rows: len({label for _, label in rows}) == 2)
)
def test_auc_with_ties_equals_scikit_learn(scored):
    scores, labels = (np.array(column) for column in zip(*scored, strict=True))
    expected = roc_auc_score(labels, scores)
    assert float(jax.jit(auc)(scores, labels)) == pytest.approx(expected, abs=1e-6)


def test_auc_of_many_scores_is_exact():
    rng = np.random.default_rng(0)
    labels = rng.random(300_000) < 0.4
    scores = rng.normal(size=300_000).astype(np.float32) + 0.3 * labels
    expected = roc_auc_score(labels, scores)
    assert float(jax.jit(auc)(scores, labels)) == pytest.approx(expected, abs=1.5e-7)


def test_auc_without_pairs_and_of_bad_input():
    assert jnp.isnan(auc(jnp.arange(3.0), jnp.ones(3)))
    assert jnp.isnan(auc(jnp.arange(3.0), jnp.zeros(3)))
    assert jnp.isnan(auc(jnp.array([0.1, jnp.nan, 0.3]), jnp.array([0, 1, 1])))
    with pytest.raises(ValueError, match=r"scores and labels must be vectors alike, got \(2,\)"):
        auc(jnp.ones(2), jnp.ones(3))
    with pytest.raises(ValueError, match="scores must be at most 1048576, got 1048577"):
        auc(jnp.ones(2**20 + 1), jnp.ones(2**20 + 1))


@pytest.mark.usefixtures("x64")
def test_the_model_equals_numpy():
    sizes = {"user": 6, "item": 4, "hour": 3}
    shapes = jax.eval_shape(lambda: init_deep_fm(jax.random.key(0), sizes, 3, [5, 4]))
    leaves, treedef = jax.tree.flatten(shapes)
    rng = np.random.default_rng(0)
    params = jax.tree.unflatten(treedef, [rng.normal(size=leaf.shape) for leaf in leaves])
    ids = {field: rng.integers(0, size, 7) for field, size in sizes.items()}
    expected = []
    for example in range(7):
        rows = [params["tables"][field][ids[field][example]] for field in sorted(sizes)]
        logit = sum(row[0] for row in rows)
        for i in range(3):
            for j in range(i):
                logit += rows[i][1:] @ rows[j][1:]
        x = np.concatenate([row[1:] for row in rows])
        for place, layer in enumerate(params["dense"]):
            x = x @ layer["kernel"] + layer["bias"]
            if place < 2:
                x = np.maximum(x, 0)
        expected.append(logit + x[0])
    ours = deep_fm_logits(jax.tree.map(jnp.asarray, params), jax.tree.map(jnp.asarray, ids))
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


def clicks_of(problem, day, number=40):
    keys = jax.random.split(jax.random.key(1), number)
    drawn = jax.jit(jax.vmap(lambda key: problem.batch(key, 0, day=day)))(keys)
    return jax.tree.map(lambda x: np.asarray(x).ravel(), drawn)


def test_ids_follow_the_power_law():
    problem = click_logs(50, 20, batch_size=1000, exponent=1.2, num_days=1, test_size=10)
    clicks = clicks_of(problem, 0.0)
    for field, size in (("user", 50), ("item", 20)):
        shares = np.arange(1.0, size + 1) ** -1.2
        shares /= shares.sum()
        counts = np.bincount(clicks.ids[field], minlength=size)
        assert counts.size == size
        error = (counts - 40_000 * shares) / np.sqrt(40_000 * shares)
        assert np.abs(error).max() < 4.5
    assert set(clicks.ids["hour"]) == set(range(24))
    # Batches, of which the first draws the same however many there are, differ.
    assert 0.05 < clicks.clicked.mean() < 0.5


def test_clicks_follow_interests_that_drift():
    """The true probabilities, computed here, are calibrated on their day and not on another."""
    problem = click_logs(50, 20, batch_size=1000, drift=0.7, num_days=4, test_size=10)
    truth = problem.batch.args[1]
    user, turned = np.asarray(truth.interests)
    clicks = clicks_of(problem, 3.0)

    def probabilities(day):
        p = np.cos(0.7 * day) * user + np.sin(0.7 * day) * turned
        affinity = np.sum(p[clicks.ids["user"]] * np.asarray(truth.topics)[clicks.ids["item"]], 1)
        quality = np.asarray(truth.quality)[clicks.ids["item"]]
        hours = 0.5 * np.sin(2 * np.pi * clicks.ids["hour"] / 24)
        return 1 / (1 + np.exp(2 - quality - hours - affinity))

    def score(p):
        return np.mean(np.log(np.where(clicks.clicked == 1, p, 1 - p)))

    right, wrong = probabilities(3.0), probabilities(0.0)
    np.testing.assert_array_equal(clicks.day, 3.0)
    assert score(right) > score(wrong) + 0.05
    for low in (0.0, 0.1, 0.3):
        some = (right >= low) & (right < low + 0.2)
        assert clicks.clicked[some].mean() == pytest.approx(right[some].mean(), abs=0.02)


def test_without_a_day_the_log_is_shuffled():
    problem = click_logs(50, 20, batch_size=1000, num_days=4, test_size=10)
    clicks = clicks_of(problem, None)
    assert np.histogram(clicks.day, bins=4, range=(0, 4))[0].min() > 9_000
    assert clicks.day.max() <= 4


def test_it_is_a_problem_that_can_be_learnt():
    problem = click_logs(batch_size=64, drift=0.0, **SMALL)
    timeline = ao.simulate_timeline(
        ao.protocols.asynchronous(), ao.runtimes.exponential(), 2, num_commits=1500
    )
    adam = ao.transforms.accumulate_until_commit(optax.adam(0.01))
    result = ao.simulate(
        problem, adam, timeline, key=jax.random.key(0), lanes=1, evaluate_every=1500
    )
    ideal = ideal_auc(problem)
    assert ideal.shape == (3,)
    for day in range(3):
        start, end = result.evaluations[f"auc_day_{day}"]
        assert start < 0.6
        assert ideal[day] - 0.06 < end < ideal[day] + 0.03
        losses = result.evaluations[f"loss_day_{day}"]
        assert losses[1] < losses[0]


@pytest.mark.usefixtures("x64")
def test_in_double_precision_too():
    problem = click_logs(batch_size=4, **SMALL)
    problem.check()
    keys = jax.random.split(jax.random.key(0), 3)
    params = jax.jit(problem.init)(keys[0])
    clicks = jax.jit(problem.batch)(keys[1], 0)
    loss = jax.jit(click_loss)(params, clicks, keys[2])
    assert float(loss) == pytest.approx(np.log(2), abs=0.3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_users": 0}, "num_users must be an integer >= 1, got 0"),
        ({"hidden": (8, 0)}, "hidden must be an integer >= 1, got 0"),
        ({"exponent": -1.0}, "exponent must be a finite number >= 0, got -1"),
        ({"drift": float("nan")}, "drift must be a finite number >= 0, got nan"),
        ({"num_days": 0}, "num_days must be an integer >= 1, got 0"),
        ({"hidden": 32}, r"hidden must be a sequence of widths such as \(32,\), got 32"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        ({"seed": "a"}, "seed must be an integer >= 0, got 'a'"),
        ({"seed": 1.5}, "seed must be an integer >= 0, got 1.5"),
        ({"test_size": 2**20 + 1}, "test_size must be at most 1048576, got 1048577"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        click_logs(**(SMALL | arguments))
