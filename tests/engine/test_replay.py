"""The engine against an independent NumPy replay, and against itself with other lanes."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import async_optax as ao
from tests.conformance.cases import promotion
from tests.engine.problems import softmax_problem
from tests.oracles.replay import SoftmaxRegression, replay
from tests.oracles.rules import AsyncHeavyTailed, Sgd
from tests.oracles.table import CASES

pytestmark = pytest.mark.usefixtures("strict_dtypes")

OPTIONS = CASES["async_heavy_tailed"][1]
HEAVY_TAILED = {}
for _clipping in ("coordinate", "global_norm", "none"):
    for _order in ("clip_first", "compensate_first"):
        for _clip_at in ("arrival", "commit", "both"):
            _options = OPTIONS | {"clipping": _clipping, "order": _order, "clip_at": _clip_at}
            if _clipping == "coordinate":
                _options["lower"] = 0.05
            HEAVY_TAILED[f"{_clipping}-{_order}-{_clip_at}"] = (
                "async_heavy_tailed",
                _options | {"weight_fn": ao.weights.polynomial(0.5)},
                AsyncHeavyTailed,
                _options | {"power": 0.5},
            )

PROTOCOLS = {
    "asynchronous": ao.protocols.asynchronous(),
    "buffered_wait": ao.protocols.buffered(3, wait=True),
    "buffered_no_wait": ao.protocols.buffered(3, wait=False),
    "synchronous": ao.protocols.synchronous(),
    "backup": ao.protocols.synchronous(backup=2),
    "uniform": ao.protocols.asynchronous("uniform", concurrency=8),
    "bounded_staleness": ao.protocols.bounded_staleness(2),
    "rennala": ao.protocols.rennala(3),
    "rennala_no_stop": ao.protocols.rennala(3, stop=False),
    "ringmaster": ao.protocols.ringmaster(2),
    "ringmaster_stop": ao.protocols.ringmaster(3, stop=True),
    "mindflayer": ao.protocols.mindflayer(2.0, batch_size=4),
    "token_control": ao.protocols.token_control(3, tolerance=1),
    "round_robin": ao.protocols.round_robin(),
    "switching": ao.protocols.switching(
        [
            (3.0, ao.protocols.synchronous()),
            (6.0, ao.protocols.token_control(5, tolerance=1)),
            (None, ao.protocols.synchronous()),
        ]
    ),
}

WAITING = ("asynchronous", "buffered_wait", "buffered_no_wait", "synchronous")


def make_timeline(protocol, num_commits=30, num_workers=5, seed=1):
    runtimes = ao.runtimes.two_speed(4.0, law=ao.runtimes.gamma(cv=0.5))
    return ao.simulate_timeline(protocol, runtimes, num_workers, num_commits=num_commits, seed=seed)


def test_every_registered_method_has_an_oracle():
    assert {method for method, *_ in CASES.values()} == set(ao.optimizers.names())


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("case", "protocol"),
    # Every arrival commits, or several are gathered: more protocols are for one method.
    [
        (case, protocol)
        for case, protocol in itertools.product(CASES, PROTOCOLS)
        if protocol in ("asynchronous", "buffered_no_wait") or case == "clipped_sgd"
    ],
)
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


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("optimizer", "protocol", "lanes"),
    [
        *[("clipped", protocol, 3) for protocol in PROTOCOLS],
        *[("clipped", protocol, lanes) for protocol in WAITING for lanes in (2, 8)],
        *[
            (optimizer, protocol, 3)
            for optimizer in ("looking ahead", "exact")
            for protocol in ("asynchronous", "buffered_no_wait")
        ],
    ],
)
def test_waves_equal_one_at_a_time(optimizer, protocol, lanes):
    model, timeline = SoftmaxRegression(), make_timeline(PROTOCOLS[protocol], num_commits=60)
    optimizer = {
        "clipped": lambda: ao.optimizers.async_heavy_tailed(0.7, threshold=0.2),
        "looking ahead": lambda: ao.optimizers.smega2(0.02, num_workers=5, momentum=0.5),
        "exact": lambda: optax.chain(
            ao.transforms.clip_by_global_norm(0.5),
            ao.transforms.compensate_delay_exact(),
            ao.transforms.accumulate_until_commit(optax.sgd(0.1)),
        ),
    }[optimizer]()

    def run(lanes):
        return ao.simulate(
            softmax_problem(model, ao.noise.alpha_stable(1.5, 0.05)),
            optimizer,
            timeline,
            key=jax.random.key(3),
            lanes=lanes,
            record=("gap", "gradient_norm", "update_norm"),
            evaluate_every=7,
        )

    single, wide = run(1), run(lanes)
    assert wide.lanes.lanes == lanes
    np.testing.assert_allclose(wide.params, single.params, rtol=0, atol=1e-14)
    for table in ("arrivals", "evaluations"):
        for name, column in getattr(single, table).items():
            np.testing.assert_allclose(
                getattr(wide, table)[name], column, rtol=1e-13, atol=1e-14, err_msg=name
            )


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
