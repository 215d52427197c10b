"""The embedded problems: shapes, attention against NumPy, and that they can be learnt."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from async_optax.problems import attention, digits


def softmax(x):
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def normalised(norm, x):
    unit = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return unit * norm["scale"] + norm["bias"]


def dense(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def logits(params, image, num_heads):
    """One image, head by head."""
    x = dense(params["embed"], image.reshape(8, 8)) + params["position"]
    for layer in params["layers"]:
        mixed = dense(layer["queries_keys_values"], normalised(layer["attention_norm"], x))
        heads = []
        for head in np.split(mixed, num_heads, axis=1):
            q, k, v = np.split(head, 3, axis=1)
            heads.append(softmax(q @ k.T / np.sqrt(q.shape[1])) @ v)
        x = x + dense(layer["merge"], np.concatenate(heads, axis=1))
        hidden = dense(layer["up"], normalised(layer["perceptron_norm"], x))
        x = x + dense(layer["down"], np.maximum(hidden, 0))
    return dense(params["head"], normalised(params["norm"], x.mean(axis=0)))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("num_layers", "width", "num_heads"), [(1, 16, 2), (2, 12, 3)])
def test_attention_equals_numpy(num_layers, width, num_heads):
    problem = attention(num_layers, width, num_heads, batch_size=5)
    leaves, treedef = jax.tree.flatten(jax.eval_shape(problem.init, jax.random.key(0)))
    rng = np.random.default_rng(0)
    params = jax.tree.unflatten(treedef, [rng.normal(0, 0.5, leaf.shape) for leaf in leaves])
    images, labels = problem.batch(jax.random.key(1), 0)
    rows = [logits(params, np.asarray(image, np.float64), num_heads) for image in images]
    chosen = [row[label] for row, label in zip(map(softmax, rows), labels, strict=True)]
    loss = jax.jit(problem.loss)(params, (images, labels), jax.random.key(2))
    assert float(loss) == pytest.approx(-np.mean(np.log(chosen)), rel=1e-9)


def test_attention_sees_the_batches_of_digits():
    for ours, theirs in zip(
        attention().batch(jax.random.key(3), 0), digits().batch(jax.random.key(3), 0), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "problem", [digits(hidden=(16,)), attention()], ids=["digits", "attention"]
)
def test_a_few_steps_of_adam_learn(problem):
    problem.check()
    optimizer = optax.adam(3e-3)

    def step(carry, key):
        params, state = carry
        batch_key, loss_key = jax.random.split(key)
        gradient = jax.grad(problem.loss)(params, problem.batch(batch_key, 0), loss_key)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    params = jax.jit(problem.init)(jax.random.key(0))
    evaluate = jax.jit(problem.evaluate)
    start = evaluate(params)
    assert float(start["test_loss"]) < 4
    carry = params, optimizer.init(params)
    (params, _), _ = jax.lax.scan(step, carry, jax.random.split(jax.random.key(1), 600))
    end = evaluate(params)
    assert float(end["accuracy"]) > 0.75
    assert all(jnp.isfinite(value) for value in end.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_layers": 0}, "num_layers must be an integer >= 1, got 0"),
        ({"width": 0}, "width must be an integer >= 1, got 0"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
        ({"width": 10, "num_heads": 4}, "width must be a multiple of num_heads=4, got 10"),
    ],
)
def test_bad_sizes(arguments, message):
    with pytest.raises(ValueError, match=message):
        attention(**arguments)
