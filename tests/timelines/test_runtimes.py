"""Runtime models against their closed forms."""

import itertools

import numpy as np
import pytest
import scipy.stats

import async_optax as ao
from async_optax import runtimes
from async_optax.timelines.runtimes import streams


def draws(model, num_jobs, num_workers=1, seed=0):
    times = model.job_times(num_workers, seed)
    return np.array([list(itertools.islice(stream, num_jobs)) for stream in times])


def test_gamma_tail_of_equal_and_unequal_machines():
    # P(time > 1.25 mean) = 0.0094 for shape 100; 0.279 when machine means vary by 0.6.
    equal = draws(runtimes.gamma(mean=2.0, cv=0.1), 200_000)
    assert np.mean(equal > 2.5) == pytest.approx(0.0094, abs=0.0008)
    unequal = draws(runtimes.gamma(cv=0.1, machine_cv=0.6), 20, num_workers=20_000)
    assert np.mean(unequal > 1.25) == pytest.approx(0.279, abs=0.01)


LAWS = {
    "gamma": (runtimes.gamma(3.0, cv=0.5), scipy.stats.gamma(4, scale=3 / 4)),
    "exponential": (runtimes.exponential(2.0), scipy.stats.expon(scale=2)),
    "pareto": (runtimes.pareto(1.5, minimum=2.0), scipy.stats.pareto(1.5, scale=2)),
    "two_speed": (
        runtimes.two_speed(4.0, slow_fraction=1.0, law=runtimes.exponential()),
        scipy.stats.expon(scale=4),
    ),
    "power_law": (
        runtimes.power_law(0.5, fast_time=3.0, law=runtimes.pareto(2.5)),
        scipy.stats.pareto(2.5, scale=3),
    ),
    "uniform": (runtimes.uniform(1.5, 4.0), scipy.stats.uniform(1.5, 2.5)),
    "lognormal": (
        runtimes.lognormal(2.0, sigma=0.7),
        scipy.stats.lognorm(0.7, scale=2 * np.exp(-0.245)),
    ),
    "half_normal": (runtimes.half_normal(2.0, sigma=0.5), scipy.stats.halfnorm(2.0, 1.0)),
    "with_machines": (
        runtimes.exponential(2.0).with_machines(runtimes.deterministic(3.0)),
        scipy.stats.expon(scale=6),
    ),
}


@pytest.mark.parametrize("name", LAWS)
def test_laws(name):
    model, law = LAWS[name]
    assert scipy.stats.kstest(draws(model, 20_000)[0], law.cdf).pvalue > 0.01


@pytest.mark.parametrize("name", sorted(set(LAWS) - {"pareto"}))  # its variance is infinite
def test_means(name):
    model, law = LAWS[name]
    assert draws(model, 100_000)[0].mean() == pytest.approx(law.mean(), rel=0.02)


@pytest.mark.parametrize("name", LAWS)
def test_the_smallest_and_the_largest_draw_are_finite_times(name):
    model = LAWS[name][0]
    ends = model.quantile(np.array([0.0, 0.5, 1 - 2.0**-53]), np.zeros(3, int))
    assert np.isfinite(ends).all()
    assert (ends >= 0).all()
    assert (np.diff(ends) > 0).all()


def test_workers_by_a_power_of_their_number():
    times = draws(runtimes.power_law(0.5, fast_time=2.0), 2, num_workers=9)
    np.testing.assert_allclose(times[:, 0], 2 * np.sqrt(np.arange(1, 10)))
    np.testing.assert_array_equal(times[:, 0], times[:, 1])
    np.testing.assert_array_equal(draws(runtimes.power_law(0.0), 1, num_workers=3), 1.0)


def test_machines_multiply_the_times_by_one_factor_each():
    law = runtimes.gamma(cv=0.5)
    model = law.with_machines(runtimes.lognormal(sigma=1.0))
    times, plain = draws(model, 50, num_workers=4000), draws(law, 50, num_workers=4000)
    factors = times / plain
    np.testing.assert_allclose(factors, factors[:, :1].repeat(50, axis=1), rtol=1e-12)
    expected = scipy.stats.lognorm(1.0, scale=np.exp(-0.5))
    assert scipy.stats.kstest(factors[:, 0], expected.cdf).pvalue > 0.01
    given = law.with_machines(runtimes.deterministic([1.0, 2.0, 4.0]))
    np.testing.assert_allclose(
        draws(given, 10, num_workers=3), draws(law, 10, num_workers=3) * [[1], [2], [4]]
    )


def test_machines_multiply_and_are_independent():
    spread = runtimes.lognormal(sigma=0.5)
    plain, once = runtimes.deterministic(3.0), runtimes.deterministic(3.0).with_machines(spread)
    twice = once.with_machines(spread)
    first = once.scales(5000, 1) / plain.scales(5000, 1)
    second = twice.scales(5000, 1) / once.scales(5000, 1)
    assert abs(np.corrcoef(np.log(first), np.log(second))[0, 1]) < 0.05
    # A law of factors that has machines of its own.
    nested = plain.with_machines(spread.with_machines(runtimes.deterministic([1.0, 100.0])))
    ratio = nested.scales(2, 1) / once.scales(2, 1)
    np.testing.assert_allclose(ratio, [1.0, 100.0])


