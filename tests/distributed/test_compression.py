"""Compression against the formula, and what travels."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import async_optax as ao
from async_optax.distributed import compressed
from async_optax.distributed.packing import pack, unpack

KEY = jax.random.key(0)
PROBLEM = ao.Problem(
    init=lambda key: {"a": jnp.zeros((3, 2)), "b": jnp.zeros(5)},
    loss=lambda x, batch, key: sum(jnp.sum(x[k] * batch[k]) for k in x),
    batch=lambda key, worker: {
        "a": jax.random.normal(key, (3, 2)),
        "b": 2 * jax.random.normal(key, (5,)),
    },
)


def by_hand(kind, amount, x):
    if kind == "bfloat16":
        return x.astype(ml_dtypes.bfloat16).astype(x.dtype)
    if kind == "threshold":
        return np.where(np.abs(x) >= amount, x, 0.0)
    count = int(np.ceil(amount * x.size))
    return np.where(np.abs(x) >= np.sort(np.abs(x))[-count], x, 0.0)


@pytest.mark.parametrize("error_feedback", [True, False])
@pytest.mark.parametrize(("kind", "amount"), [("bfloat16", None), ("top", 0.2), ("threshold", 1.5)])
def test_what_is_sent_and_owed(kind, amount, error_feedback, x64):
    program = compressed(kind=kind, amount=amount, error_feedback=error_feedback)
    compute = jax.jit(lambda params, key, state: program(PROBLEM, params, 0, key, state))
    params = PROBLEM.init(KEY)
    state, owed = program.init(PROBLEM, params), np.zeros(11)
    for job in range(6):
        key = jax.random.fold_in(KEY, job)
        gradient, _ = ao.gradient()(PROBLEM, params, 0, key)
        whole = np.concatenate([np.ravel(gradient["a"]), gradient["b"]]) + owed
        update, _, state = compute(params, key, state)
        sent = np.concatenate([np.ravel(update["a"]), update["b"]])
        np.testing.assert_array_equal(sent, by_hand(kind, amount, whole))
        owed = whole - sent if error_feedback else owed
        leaves = [np.asarray(update["a"]), np.asarray(update["b"])]
        packed = pack(program.packed_as, leaves)
        for one, two in zip(unpack(packed), leaves, strict=True):
            np.testing.assert_array_equal(one, two)
            assert (one.dtype, one.shape) == (two.dtype, two.shape)
        if kind == "top":
            assert sum(len(array.places) for array in packed) == 3
    assert (np.abs(owed).max() > 0) == error_feedback
