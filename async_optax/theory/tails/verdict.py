"""What samples say of their tail: is the variance finite, and where would one clip?"""

import dataclasses
from typing import Any, Literal

import numpy as np

from async_optax.theory.tails.bootstrap import Interval, bootstrap_interval
from async_optax.theory.tails.extreme_value import extreme_value_index
from async_optax.theory.tails.hill import HillPlot, hill_index, hill_plot
from async_optax.theory.tails.log_log_moments import log_log_moment_index
from async_optax.theory.tails.samples import as_samples
from async_optax.theory.tails.sub_weibull import fit_sub_weibull

Verdict = Literal["finite variance", "infinite variance", "cannot tell"]

FINITE: Verdict = "finite variance"
INFINITE: Verdict = "infinite variance"
CANNOT_TELL: Verdict = "cannot tell"
_FEWEST, _FEWEST_ROWS, _FEWEST_FOR_SUMS = 1000, 200, 300
_CLIP = (0.5, 0.95)


@dataclasses.dataclass(frozen=True, eq=False)
class TailReport:
    """What samples say of their tail. What could not be estimated is NaN or ``None``.

    Attributes:
      verdict: ``"finite variance"``, ``"infinite variance"`` or ``"cannot tell"``.
      reason: one sentence.
      num_samples: numbers that are not zero.
      index: tail index by Hill's estimator; the variance is infinite up to 2.
      index_interval: its 95 % bootstrap interval.
      extreme_value_index: by the moment estimator from as many largest samples, 1 / index for
        powers and 0 for lighter tails.
      extreme_value_interval: its 95 % bootstrap interval.
      stable_index: of the stable law that sums tend to, by :func:`log_log_moment_index`.
      theta: of a sub-Weibull fit: 1/2 is Gaussian, 1 exponential. NaN if no such law fits, as where
        the variance is infinite.
      theta_interval: its 95 % bootstrap interval; ``None`` without it.
      median: of the magnitudes.
      clip_range: thresholds worth trying, from the median to the 95 % quantile of the magnitudes:
        below, most of the signal goes; above, outliers pass.
      plot: Hill's estimate over the number of largest samples.
    """

    verdict: Verdict
    reason: str
    num_samples: int
    index: float
    index_interval: Interval | None
    extreme_value_index: float
    extreme_value_interval: Interval | None
    stable_index: float
    theta: float
    theta_interval: Interval | None
    median: float
    clip_range: Interval | None
    plot: HillPlot | None


