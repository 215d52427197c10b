"""The engine against an independent NumPy replay, and against itself with other lanes."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import async_optax as ao
from tests.conformance.cases import promotion
from tests.engine.problems import softmax_problem
from tests.engine.protocols import PROTOCOLS, make_timeline
from tests.oracles.replay import SoftmaxRegression, replay
from tests.oracles.rules import AsyncHeavyTailed, Sgd
from tests.oracles.table import CASES

pytestmark = pytest.mark.usefixtures("strict_dtypes")

OPTIONS = CASES["async_heavy_tailed"][1]
HEAVY_TAILED = {}
_PLACES = ("arrival", "commit", "both")
for _clipping, _order, _clip_at in (
    *itertools.product(("coordinate", "global_norm"), ("clip_first", "compensate_first"), _PLACES),
    ("none", "clip_first", "arrival"),  # no clip: no order, no place
):
    _options = OPTIONS | {"clipping": _clipping, "order": _order, "clip_at": _clip_at}
    if _clipping == "coordinate":
        _options["lower"] = 0.05
    HEAVY_TAILED[f"{_clipping}-{_order}-{_clip_at}"] = (
        "async_heavy_tailed",
        _options | {"weight_fn": ao.weights.polynomial(0.5)},
        AsyncHeavyTailed,
        _options | {"power": 0.5},
    )


def test_every_registered_method_has_an_oracle():
    assert {method for method, *_ in CASES.values()} == set(ao.optimizers.names())


def cases():
    """Every arrival commits, or several are gathered; more protocols are for one method.

    Where a method has several variants, they take turns.
    """
    both = ("asynchronous", "buffered_no_wait")
    for method in ao.optimizers.names():
        variants = [case for case in CASES if CASES[case][0] == method]
        for i, case in enumerate(variants):
            for protocol in both if len(variants) == 1 else (both[i % 2],):
                yield case, protocol
    yield from (("clipped_sgd", protocol) for protocol in PROTOCOLS if protocol not in both)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("case", "protocol"), list(cases()))
def test_engine_equals_numpy_replay(case, protocol):
    assert_replay_agrees(CASES[case], PROTOCOLS[protocol])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", HEAVY_TAILED)
def test_all_options_of_the_heavy_tailed_method(case):
    assert_replay_agrees(HEAVY_TAILED[case], PROTOCOLS["buffered_no_wait"])


def assert_replay_agrees(case, protocol):
    method, arguments, rule, options = case
    model, key, lr = SoftmaxRegression(), jax.random.key(7), 0.7
    noise = ao.noise.gaussian(0.1)
    timeline = make_timeline(protocol)
    x0 = np.linspace(-1.0, 1.0, model.size)
    versions, losses = replay(
        model,
        rule(lr, **options),
        timeline,
        key,
        x0,
        noise=lambda k: np.asarray(noise(k, jnp.zeros(model.size))),
    )
    with promotion(method):
        result = ao.simulate(
            softmax_problem(model, noise),
            ao.optimizers.make(method, learning_rate=lr, **arguments),
            timeline,
            key=key,
            lanes=1,
            evaluate_every=1,
        )
    np.testing.assert_allclose(result.params, versions[-1], rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.arrivals["loss"], losses, rtol=0, atol=1e-12)
    norms = np.linalg.norm(versions, axis=1)
    np.testing.assert_allclose(result.evaluations["norm"], norms, rtol=0, atol=1e-12)
    # The replay must not agree because nothing happens.
    assert np.linalg.norm(versions[-1] - x0) > 0.1


def test_rejected_arrivals_are_pruned():
    timeline = make_timeline(PROTOCOLS["buffered_no_wait"])
    accepted = timeline.accepted.copy()
    rejected = np.flatnonzero(~timeline.commit)[::4]
    accepted[rejected] = False

    pruned = dataclasses.replace(timeline, accepted=accepted)
    with jax.enable_x64(True):
        model, key = SoftmaxRegression(), jax.random.key(7)
        versions, _ = replay(model, Sgd(0.5), pruned, key, np.linspace(-1.0, 1.0, model.size))
        result = ao.simulate(
            softmax_problem(model), ao.optimizers.sgd(0.5), pruned, key=key, lanes=1
        )
        np.testing.assert_allclose(result.params, versions[-1], rtol=0, atol=1e-12)
    assert len(result.arrivals["loss"]) == timeline.num_arrivals - len(rejected)
