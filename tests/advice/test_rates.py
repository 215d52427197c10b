"""The learning rate of a protocol, against the formula and against a quadratic."""

import dataclasses
import math

import numpy as np
import pytest

from async_optax.advice import (
    Drive,
    ProgressCurve,
    advise_rate,
    expected_losses,
    fit_progress_curve,
    largest_rate,
    time_to_match,
)
from async_optax.advice.progress_curve import _independent
from tests.advice.settings import made_up

DRIVE = Drive(limit=0.5, num_commits=2000, weight=1.0, squares=1.0)


def loss_by_hand(measured, drive, rate, part=1.0):
    """The formula of ``advise_rate``, for one fit, by bisection on f."""
    curve, response = measured.curve, measured.clip.response
    s = response * drive.weight * rate * drive.num_commits * part
    progress = curve.floors[0] + curve.amplitudes[0] * (1 + s / curve.times[0]) ** -curve.powers[0]
    spread = 0.0
    top = max(measured.noise_curvatures.max(), measured.eigenvalues[0])
    share = rate / (drive.limit / (measured.curvature * response))
    for h, q in zip(measured.noise_curvatures, measured.noise_shares, strict=True):
        spread += q * (1 - math.exp(-2 * h * s)) / (1 - share * h / top)
    scale = rate * drive.squares / (4 * response * drive.weight) * measured.variance * spread
    low, high = 0.0, 100.0
    for _ in range(200):
        middle = (low + high) / 2
        value = progress + scale * min(1.0, middle / measured.loss_end)
        low, high = (middle, high) if value > middle else (low, middle)
    return low


@pytest.mark.parametrize("loss_end", [0.11, 5.0])
@pytest.mark.parametrize("squares", [1.0, 1 / 16])
def test_expected_losses_solve_the_equation(loss_end, squares):
    measured = made_up(loss_end=loss_end)
    drive = dataclasses.replace(DRIVE, squares=squares)
    rates = largest_rate(measured, drive) * np.array([1e-3, 0.1, 0.5, 0.9])
    losses, noise = expected_losses(measured, drive, rates, 0.5)
    expected = [loss_by_hand(measured, drive, rate, 0.5) for rate in rates.tolist()]
    np.testing.assert_allclose(losses[0], expected, rtol=1e-6)
    assert (noise > 0).all()


def test_the_advised_rate_has_the_least_loss_below_the_limit():
    measured = made_up()
    advice = advise_rate(measured, DRIVE)
    assert advice.largest == DRIVE.limit / 2.0
    rates = advice.largest * np.linspace(0.01, 0.98, 400)
    losses, _ = expected_losses(measured, DRIVE, rates)
    assert advice.loss == pytest.approx(losses.min(), rel=1e-3)
    assert advice.learning_rate == pytest.approx(rates[np.argmin(losses)], rel=0.06)


def test_noise_and_stability_decide_where_they_should():
    calm, loud = made_up(variance=1e-6), made_up(variance=50.0)
    assert advise_rate(calm, DRIVE).limited_by == "stability"
    assert advise_rate(calm, DRIVE).share > 0.9
    loudly = advise_rate(loud, DRIVE)
    assert loudly.limited_by == "noise"
    # A mean of 16 gradients stands more.
    mean = dataclasses.replace(DRIVE, squares=1 / 16)
    assert advise_rate(loud, mean).learning_rate > 2 * loudly.learning_rate
    # Longer runs have time for smaller steps.
    longer = dataclasses.replace(DRIVE, num_commits=20_000)
    assert advise_rate(loud, longer).learning_rate < loudly.learning_rate / 2


def test_a_clip_that_halves_gradients_doubles_the_rate():
    measured = made_up(variance=1e-9)
    clip = dataclasses.replace(measured.clip, kind="coordinate", threshold=0.1, response=0.5)
    clipped = dataclasses.replace(measured, clip=clip)
    plain, doubled = advise_rate(measured, DRIVE), advise_rate(clipped, DRIVE)
    assert doubled.learning_rate == pytest.approx(2 * plain.learning_rate)
    assert doubled.loss == pytest.approx(plain.loss)


