"""Runtime models against their closed forms."""

import itertools

import numpy as np
import pytest
import scipy.stats

import async_optax as ao
from async_optax import runtimes


def draws(model, num_jobs, num_workers=1, seed=0):
    streams = model.job_times(num_workers, seed)
    return np.array([list(itertools.islice(stream, num_jobs)) for stream in streams])


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
}


@pytest.mark.parametrize("name", LAWS)
def test_laws(name):
    model, law = LAWS[name]
    assert scipy.stats.kstest(draws(model, 20_000)[0], law.cdf).pvalue > 0.01


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
