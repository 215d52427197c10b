"""Workers that keep parameters of their own: AD-PSGD, EASGD and EAMSGD, against NumPy loops."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import async_optax as ao
from async_optax import transforms
from async_optax.engine.gossip import elastic_steps
from tests.engine.problems import make_timeline, quadratic_problem, softmax_problem
from tests.oracles.own_copies import replay_ad_psgd, replay_elastic
from tests.oracles.replay import SoftmaxRegression

NUM_WORKERS, KEY = 4, jax.random.key(5)
MODEL, NOISE = SoftmaxRegression(), ao.noise.gaussian(0.1)
X0 = np.linspace(-1.0, 1.0, MODEL.size)
TIMELINE = make_timeline(80, num_workers=NUM_WORKERS)
RING = ao.topologies.ring(NUM_WORKERS)
PATH = np.eye(4, k=1)  # links count both ways


def numpy_noise(key):
    return np.asarray(NOISE(key, jnp.zeros(MODEL.size)))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("graph", "active", "momentum"),
    [(RING, None, None), (RING, None, 0.8), (PATH, [True, False, True, False], None)],
)
def test_ad_psgd_is_its_loop(graph, active, momentum):
    partners = transforms.partner_sequence(graph, TIMELINE.worker, active=active, seed=3)
    stacks, losses = replay_ad_psgd(
        MODEL, TIMELINE, KEY, X0, 0.4, partners, momentum or 0.0, numpy_noise
    )
    result = ao.simulate(
        ao.gossip.problem(softmax_problem(MODEL, NOISE), NUM_WORKERS),
        ao.optimizers.ad_psgd(0.4, graph, momentum, active=active, seed=3),
        TIMELINE,
        key=KEY,
        worker=ao.gossip.agent_gradient(),
        lanes=1,
        evaluate_every=1,
    )
    np.testing.assert_allclose(result.params, stacks[-1], rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.arrivals["loss"], losses, rtol=0, atol=1e-12)
    mean = stacks.mean(axis=1)
    norms = np.linalg.norm(mean, axis=1)
    np.testing.assert_allclose(result.evaluations["norm"], norms, rtol=0, atol=1e-12)
    apart = np.sqrt(((stacks - mean[:, np.newaxis]) ** 2).sum(axis=2).mean(axis=1))
    distance = result.evaluations["consensus_distance"]
    np.testing.assert_allclose(distance, apart, rtol=0, atol=1e-12)
    assert np.linalg.norm(mean[-1] - X0) > 0.1
    assert distance[-1] > 0.01


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("momentum", "order", "num_workers", "protocol"),
    [
        (None, "exchange_first", 4, ao.protocols.asynchronous()),
        (None, "step_first", 4, ao.protocols.asynchronous()),
        (0.8, "exchange_first", 4, ao.protocols.round_robin()),
        (0.8, "step_first", 4, ao.protocols.asynchronous()),
        (0.8, "step_first", 1, ao.protocols.asynchronous()),
    ],
)
def test_elastic_averaging_is_its_loop(momentum, order, num_workers, protocol):
    timeline = make_timeline(60, protocol, num_workers=num_workers)

    def rate(step):
        return 0.3 / (1 + 0.1 * step)

    centres, distances, losses = replay_elastic(
        MODEL,
        timeline,
        KEY,
        X0,
        rate,
        moving_rate=0.2,
        num_steps=3,
        momentum=momentum or 0.0,
        step_first=order == "step_first",
        noise=numpy_noise,
    )
    optimizer = (
        ao.optimizers.easgd(rate, 0.2, order)
        if momentum is None
        else ao.optimizers.eamsgd(rate, 0.2, momentum, order)
    )
    result = ao.simulate(
        softmax_problem(MODEL, NOISE),
        optimizer,
        timeline,
        key=KEY,
        worker=ao.gossip.elastic_steps(3),
        lanes=1,
        evaluate_every=1,
        record={"distance": ao.gossip.distance_to_centre},
    )
    np.testing.assert_allclose(result.params, centres[-1], rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.arrivals["loss"], losses, rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.arrivals["distance"], distances, rtol=0, atol=1e-12)
    norms = np.linalg.norm(centres, axis=1)
    np.testing.assert_allclose(result.evaluations["norm"], norms, rtol=0, atol=1e-12)
    assert np.linalg.norm(centres[-1] - X0) > 0.1


@pytest.mark.usefixtures("x64")
def test_one_agent_is_a_server_with_one_worker():
    timeline, problem = make_timeline(40, num_workers=1), softmax_problem(MODEL, NOISE)
    options = {"key": KEY, "lanes": 1, "evaluate_every": 1}
    server = ao.simulate(problem, ao.optimizers.sgd(0.4), timeline, **options)
    alone = ao.simulate(
        ao.gossip.problem(problem, 1),
        ao.optimizers.ad_psgd(0.4, ao.topologies.ring(1)),
        timeline,
        worker=ao.gossip.agent_gradient(),
        **options,
    )
    np.testing.assert_allclose(alone.params[0], server.params, rtol=0, atol=1e-14)
    losses = alone.arrivals["loss"], server.arrivals["loss"]
    np.testing.assert_allclose(*losses, rtol=0, atol=1e-14)


@pytest.mark.usefixtures("x64")
def test_without_moving_rate_the_centre_stays_and_workers_train_alone():
    result = ao.simulate(
        softmax_problem(MODEL),
        ao.optimizers.easgd(0.4, moving_rate=0.0),
        make_timeline(40, num_workers=1),
        key=KEY,
        worker=ao.gossip.elastic_steps(1),
        lanes=1,
    )
    np.testing.assert_array_equal(result.params, jnp.linspace(-1.0, 1.0, MODEL.size))
    server = ao.simulate(
        softmax_problem(MODEL),
        ao.optimizers.sgd(0.4),
        make_timeline(40, num_workers=1),
        key=KEY,
        lanes=1,
    )
    losses = result.arrivals["loss"], server.arrivals["loss"]
    np.testing.assert_allclose(*losses, rtol=0, atol=1e-14)


@pytest.mark.usefixtures("x64")
def test_momentum_zero_is_easgd():
    plain, zero = (
        ao.simulate(
            softmax_problem(MODEL), optimizer, TIMELINE, key=KEY, worker=elastic_steps(2), lanes=1
        )
        for optimizer in (ao.optimizers.easgd(0.3, 0.2), ao.optimizers.eamsgd(0.3, 0.2, 0.0))
    )
    np.testing.assert_allclose(plain.params, zero.params, rtol=0, atol=1e-14)


def test_local_steps_of_agents():
    """Gossip between two averagings of agents that take several steps."""
    result = ao.simulate(
        ao.gossip.problem(quadratic_problem(), NUM_WORKERS),
        ao.optimizers.ad_psgd(0.1, RING),
        TIMELINE,
        key=KEY,
        worker=ao.gossip.one_agent(ao.local_steps(3, optax.sgd(0.1), 0.1)),
        lanes=1,
        evaluate_every=40,
    )
    distance = result.evaluations["distance"]
    assert distance[-1] < 0.2 * distance[0]


AGENTS = ao.gossip.problem(quadratic_problem(), NUM_WORKERS)
AD_PSGD, EASGD = ao.optimizers.ad_psgd(0.1, RING), ao.optimizers.easgd(0.1, 0.2)


@pytest.mark.parametrize(
    ("problem", "optimizer", "worker", "timeline", "message"),
    [
        (AGENTS, ao.optimizers.ad_psgd(0.1, ao.topologies.ring(5)), None, None, "axis of 5 agents"),
        (quadratic_problem(), AD_PSGD, None, None, "axis of 4 agents, got shape"),
        (
            AGENTS,
            AD_PSGD,
            None,
            make_timeline(20, num_workers=6),
            "one worker per agent, 4, got 6",
        ),
        (AGENTS, AD_PSGD, None, make_timeline(20, num_workers=3), "one worker per agent, 4, got 3"),
        (
            quadratic_problem(),
            EASGD,
            elastic_steps(2),
            make_timeline(20, ao.protocols.asynchronous("uniform"), num_workers=4),
            "but what its last arrival made is version",
        ),
        (AGENTS, AD_PSGD, ao.gradient(), None, r"worker program must be ao.gossip.agent_gradient"),
        (AGENTS, AD_PSGD, ao.gossip.gradients(), None, "needs worker=ao.gossip.agent_gradient"),
        (AGENTS, AD_PSGD, elastic_steps(2), None, "elastic_steps needs an optimizer that serves"),
        (
            ao.gossip.problem(quadratic_problem(), NUM_WORKERS, starts="own"),
            AD_PSGD,
            None,
            None,
            "agents must start at equal parameters",
        ),
        (
            quadratic_problem(),
            EASGD,
            ao.gradient(),
            None,
            "program must be ao.gossip.elastic_steps",
        ),
        (
            quadratic_problem(),
            optax.chain(optax.chain(optax.clip(1.0), EASGD)),
            elastic_steps(2),
            None,
            "give it to the worker program, ao.gossip.elastic_steps",
        ),
        (quadratic_problem(), ao.optimizers.sgd(0.1), elastic_steps(2), None, "easgd or eamsgd"),
        (AGENTS, AD_PSGD, None, make_timeline(20, ao.protocols.synchronous()), "commit"),
        (
            quadratic_problem(),
            EASGD,
            elastic_steps(2),
            make_timeline(20, ao.protocols.buffered(2)),
            "commit",
        ),
    ],
)
def test_what_does_not_fit_is_refused(problem, optimizer, worker, timeline, message):
    with pytest.raises(ValueError, match=message) as refused:
        ao.simulate(
            problem,
            optimizer,
            timeline or TIMELINE,
            key=KEY,
            worker=worker or ao.gossip.agent_gradient(),
            lanes=1,
        )
    assert "\n" not in str(refused.value)


def test_workers_may_take_turns():
    timeline = make_timeline(40, ao.protocols.round_robin(), num_workers=NUM_WORKERS)
    result = ao.simulate(
        quadratic_problem(), EASGD, timeline, key=KEY, worker=elastic_steps(2), lanes=1
    )
    assert result.diverged is None
    assert result.arrivals["loss"][-1] < result.arrivals["loss"][0]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: elastic_steps(0), ValueError, "num_steps must be an integer >= 1, got 0"),
        (lambda: elastic_steps(1.5), TypeError, "num_steps must be an integer"),
        (lambda: ao.gossip.one_agent(3), TypeError, "program must be a worker program"),
        (
            lambda: ao.gossip.one_agent(ao.local_steps(2, optax.adam(0.1), 0.1, keep_state=True)),
            TypeError,
            "must keep no state",
        ),
    ],
)
def test_bad_programs(make, error, message):
    with pytest.raises(error, match=message):
        make()
