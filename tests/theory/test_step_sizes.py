"""Learning rates and numbers of workers for timelines, protocols and curvatures."""

import numpy as np
import pytest

from async_optax import Timeline, protocols, runtimes, simulate_timeline, theory

EQUAL, GAMMA = runtimes.deterministic(), runtimes.gamma(cv=0.5)


def test_constant_staleness_gives_the_exact_step_sizes():
    timeline = simulate_timeline(protocols.asynchronous(), EQUAL, 8, num_commits=3000)
    sizes = theory.step_sizes(timeline, curvature=4.0)
    assert sizes.largest == pytest.approx(theory.stability_limit(7) / 4, rel=0.005)
    assert sizes.largest_in_mean == pytest.approx(theory.stability_limit(7) / 4, rel=1e-9)
    assert sizes.best == pytest.approx(theory.best_step(7) / 4, rel=0.02)
    assert sizes.radius == pytest.approx(7 / 8, abs=0.003)
    assert sizes.commits_per_time == pytest.approx(8, rel=0.01)
    assert sizes.rate == pytest.approx(-8 * np.log(7 / 8), rel=0.03)
    assert (sizes.max_staleness, sizes.gradients_per_commit) == (7, 1)
    assert sizes.mean_staleness == pytest.approx(7, abs=0.01)
    np.testing.assert_allclose(sizes.kernel, theory.constant_kernel(7))
    with_momentum = theory.step_sizes(timeline, 4.0, momentum=0.9)
    assert with_momentum.largest == pytest.approx(theory.stability_limit(7, 0.9) / 4, rel=0.01)


def test_the_best_rate_for_a_range_balances_its_ends():
    timeline = simulate_timeline(protocols.asynchronous(), EQUAL, 4, num_commits=2000)
    sizes = theory.step_sizes(timeline, 1.0, smallest_curvature=0.1)
    rates = np.geomspace(0.01, 0.44, 2000)
    slower = theory.spectral_radius(rates[:, None] * [0.1, 1.0], 3).max(axis=1)
    assert sizes.best == pytest.approx(rates[slower.argmin()], rel=0.03)
    assert sizes.radius == pytest.approx(slower.min(), abs=0.001)


@pytest.mark.parametrize(
    "protocol",
    [protocols.synchronous(), protocols.buffered(3), protocols.ringmaster(4), protocols.rennala(5)],
    ids=lambda protocol: protocol.name,
)
def test_a_mode_converges_below_the_largest_rate_and_not_above(protocol):
    sizes = theory.step_sizes_for(protocol, GAMMA, 8, 2.0, num_commits=1500, seed=2)
    timeline = simulate_timeline(protocol, GAMMA, 8, num_commits=1500, seed=2)
    growth = theory.replayed_growth(timeline, 2.0 * sizes.largest * np.array([0.97, 1.03]))
    assert growth[0] < 0 < growth[1]
    assert sizes.best < sizes.largest
    accepted = np.count_nonzero(timeline.accepted & (timeline.version < 1500))
    assert sizes.gradients_per_commit == accepted / 1500
    assert sizes.commits_per_time == 1500 / timeline.commit_times[-1]
    best = theory.replayed_growth(timeline, [2.0 * sizes.best])[0]
    assert sizes.rate == pytest.approx(-best * sizes.commits_per_time)
    if protocol.name in ("synchronous", "rennala(5)"):
        assert sizes.largest == pytest.approx(1.0, rel=0.01)


def test_more_curvature_asks_for_smaller_rates_in_proportion():
    sizes = [
        theory.step_sizes_for(protocols.asynchronous(), GAMMA, 4, h, num_commits=800)
        for h in (0.5, 5.0)
    ]
    assert sizes[0].largest == pytest.approx(10 * sizes[1].largest)
    assert sizes[0].best == pytest.approx(10 * sizes[1].best)
    assert sizes[0].rate == pytest.approx(sizes[1].rate)


