"""What may not run under a protocol that gathers arrivals, and where it is refused."""

import jax
import jax.numpy as jnp
import optax
import pytest

import async_optax as ao
from async_optax import transforms

PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.ones(2)}
GROUPS = {"w": "ours", "b": "plain"}
ours = ao.optimizers.sgd(0.1)

FITTING = {
    "method": ours,
    "behind a chain": optax.chain(optax.masked(optax.clip(1.0), {"w": True, "b": False}), ours),
    "all groups gather": optax.partition({"ours": ours, "plain": ours}, GROUPS),
    "skipping inside": transforms.accumulate_until_commit(optax.apply_if_finite(optax.sgd(0.1), 2)),
    "flattened": optax.flatten(ours),
    "injected": optax.inject_hyperparams(ao.optimizers.sgd)(0.1),
}
UNFIT = {
    "optax alone": (optax.adam(0.1), "applies each at once: wrap its server part"),
    "a plain group": (
        optax.partition({"ours": ours, "plain": optax.sgd(0.1)}, GROUPS),
        r"applies each at once to params\['b'\]: every group",
    ),
    "a masked part": (optax.masked(ours, {"w": False, "b": True}), r"params\['w'\]"),
    "skipping outside": (
        optax.apply_if_finite(ours, 2),
        r"optax.apply_if_finite around accumulate_until_commit may lose a commit",
    ),
    "several steps": (
        optax.MultiSteps(ours, 2).gradient_transformation(),
        r"use accumulate_until_commit\(optax.MultiSteps\(server, k\).gradient_transformation",
    ),
}


@pytest.mark.parametrize("name", FITTING)
def test_gathering_optimizers_pass(name):
    transforms.require_gathering(FITTING[name].init(PARAMS), PARAMS)


@pytest.mark.parametrize("name", UNFIT)
def test_others_are_refused_before_anything_runs(name):
    tx, message = UNFIT[name]
    problem = ao.Problem(
        init=lambda key: PARAMS,
        loss=lambda p, batch, key: jnp.sum(p["w"]) + jnp.sum(p["b"]),
        batch=lambda key, worker: 0,
    )
    timeline = ao.simulate_timeline(
        ao.protocols.buffered(2), ao.runtimes.deterministic([1.0, 1.0]), 2, num_commits=4
    )
    with pytest.raises(ValueError, match=message):
        ao.simulate(problem, tx, timeline, key=jax.random.key(0))
    tracked = transforms.track_staleness(tx, num_workers=2)
    with pytest.raises(ValueError, match=message):
        tracked.update(PARAMS, tracked.init(PARAMS), PARAMS, worker=0, commit=True, weight=1.0)
