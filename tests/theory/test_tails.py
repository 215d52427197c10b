"""Tail estimators on laws of known index, and the verdict they lead to."""

import numpy as np
import pytest
import scipy.special
import scipy.stats

from async_optax.theory import tails

NUMBER = 100_000


def uniforms(seed, number=NUMBER):
    return np.random.Generator(np.random.PCG64(seed)).random(number)


def stable(alpha, seed, number=NUMBER):
    """Chambers, Mallows and Stuck."""
    angle, waiting = np.pi * (uniforms(seed, number) - 0.5), -np.log1p(-uniforms(seed + 1, number))
    return (
        np.sin(alpha * angle)
        / np.cos(angle) ** (1 / alpha)
        * (np.cos((1 - alpha) * angle) / waiting) ** ((1 - alpha) / alpha)
    )


def student(df, seed):
    return scipy.special.stdtrit(df, uniforms(seed))


def pareto(alpha, seed, number=NUMBER):
    return (1 - uniforms(seed, number)) ** (-1 / alpha)


def weibull(theta, seed):
    return (-np.log1p(-uniforms(seed))) ** theta


def gaussian(seed, number=NUMBER):
    return scipy.special.ndtri(np.maximum(uniforms(seed, number), 2.0**-54))


POWERS = [
    (1.5, pareto(1.5, 0)),
    (2.5, pareto(2.5, 1)),
    (4.0, pareto(4.0, 2)),
    (1.2, stable(1.2, 10)),
    (1.5, stable(1.5, 20)),
    (1.0, student(1.0, 3)),
    (1.5, student(1.5, 4)),
    (3.0, student(3.0, 5)),
]


@pytest.mark.parametrize(("index", "samples"), POWERS)
def test_hill_is_within_ten_percent(index, samples):
    assert tails.hill_index(samples) == pytest.approx(index, rel=0.1)


@pytest.mark.parametrize("alpha", [1.0, 1.2, 1.5, 1.8, 2.0])
def test_log_log_moments_are_within_ten_percent_for_stable_laws(alpha):
    assert tails.log_log_moment_index(stable(alpha, 30)) == pytest.approx(alpha, rel=0.05)


def test_log_log_moments_of_what_sums_to_a_stable_law():
    samples = pareto(1.5, 7)
    found = tails.log_log_moment_index(samples, signed=False, block_sizes=(30, 100, 300))
    assert found == pytest.approx(1.5, rel=0.1)
    assert tails.log_log_moment_index(gaussian(3)) == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize(
    ("theta", "samples"),
    [
        (0.5, gaussian(1)),
        (0.5, weibull(0.5, 2)),
        (1.0, weibull(1.0, 3)),
        (2.0, weibull(2.0, 4)),
        (3.0, weibull(3.0, 5)),
        (0.5, np.linalg.norm(gaussian(6, 10 * NUMBER).reshape(NUMBER, 10), axis=1)),
    ],
)
def test_theta_is_within_ten_percent(theta, samples):
    fit = tails.fit_sub_weibull(7.0 * samples)
    assert fit.theta == pytest.approx(theta, rel=0.1)
    assert not fit.at_bound


def test_the_fit_is_that_of_a_weibull_law():
    fit = tails.fit_sub_weibull(3.0 * weibull(2.0, 8))
    assert fit.shape == pytest.approx(1, rel=0.1)
    assert fit.scale == pytest.approx(3, rel=0.15)
    # What it maximises: no neighbour is likelier, by scipy's own density.
    samples, power = 3.0 * weibull(2.0, 8), 1 / fit.theta

    def likelihood(shape, power, scale):
        return scipy.stats.gengamma.logpdf(samples, shape, power, scale=scale).sum()

    best = likelihood(fit.shape, power, fit.scale)
    for factors in [(1.02, 1, 1), (0.98, 1, 1), (1, 1.02, 1), (1, 0.98, 1), (1, 1, 1.02)]:
        near = np.array([fit.shape, power, fit.scale]) * factors
        assert likelihood(*near) < best


@pytest.mark.parametrize(
    ("index", "samples"),
    [(1 / 1.5, pareto(1.5, 9)), (1 / 3, pareto(3.0, 9)), (0.0, weibull(0.5, 9))],
)
def test_the_moment_estimator_tells_powers_from_light_tails(index, samples):
    assert tails.extreme_value_index(samples, 2000) == pytest.approx(index, abs=0.12)


def test_hill_by_hand():
    samples = [1.0, -2.0, 4.0, 8.0, 0.0]
    assert tails.hill_index(samples, 2) == pytest.approx(1 / (np.log(2) * (2 + 1) / 2))
    assert tails.hill_index([3.0, 3.0, 3.0], 2) == np.inf


