"""Traced indices out of range: reported under checkify, NaN without it."""

import jax
import jax.numpy as jnp
import optax
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


def update(name, worker, staleness=0, checked=False):
    tx = PER_WORKER[name]
    extra = {"worker": worker}
    if name != "track_staleness":
        extra |= {"staleness": staleness, "stale_params": 0.5 * X}
    if checked:
        tx = optax.chain(transforms.check_arrival(3), tx)
    return tx.update(X, tx.init(X), X, **extra)[0]


@pytest.mark.parametrize("name", PER_WORKER)
@pytest.mark.parametrize("worker", [-1, 3])
def test_workers_out_of_range(name, worker):
    with pytest.raises(ValueError, match=rf"worker must be in \[0, 3\), got {worker}"):
        update(name, worker)
    step = jax.jit(checkify.checkify(lambda worker: update(name, worker, checked=True)))
    error, _ = step(jnp.int32(worker))
    with pytest.raises(Exception, match=rf"worker must be in \[0, 3\), got {worker}"):
        error.throw()
    error, updates = step(jnp.int32(2))
    error.throw()
    assert jnp.isfinite(updates).all()
    # Without checkify nothing is checked, and nothing of another worker's is used.
    assert jnp.isnan(jax.jit(lambda worker: update(name, worker))(jnp.int32(worker))).all()


def test_negative_staleness():
    tx = ao.optimizers.staleness_aware_sgd(0.1)
    with pytest.raises(ValueError, match="staleness must be an integer >= 0, got -1"):
        tx.update(X, tx.init(X), X, staleness=-1)
    step = checkify.checkify(lambda tau: update("trace_per_worker", 0, tau, checked=True))
    error, _ = jax.jit(step)(jnp.int32(-1))
    with pytest.raises(Exception, match="staleness must be an integer >= 0, got -1"):
        error.throw()


def test_forgotten_checkify_is_loud():
    checked = transforms.check_arrival(3)
    with pytest.raises(ValueError, match="not functionalized"):
        jax.jit(lambda worker: checked.update(X, checked.init(X), worker=worker))(jnp.int32(1))


def test_no_effect_is_left_on_jitted_updates():
    """An effect would take every call off the fast path of dispatch."""
    for name in PER_WORKER:
        closed = jax.make_jaxpr(lambda worker, name=name: update(name, worker))(jnp.int32(1))
        assert not closed.effects