def test_machine_means_follow_their_law():
    model = runtimes.gamma(cv=0.01, machine_cv=0.6)
    means = draws(model, 50, num_workers=4000).mean(axis=1)
    law = scipy.stats.gamma(1 / 0.36, scale=0.36)
    assert scipy.stats.kstest(means, law.cdf).pvalue > 0.01


def test_a_seed_gives_the_same_times_for_any_number_of_jobs_and_workers():
    model = runtimes.gamma(cv=0.5)
    many = draws(model, 1000, num_workers=8, seed=3)
    np.testing.assert_array_equal(draws(model, 300, num_workers=2, seed=3), many[:2, :300])
    assert not np.array_equal(draws(model, 10, seed=4), many[:1, :10])
    assert len(np.unique(many[:, 0])) == 8


def test_streams_are_stable_over_versions():
    # Inverse distribution functions of PCG64 uniforms: the same everywhere and always.
    np.testing.assert_allclose(
        draws(runtimes.exponential(), 3, num_workers=2),
        [[2.906194, 0.530619, 1.091061], [0.889594, 1.711844, 0.973328]],
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (streams.DOWNLOAD, [[0.118279, 0.29219], [0.581368, 0.329619]]),
        (streams.UPLOAD, [[1.870086, 0.30493], [0.40646, 2.235771]]),
        (streams.SERVER, [[0.233631, 1.351279], [1.337959, 0.720847]]),
        (streams.UPTIME, [[1.766171, 1.164551], [0.860377, 1.419103]]),
        (streams.DOWNTIME, [[2.028146, 0.134497], [1.042538, 0.210032]]),
    ],
)
def test_streams_of_other_parts_are_stable_too(part, expected):
    parts = runtimes.exponential().part_times(2, 7, part)
    times = [list(itertools.islice(stream, 2)) for stream in parts]
    np.testing.assert_allclose(times, expected, atol=1e-6)


def test_assignments_and_machines_are_stable_too():
    for assignment, expected in (
        ("uniform", [2, 0, 1, 2, 3, 1, 0, 2, 3, 1, 2, 3]),
        ("shuffled", [1, 2, 3, 4, 0, 2, 1, 3, 0, 4, 1, 2]),
    ):
        protocol = ao.protocols.asynchronous(assignment)
        timeline = ao.simulate_timeline(
            protocol, runtimes.deterministic(), 5, num_commits=12, seed=7
        )
        np.testing.assert_array_equal(timeline.worker, expected)
    np.testing.assert_allclose(
        runtimes.exponential().with_machines(runtimes.exponential()).scales(3, 7),
        [0.175077, 0.059087, 0.350301],
        atol=1e-6,
    )
    np.testing.assert_allclose(
        runtimes.gamma(machine_cv=0.6).scales(3, 7), [1.433686, 0.260924, 1.018038], atol=1e-6
    )


def test_parts_have_streams_of_their_own():
    parts = [streams.COMPUTE, streams.DOWNLOAD, streams.UPLOAD, streams.SERVER, streams.UPTIME]
    law = runtimes.exponential()
    times = [
        list(itertools.islice(worker, 500))
        for part in parts
        for worker in law.part_times(3, 0, part)
    ]
    correlation = np.corrcoef(times) - np.eye(len(times))
    assert np.abs(correlation).max() < 0.2


def test_slow_workers_are_the_last():
    times = draws(runtimes.two_speed(8.0, slow_fraction=0.25, fast_time=2.0), 1, num_workers=8)
    np.testing.assert_array_equal(times[:, 0], [2] * 6 + [16] * 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: runtimes.deterministic(0.0), "times must be a finite number > 0, got 0.0"),
        (lambda: runtimes.deterministic([1.0, -1.0]), "times must be"),
        (lambda: runtimes.deterministic([[1.0]]), "one per worker, got shape"),
        (lambda: runtimes.two_speed(0.5), "slow_factor must be a finite number >= 1, got 0.5"),
        (lambda: runtimes.two_speed(2, slow_fraction=2), "slow_fraction must be"),
        (lambda: runtimes.gamma(cv=0.0), "cv must be a finite number >= 0.001, got 0.0"),
        (lambda: runtimes.gamma(mean=float("nan")), "mean must be"),
        (lambda: runtimes.exponential(-1), "mean must be"),
        (lambda: runtimes.pareto(0), "alpha must be"),
        (lambda: runtimes.deterministic([1, 2]).job_times(3, 0), "times has 2 entries for 3"),
        (lambda: runtimes.gamma().job_times(0, 0), "num_workers must be an integer >= 1, got 0"),
        (lambda: runtimes.gamma().job_times(1, -1), "seed must be an integer >= 0, got -1"),
    ],
)
def test_bad_input_raises(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_models_are_named_for_tables():
    law = ao.runtimes.gamma(cv=0.5)
    assert ao.runtimes.two_speed(8, law=law).name == (
        "two_speed(8, slow_fraction=0.5, fast_time=1, law=gamma(mean=1, cv=0.5))"
    )