def test_uncertain_progress_gives_a_range_and_its_geometric_mean():
    fits = ProgressCurve(
        weights=np.array([0.5, 0.5]),
        amplitudes=np.ones(2),
        powers=np.array([1.0, 4.0]),
        times=np.ones(2),
        floors=np.full(2, 0.1),
        horizon=10.0,
    )
    measured = made_up(variance=5.0, curve=fits)
    both = advise_rate(measured, DRIVE)
    alone = [
        advise_rate(
            dataclasses.replace(
                measured,
                curve=ProgressCurve(
                    np.ones(1), np.ones(1), np.array([power]), np.ones(1), np.full(1, 0.1), 10.0
                ),
            ),
            DRIVE,
        ).learning_rate
        for power in (1.0, 4.0)
    ]
    assert both.learning_rate == pytest.approx(math.sqrt(alone[0] * alone[1]))
    assert both.likely.low == pytest.approx(min(alone))
    assert both.likely.high == pytest.approx(max(alone))


def test_the_time_to_match_a_level():
    measured = made_up(variance=1e-9)
    advice = advise_rate(measured, DRIVE)
    # floor + 1 / (1 + s) = 0.2 at s = 9
    part = time_to_match(measured, DRIVE, advice, 0.2)
    assert part == pytest.approx(9 / (advice.learning_rate * DRIVE.num_commits), abs=0.002)
    assert time_to_match(measured, DRIVE, advice, 0.05) is None


@pytest.mark.parametrize(("power", "floor"), [(1.0, 0.0), (2.0, 0.3)])
def test_a_power_law_is_fitted_through_noise(power, floor):
    rng = np.random.default_rng(0)
    rates = np.repeat([0.05, 0.1, 0.2, 0.1], 250)
    s = np.cumsum(rates) - rates
    truth = floor + 2.0 * (1 + s / 5.0) ** -power
    slope = math.sqrt(2.0 * power / 5.0)
    curve = fit_progress_curve(truth + 0.05 * rng.standard_normal(1000), rates, slope)
    assert curve.weights.sum() == pytest.approx(1)
    assert curve.weights[0] == curve.weights.max()
    shown = curve.weights @ curve.without_noise(s[[100, 500, 999]])
    np.testing.assert_allclose(shown, truth[[100, 500, 999]], atol=0.03)
    beyond = 10 * s[-1]
    later = curve.weights @ curve.without_noise(np.array([beyond]))
    assert later[0] == pytest.approx(floor + 2 * (1 + beyond / 5) ** -power, abs=0.04)


def test_early_steps_that_break_the_law_count_for_little():
    """Networks fall faster first; what is left later follows the law ``0.5 / (1 + s / 5)``."""
    rates = np.full(1000, 0.1)
    s = np.cumsum(rates) - rates
    law, early = 0.5 / (1 + s / 5.0), 2.0 * np.exp(-s / 0.5)
    noise = 0.03 * np.random.default_rng(0).standard_normal(1000)
    curve = fit_progress_curve(law + early + noise, rates, math.sqrt(2.0 / 0.5 + 0.5 / 5.0))
    # A hundredth of the law is left at ten times the horizon; no fit can be sure of that.
    assert len(curve.weights) > 10
    later = curve.without_noise(np.array(10 * s[-1]))
    assert later.max() - later.min() > 0.015
    assert curve.weights @ later < 0.025


def test_neighbours_that_are_off_together_count_as_fewer():
    assert _independent(np.array([1.0, -1.0, 1.0, -1.0])) == 1
    assert _independent(np.zeros(4)) == 1
    # An autoregression of coefficient r has a share (1 - r) / (1 + r).
    x, draws = np.zeros(20_000), np.random.default_rng(0).standard_normal(20_000)
    for i in range(1, len(x)):
        x[i] = 0.6 * x[i - 1] + draws[i]
    assert _independent(x) == pytest.approx(0.4 / 1.6, rel=0.05)
    assert _independent(np.ones(1000)) == pytest.approx(0.1 / 1.9)


def test_wrong_losses_are_refused():
    with pytest.raises(ValueError, match="at least 8 finite numbers"):
        fit_progress_curve(np.ones(7), np.ones(7), 1.0)
    with pytest.raises(ValueError, match="at least 8 finite numbers"):
        fit_progress_curve(np.full(9, np.nan), np.ones(9), 1.0)
    with pytest.raises(ValueError, match="gradient_norm must be a finite number > 0"):
        fit_progress_curve(np.ones(9), np.ones(9), 0.0)