def test_the_plot_is_hill_at_every_number():
    samples = student(2.0, 11)[:5000]
    plot = tails.hill_plot(samples)
    assert plot.num_largest[0] == 50
    assert plot.num_largest[-1] == 1000
    for place in (0, 20, -1):
        expected = tails.hill_index(samples, int(plot.num_largest[place]))
        assert plot.index[place] == pytest.approx(expected, rel=1e-12)
    assert (plot.low < plot.index).all()
    assert (plot.index < plot.high).all()
    assert plot.chosen_index == plot.index[plot.chosen]


def test_the_bootstrap_covers_as_often_as_it_says():
    covered = 0
    for seed in range(60):
        samples = uniforms(seed, 200) + 3.0
        covered += 3.5 in tails.bootstrap_interval(np.mean, samples, seed=seed)
    assert 51 <= covered <= 60  # 95 % of 60 is 57


def test_the_bootstrap_draws_whole_rows():
    """Ten equal numbers in a row tell no more than one."""
    single = gaussian(5, 300)[:, None]
    wide = tails.bootstrap_interval(np.mean, np.repeat(single, 10, axis=1))
    narrow = tails.bootstrap_interval(np.mean, single)
    assert str(wide) == str(narrow)


@pytest.mark.parametrize(
    ("verdict", "samples"),
    [
        ("infinite variance", stable(1.2, 40, 30_000)),
        ("infinite variance", stable(1.5, 44, 30_000)),
        ("infinite variance", pareto(1.5, 12, 30_000)),
        ("finite variance", gaussian(7, 30_000)),
        ("finite variance", weibull(1.0, 13)[:30_000]),
        ("finite variance", student(4.0, 14)[:30_000]),
        ("cannot tell", pareto(2.0, 15, 30_000)),
        ("cannot tell", stable(1.9, 50, 30_000)),
    ],
)
def test_verdicts(verdict, samples):
    report = tails.judge_tail(samples, num_draws=40)
    assert report.verdict == verdict, report.reason
    assert report.index in report.index_interval
    assert np.isnan(report.theta) or report.theta in report.theta_interval
    assert np.isnan(report.theta) or verdict != "infinite variance"
    assert report.clip_range.low == pytest.approx(np.median(np.abs(samples)))
    assert report.clip_range.high == pytest.approx(np.quantile(np.abs(samples), 0.95))


def test_heavy_weibull_tails_make_the_estimators_disagree():
    """All moments are finite, yet Hill alone would say otherwise."""
    report = tails.judge_tail(weibull(4.0, 16)[:20_000], num_draws=40)
    assert report.index_interval.high < 2.2
    assert report.verdict == "cannot tell"
    assert report.theta == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (gaussian(1, 999), "too few samples: 999"),
        (gaussian(1, 10_000).reshape(100, 100), "in 100 rows, at least 1000 in 200"),
        (np.zeros(5000), "too few samples: 0 that are not zero"),
        (np.ones(5000), "all samples are of one size"),
        (np.where(uniforms(1, 5000) < 0.5, 1.0, 2.0), "too many samples are equal"),
    ],
)
def test_what_cannot_be_told_says_why(samples, reason):
    report = tails.judge_tail(samples)
    assert report.verdict == "cannot tell"
    assert reason in report.reason
    assert np.isnan(report.index)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: tails.hill_index(["a"]), TypeError, "samples must be real numbers"),
        (lambda: tails.hill_index([1.0, np.nan], 2), ValueError, "samples must be finite"),
        (lambda: tails.hill_index([1.0, 2.0], 2), ValueError, "at least 3 numbers"),
        (lambda: tails.hill_plot(np.ones(100)), ValueError, "at least 255 numbers"),
        (lambda: tails.hill_index([1.0, 2.0, 3.0], 1), ValueError, "num_largest must be"),
        (lambda: tails.fit_sub_weibull(np.ones(200)), ValueError, "samples must differ"),
        (lambda: tails.fit_sub_weibull(np.ones(9)), ValueError, "at least 100 numbers"),
        (lambda: tails.log_log_moment_index(np.ones(50)), ValueError, "at least two different"),
        (
            lambda: tails.log_log_moment_index(np.ones(500), block_sizes=(1, 50)),
            ValueError,
            "block_sizes must be >= 1 and <= 5",
        ),
        (lambda: tails.extreme_value_index(np.ones(50), 9), ValueError, "must differ"),
        (lambda: tails.bootstrap_interval(np.mean, [], seed=0), ValueError, "at least one number"),
        (
            lambda: tails.bootstrap_interval(np.mean, [1.0], level=1.0),
            ValueError,
            "level must be a finite number > 0 and < 1",
        ),
        (lambda: tails.judge_tail([np.inf]), ValueError, "samples must be finite"),
    ],
)
def test_wrong_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