def judge_tail(
    samples: Any, *, signed: bool = True, num_draws: int = 100, seed: int = 0
) -> TailReport:
    """Fits the tail of samples and says whether their variance is finite.

    Two estimates must agree: Hill's, which supposes a power, and the moment estimator, which does
    not, from the number of largest samples that :func:`hill_plot` chooses. The variance is called
    infinite if Hill's 95 % interval is below 2 and the other one reaches into that of 1 / index;
    finite if Hill's is above 2 and the other one below 1/2. Otherwise nothing can be told, and the
    reason says why. Samples are what was seen: a tail beyond the largest is out of sight.

    Args:
      samples: real numbers, independent along the first axis: norms ``[num_gradients]`` or
        coordinates ``[num_gradients, num_coordinates]``.
      signed: whether they have signs of their own; norms have none.
      num_draws: of each bootstrap, >= 20.
      seed: of the bootstrap, an integer >= 0.

    Returns:
      A :class:`TailReport`; ``"cannot tell"`` if there are fewer than 1000 numbers that are not
      zero, or fewer than 200 rows.

    Raises:
      TypeError: if ``samples`` are not real numbers.
      ValueError: if one is not finite.

    Example:
      >>> import numpy as np
      >>> rng = np.random.default_rng(0)
      >>> judge_tail(rng.random(20_000) ** (-1 / 1.5), signed=False).verdict
      'infinite variance'
      >>> report = judge_tail(rng.standard_normal(20_000))
      >>> print(report.verdict, round(report.theta, 1))
      finite variance 0.5
      >>> print(judge_tail(np.ones(10)).reason)
      too few samples: 10 that are not zero in 10 rows, at least 1000 in 200 are needed
    """
    rows = as_samples(samples)
    sizes = np.abs(rows[rows != 0])
    if len(sizes) < _FEWEST or len(rows) < _FEWEST_ROWS:
        reason = (
            f"too few samples: {len(sizes)} that are not zero in {len(rows)} rows, at least "
            f"{_FEWEST} in {_FEWEST_ROWS} are needed"
        )
        return _unknown(reason, sizes)
    if sizes.max() <= sizes.min() * (1 + 1e-6):
        return _unknown("all samples are of one size", sizes)
    plot = hill_plot(rows)
    number = plot.chosen_num_largest
    if sizes.size < 2 * number or np.unique(np.sort(sizes)[-number:]).size < number // 2:
        return _unknown("too many samples are equal", sizes)

    def interval(statistic: Any) -> Interval:
        return bootstrap_interval(statistic, rows, num_draws=num_draws, seed=seed)

    index = interval(lambda drawn: hill_index(drawn, number))
    extreme = interval(lambda drawn: extreme_value_index(drawn, number))
    verdict, reason = _decided(plot.chosen_index, index, extreme)
    fit = fit_sub_weibull(rows)
    # To tails that are powers of t a fit may be found, but its theta grows with the samples.
    fits = not fit.at_bound and verdict != INFINITE
    theta = _theta_interval(rows, num_draws, seed) if fits else None
    low, high = np.quantile(sizes, _CLIP)
    return TailReport(
        verdict=verdict,
        reason=reason,
        num_samples=len(sizes),
        index=plot.chosen_index,
        index_interval=index,
        extreme_value_index=extreme_value_index(rows, number),
        extreme_value_interval=extreme,
        stable_index=(
            log_log_moment_index(rows, signed=signed, seed=seed)
            if len(rows) >= _FEWEST_FOR_SUMS
            else np.nan
        ),
        theta=fit.theta if fits else np.nan,
        theta_interval=theta,
        median=float(low),
        clip_range=Interval(float(low), float(high)),
        plot=plot,
    )


def _decided(value: float, index: Interval, extreme: Interval) -> tuple[Verdict, str]:
    """The verdict, and why."""
    shown = f"tail index {value:.3g} ({index}), extreme value index {extreme}"
    if index.high < 2 and extreme.high > 1 / index.high:
        return INFINITE, f"{shown}: below 2, and the second agrees"
    if index.low > 2 and extreme.low < 0.5:
        if extreme.high < 0.5:
            return FINITE, f"{shown}: above 2 and below 1/2"
        return CANNOT_TELL, f"{shown}: the second reaches above 1/2, where the variance is infinite"
    if 2 in index:
        return CANNOT_TELL, f"{shown}: 2 is within the first, so both are possible"
    return CANNOT_TELL, f"{shown}: they disagree, so the tail is no power"


def _theta_interval(rows: np.ndarray, num_draws: int, seed: int) -> Interval:
    """Fits to at most 20 000 numbers each, whose interval is wider than that of all."""
    per_row = max(1, rows.size // len(rows))
    most = max(200, 20_000 // per_row)
    some = rows[:: max(1, len(rows) // most)][:most]
    return bootstrap_interval(
        lambda drawn: fit_sub_weibull(drawn).theta, some, num_draws=min(num_draws, 40), seed=seed
    )


def _unknown(reason: str, sizes: np.ndarray) -> TailReport:
    median = float(np.median(sizes)) if len(sizes) else np.nan
    nan = float("nan")
    return TailReport(
        CANNOT_TELL, reason, len(sizes), nan, None, nan, None, nan, nan, None, median, None, None
    )