def test_the_best_number_of_workers_has_the_known_values():
    best = theory.best_num_workers(0.1, [0.1, 1.0], model="continuum")
    assert best.num_workers == 13
    assert best.cap == pytest.approx(16.7, abs=0.05)
    best = theory.best_num_workers(0.05, [0.1, 1.0], model="continuum")
    assert best.num_workers == 26
    assert best.cap == pytest.approx(32.4, abs=0.05)
    one_mode = theory.best_num_workers(0.01, 1.0, model="continuum")
    assert one_mode.num_workers == pytest.approx(1 + 1 / (np.e * 0.01), abs=1)
    assert theory.best_num_workers(0.1, [0.1, 1.0], max_workers=5).num_workers == 5


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5, 1.2])
def test_the_cap_is_where_the_stiffest_mode_diverges(rate):
    best = theory.best_num_workers(rate, [0.3, 1.0])
    inside, outside = int(best.cap), int(best.cap) + 1
    rates = theory.worker_rates(rate, [0.3, 1.0], [inside, outside])
    assert rates[0] > 0 > rates[1]
    everyone = theory.worker_rates(rate, [0.3, 1.0], np.arange(1, inside + 1))
    assert best.rate == everyone.max() == everyone[best.num_workers - 1]


def test_rates_are_the_slowest_mode_in_wall_clock_time():
    workers = np.array([1, 3, 6])
    modes = [0.2, 0.5, 1.0]
    expected = [
        min(-np.log(theory.spectral_radius(0.15 * h, m - 1)) * m / 2.5 for h in modes)
        for m in workers.tolist()
    ]
    rates = theory.worker_rates(0.15, modes, workers, mean_time=2.5)
    np.testing.assert_allclose(rates, expected)
    simulated = theory.simulated_worker_rates(
        protocols.asynchronous(), runtimes.deterministic(2.5), 0.15, modes, [1, 3, 6]
    )
    np.testing.assert_allclose(simulated, expected, rtol=0.03)


SHORT = Timeline.from_staleness([0, 1, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("step_sizes(SHORT, -1.0)", "curvature must be a finite number > 0, got -1.0"),
        ("step_sizes(SHORT, float('inf'))", "curvature must be a finite number > 0, got inf"),
        ("step_sizes(SHORT, 1.0)", "timeline must have at least 24 commits, got 3"),
        (
            "step_sizes(SHORT, 1.0, smallest_curvature=2.0)",
            "smallest_curvature must be a finite number > 0 and <= 1.0, got 2.0",
        ),
        ("step_sizes(SHORT, 1.0, momentum=1.0)", "momentum must be a finite number"),
        ("step_sizes_for(ASYNC, EQUAL, 0, 1.0)", "num_workers must be an integer >= 1, got 0"),
        ("step_sizes_for(ASYNC, EQUAL, 2, 1.0, seed=-1)", "seed must be an integer >= 0, got -1"),
        ("worker_rates(0.0, 1.0, [1])", "learning_rate must be a finite number > 0, got 0.0"),
        ("worker_rates(0.1, [1.0, -1.0], [1])", "curvatures must be a finite number > 0"),
        ("worker_rates(0.1, 1.0, [0])", "num_workers must be a finite number >= 1"),
        ("worker_rates(0.1, 1.0, [1], model='exact')", "model must be one of discrete, continuum"),
        ("best_num_workers(2.5, 1.0)", "learning_rate must be < 2, above which even one worker"),
        ("best_num_workers(0.1, 1.0, max_workers=0)", "max_workers must be an integer >= 1, got 0"),
    ],
)
def test_bad_values_raise(call, message):
    with pytest.raises(ValueError, match=message) as raised:
        eval("theory." + call, {"theory": theory, **globals()})
    assert "\n" not in str(raised.value)


ASYNC = protocols.asynchronous()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("step_sizes([0, 1], 1.0)", r"timeline must be an async_optax.Timeline, got list"),
        ("step_sizes_for('asynchronous', EQUAL, 2, 1.0)", "protocol must be a protocol"),
        ("worker_rates(0.1, 1.0, [1.5])", "num_workers must be one row of integers >= 1"),
        ("worker_rates(0.1, 1.0, 3)", "num_workers must be one row of integers >= 1, got 3"),
    ],
)
def test_bad_types_raise(call, message):
    with pytest.raises(TypeError, match=message):
        eval("theory." + call)
