"""Traced indices out of range: reported under checkify, NaN without it."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import checkify

import async_optax as ao
from async_optax import transforms

X = jnp.ones(2)
PER_WORKER = {
    "trace_per_worker": transforms.trace_per_worker(3),
    "trace_with_look_ahead": transforms.trace_with_look_ahead(3, 0.1),
    "compensate_delay_adaptive": transforms.compensate_delay_adaptive(3),
    "scale_by_gap_momentum": transforms.scale_by_gap_momentum(0.5, 0.1, num_workers=3),
    "track_staleness": transforms.track_staleness(ao.optimizers.dc_asgd(0.1), num_workers=3),
}


def update(tx, worker, staleness=0):
    extra = {"worker": worker, "staleness": staleness, "stale_params": 0.5 * X}
    if tx is PER_WORKER["track_staleness"]:
        extra = {"worker": worker}
    return tx.update(X, tx.init(X), X, **extra)[0]


@pytest.mark.parametrize("name", PER_WORKER)
@pytest.mark.parametrize("worker", [-1, 3])
def test_workers_out_of_range(name, worker):
    tx = PER_WORKER[name]
    with pytest.raises(ValueError, match=rf"worker must be in \[0, 3\), got {worker}"):
        update(tx, worker)
    step = jax.jit(checkify.checkify(lambda worker: update(tx, worker)))
    error, _ = step(jnp.int32(worker))
    with pytest.raises(Exception, match=rf"worker must be in \[0, 3\), got {worker}"):
        error.throw()
    error, updates = step(jnp.int32(2))
    error.throw()
    assert jnp.isfinite(updates).all()
    # Without checkify nothing is checked, and nothing of another worker's is used.
    assert jnp.isnan(jax.jit(lambda worker: update(tx, worker))(jnp.int32(worker))).all()


def test_negative_staleness():
    tx = ao.optimizers.staleness_aware_sgd(0.1)
    with pytest.raises(ValueError, match="staleness must be an integer >= 0, got -1"):
        update(tx, 0, -1)
    error, _ = jax.jit(checkify.checkify(lambda tau: update(tx, 0, tau)))(jnp.int32(-1))
    with pytest.raises(Exception, match="staleness must be an integer >= 0, got -1"):
        error.throw()
