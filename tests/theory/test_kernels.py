"""Any distribution of staleness: its characteristic equation, and modes replayed on timelines."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from async_optax import Timeline, protocols, runtimes, theory, weights
from async_optax.timelines import simulate_timeline


def largest_modulus(step, kernel, momentum):
    size = max(len(kernel), 2)
    matrix = np.eye(size, k=-1)
    matrix[0, : len(kernel)] -= step * np.asarray(kernel)
    matrix[0, 0] += 1 + momentum
    matrix[0, 1] -= momentum
    return np.abs(np.linalg.eigvals(matrix)).max()


def kernels():
    draws = np.random.Generator(np.random.PCG64(0))
    two = np.zeros(40)
    two[[3, 39]] = 0.8, 0.2
    return {
        "fresh": np.ones(1),
        "sum above one": np.array([0.0, 2.0, 1.0]),
        "spread": draws.dirichlet(np.ones(25)),
        "few": draws.dirichlet(np.full(30, 0.1)),
        "fast and slow": two,
        "poisson": theory.poisson_kernel(6.0),
        "half and half": np.array([0.5, 0.0, 0.0, 0.5]),  # its transform vanishes on the grid
    }


@pytest.mark.parametrize("momentum", [0.0, 0.6])
@pytest.mark.parametrize("name", kernels())
def test_limits_radii_and_best_steps_are_those_of_the_companion_matrix(name, momentum):
    kernel = kernels()[name]
    limit = theory.kernel_stability_limit(kernel, momentum)
    assert largest_modulus(limit, kernel, momentum) == pytest.approx(1, abs=1e-7)
    steps = limit * np.array([0.02, 0.1, 0.3, 0.7, 0.99, 1.01, 1.7])
    for step in steps:
        expected = largest_modulus(step, kernel, momentum)
        assert theory.kernel_spectral_radius(step, kernel, momentum) == pytest.approx(
            expected, abs=1e-6
        )
    below = [largest_modulus(step, kernel, momentum) for step in np.linspace(0, limit, 201)[1:]]
    assert max(below[:-1]) < 1
    best = largest_modulus(theory.kernel_best_step(kernel, momentum), kernel, momentum)
    assert best <= min(below) + 1e-6


@given(st.integers(0, 40), st.sampled_from([0.0, 0.3, 0.9]))
def test_constant_staleness_is_the_recursion(staleness, momentum):
    kernel = theory.constant_kernel(staleness)
    assert theory.kernel_stability_limit(kernel, momentum) == pytest.approx(
        theory.stability_limit(staleness, momentum), rel=1e-9
    )
    step = 0.6 * theory.stability_limit(staleness, momentum)
    assert theory.kernel_spectral_radius(step, kernel, momentum) == pytest.approx(
        theory.spectral_radius(step, staleness, momentum), abs=1e-7
    )


@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.5, 2.0]), min_size=1, max_size=20).filter(any),
    st.floats(0.1, 10),
)
def test_scaling_a_kernel_scales_the_limit(kernel, factor):
    limit = theory.kernel_stability_limit(kernel)
    scaled = theory.kernel_stability_limit(factor * np.array(kernel))
    assert scaled * factor == pytest.approx(limit, rel=1e-6)


def test_laws_of_staleness():
    poisson, geometric = theory.poisson_kernel(3.0), theory.geometric_kernel(3.0)
    np.testing.assert_allclose(poisson[:9], scipy.stats.poisson(3.0).pmf(range(9)), rtol=1e-9)
    np.testing.assert_allclose(geometric[:9], 0.25 * 0.75 ** np.arange(9), rtol=1e-9)
    for kernel in (poisson, geometric):
        assert kernel.sum() == pytest.approx(1)
        assert kernel @ np.arange(len(kernel)) == pytest.approx(3, rel=1e-9)


@pytest.mark.parametrize(
    "protocol",
    [
        protocols.asynchronous(),
        protocols.buffered(4),
        protocols.ringmaster(5),
        protocols.rennala(3),
    ],
    ids=lambda protocol: protocol.name,
)
def test_the_kernel_of_a_timeline_counts_its_rows(protocol):
    timeline = simulate_timeline(protocol, runtimes.gamma(cv=0.5), 6, num_commits=60)
    expected = np.zeros(timeline.staleness.max() + 1)
    commits = 0
    for row in range(timeline.num_arrivals):
        if 10 <= timeline.version[row] < 60:
            commits += timeline.commit[row]
            if timeline.accepted[row]:
                expected[timeline.staleness[row]] += timeline.weight[row]
    kernel = theory.staleness_kernel(timeline, skip=10)
    np.testing.assert_allclose(kernel, (expected / commits)[: len(kernel)])
    assert kernel.sum() == pytest.approx(1, rel=0.05)
    if protocol.name == "asynchronous":
        assert kernel @ np.arange(len(kernel)) == pytest.approx(5, abs=0.3)


def replayed(timeline, step, momentum):
    """The server of a quadratic, one row at a time."""
    versions, speed, gathered = [1.0], 0.0, 0.0
    for row in range(timeline.num_arrivals):
        if timeline.accepted[row]:
            gathered += timeline.weight[row] * versions[timeline.read_version[row]]
        if timeline.commit[row]:
            speed = momentum * speed + gathered
            versions.append(versions[-1] - step * speed)
            gathered = 0.0
    return np.log(np.abs(versions[1:]))


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize(
    "protocol",
    [protocols.asynchronous(), protocols.buffered(3), protocols.ringmaster(4, stop=True)],
    ids=lambda protocol: protocol.name,
)
def test_growth_is_that_of_the_server_of_a_quadratic(protocol, momentum):
    timeline = simulate_timeline(protocol, runtimes.gamma(cv=0.5), 6, num_commits=240, seed=3)
    steps = np.array([0.02, 0.1, 0.4])
    growth = theory.replayed_growth(timeline, steps, momentum)
    for step, value in zip(steps, growth, strict=True):
        peaks = replayed(timeline, step, momentum)[120:].reshape(12, 10).max(axis=1)
        slope = scipy.stats.linregress(np.arange(12), peaks).slope / 10
        assert value == pytest.approx(slope, rel=1e-9)


def test_growth_neither_overflows_nor_underflows():
    timeline = Timeline.from_staleness(np.minimum(np.arange(4000), 1))
    growth = theory.replayed_growth(timeline, [0.0, 0.2, 2.5, 1e200])
    expected = np.log(theory.spectral_radius([0.2, 2.5], 1))
    np.testing.assert_allclose(growth, [0, *expected, np.inf], atol=1e-3)
    fresh = Timeline.from_staleness(np.zeros(100, int))
    np.testing.assert_array_equal(theory.replayed_growth(fresh, [1.0, 0.5]), [-np.inf, -np.log(2)])


@pytest.mark.parametrize("staleness", [0, 1, 7, 15])
def test_the_replayed_limit_of_constant_staleness(staleness):
    timeline = Timeline.from_staleness(np.minimum(np.arange(200 + 200 * staleness), staleness))
    exact = theory.stability_limit(staleness)
    assert theory.replayed_limit(timeline) == pytest.approx(exact, rel=0.01)
    assert theory.replayed_limit(timeline, momentum=0.5) == pytest.approx(
        theory.stability_limit(staleness, 0.5), rel=0.01
    )


def test_memoryless_workers_diverge_far_below_the_limit_of_the_mean():
    timeline = simulate_timeline(
        protocols.asynchronous(), runtimes.exponential(), 16, num_commits=5000, seed=1
    )
    mean = theory.kernel_stability_limit(theory.staleness_kernel(timeline))
    assert theory.replayed_limit(timeline) < 0.2 * mean


def test_a_gradient_that_is_very_late_is_no_divergence():
    # In these runs one arrives when the mode has died out, and pushes it up at any step.
    for alpha, seed, limit in ((1.5, 16, 0.25), (2.0, 3, 0.175)):
        timeline = simulate_timeline(
            protocols.asynchronous(), runtimes.pareto(alpha), 16, num_commits=3600, seed=seed
        )
        assert (theory.replayed_growth(timeline, [0.05]) > 0).all()
        assert theory.replayed_limit(timeline) == pytest.approx(limit, rel=0.15)


def test_thresholds_and_weights():
    kernel = theory.poisson_kernel(8.0)
    dropped = theory.drop_above(kernel, 10)
    np.testing.assert_array_equal(dropped, kernel[:11])
    assert dropped.sum() == pytest.approx(scipy.stats.poisson(8.0).cdf(10))
    halved = theory.reweigh(kernel, weights.inverse())
    np.testing.assert_allclose(halved, kernel / np.maximum(np.arange(len(kernel)), 1), rtol=1e-6)
    limits = [theory.kernel_stability_limit(k) for k in (kernel, dropped, halved)]
    assert limits[0] < limits[1] < limits[2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("kernel_stability_limit([])", r"kernel must be one row of numbers, got shape \(0,\)"),
        ("kernel_stability_limit([0.0])", "kernel must have an entry > 0, got only zeros"),
        ("kernel_best_step([0.5, -0.5])", "kernel must be a finite number >= 0"),
        ("kernel_spectral_radius(-1.0, [1.0])", "step must be a finite number >= 0, got -1.0"),
        ("constant_kernel(-1)", "staleness must be an integer >= 0, got -1"),
        ("poisson_kernel(0.0)", "mean must be a finite number > 0, got 0.0"),
        ("geometric_kernel(-1.0)", "mean must be a finite number > 0, got -1.0"),
        ("staleness_kernel(SHORT, skip=-1)", "skip must be an integer >= 0, got -1"),
        ("staleness_kernel(SHORT, skip=3)", "skip must be < num_commits = 3, got 3"),
        ("replayed_growth(SHORT, [0.1])", "timeline must have at least 24 commits, got 3"),
        ("drop_above([0.0, 1.0], 0)", "max_staleness=0 leaves nothing of the kernel"),
        ("drop_above([1.0], -1)", "max_staleness must be an integer >= 0, got -1"),
        ("reweigh([0.0, 1.0], weights.cutoff(0))", "kernel must have an entry > 0"),
    ],
)
def test_bad_values_raise(call, message):
    assert SHORT.num_commits == 3
    with pytest.raises(ValueError, match=message):
        eval("theory." + call)


@pytest.mark.parametrize("call", ["staleness_kernel([0, 1])", "replayed_limit(None)"])
def test_a_timeline_is_asked_for(call):
    with pytest.raises(TypeError, match=r"timeline must be an async_optax.Timeline, got"):
        eval("theory." + call)


SHORT = Timeline.from_staleness([0, 1, 1])
