"""How the loss falls with the integrated learning rate."""

import dataclasses

import numpy as np
import scipy.optimize

from async_optax.validation import require_number

_BLOCKS = 40
_FEWEST = 8
# Convex losses fall at least as fast as 1 / s; a power of 8 cannot be told from an exponential.
_POWERS = np.geomspace(1.0, 8.0, 7)
_TIMES = 40
_SLOPE_FACTOR = 2.0  # to which the first slope is that of the gradient: networks fall faster first
_MISFIT = 0.1  # of the excess loss: no network is a quadratic
_CORRELATED = 0.9  # at most: what is left of 40 blocks is more than one
_DROPPED = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class ProgressCurve:
    """The expected loss of training whose steps are small, as fits that share a weight of one.

    Fit i is ``floors[i] + amplitudes[i] * (1 + s / times[i]) ** -powers[i]``, with s the sum of all
    learning rates so far.

    Attributes:
      weights: float64 ``[num_fits]``, how likely each is; the most likely comes first.
      amplitudes: float64 ``[num_fits]``, loss that can be trained away, >= 0.
      powers: float64 ``[num_fits]``.
      times: float64 ``[num_fits]``, in units of learning rates added up.
      floors: float64 ``[num_fits]``, what no training gets below, noise of steps left out.
      horizon: the largest s that was seen.
    """

    weights: np.ndarray
    amplitudes: np.ndarray
    powers: np.ndarray
    times: np.ndarray
    floors: np.ndarray
    horizon: float

    def without_noise(self, flow_time: np.ndarray | float) -> np.ndarray:
        """Returns the losses at s, ``[num_fits, *flow_time.shape]``."""
        s = np.asarray(flow_time, np.float64)
        each = (slice(None), *[np.newaxis] * s.ndim)
        decay = (1 + s[np.newaxis] / self.times[each]) ** -self.powers[each]
        return self.floors[each] + self.amplitudes[each] * decay


def fit_progress_curve(
    losses: np.ndarray, rates: np.ndarray, gradient_norm: float
) -> ProgressCurve:
    """Fits what quadratics with Gamma-distributed spectra would do to the losses of a run.

    A mode of curvature h and excess loss c has ``c exp(-2 h s)`` left when the learning rates add
    up to s (steps of ``eta h`` well below 1). If the loss is spread over curvatures by a Gamma law
    of shape p and mean ``p / (2 s_0)``, ``c (1 + s / s_0) ** -p`` is left of all: a power of s in
    the end, as of networks, and an exponential for large p, as of strongly convex losses. Noise
    adds ``b eta``. For p from 1 to 8 and many s_0, the others are nonnegative least squares on
    means over blocks of steps, short where the loss falls fast, each weighted by its scatter and a
    tenth of its excess: networks keep to the law only roughly, so the late blocks, which tell what
    comes next, decide. Where neighbours deviate together, with correlation r, chi-squared counts
    ``(1 - r) / (1 + r)``. The first slope, ``c p / s_0``, should be the squared norm of the first
    gradient, to a factor of 2. Noisy losses fit many curves: all are kept, weighted by likelihood.

    Args:
      losses: float64 ``[num_steps]``, of the batches, never stale.
      rates: float64 ``[num_steps]``, the learning rate of each step, > 0.
      gradient_norm: of the mean gradient at the start, > 0.

    Returns:
      A :class:`ProgressCurve`.

    Raises:
      ValueError: if there are fewer than 8 steps, or the losses are not finite.

    Example:
      >>> import numpy as np
      >>> s = 0.1 * np.arange(400)
      >>> curve = fit_progress_curve(1.0 + 2.0 / (1 + s), np.full(400, 0.1), np.sqrt(2.0))
      >>> print(curve.without_noise([1.0, 9.0])[0].round(1), curve.powers[0])
      [2.  1.2] 1.0

    References:
      Ours. Power laws of the loss along gradient flow follow from power laws of spectrum and
      initial error: Velikanov, Yarotsky, `Explicit loss asymptotics in the gradient descent
      training of neural networks <https://arxiv.org/abs/2105.00507>`_, 2021. Certainty: abstract.
    """
    losses, rates = np.asarray(losses, np.float64), np.asarray(rates, np.float64)
    require_number("gradient_norm", gradient_norm, above=0)
    if len(losses) < _FEWEST or not np.isfinite(losses).all():
        raise ValueError(f"losses must be at least {_FEWEST} finite numbers, got {losses}")
    flow_time = np.cumsum(rates) - rates
    bounds = _blocks(len(losses))
    means, times, noise = (
        np.array([values[a:b].mean() for a, b in bounds])
        for values in (losses, flow_time, rates / rates.max())
    )
    weights = 1 / _errors(losses, bounds, means)
    horizon = float(flow_time[-1])
    fits, chi, residuals = [], [], []
    for time in np.geomspace(max(rates[0] / 4, horizon * 1e-6), 4 * horizon, _TIMES):
        for power in _POWERS:
            columns = np.column_stack([np.ones(len(means)), noise, (1 + times / time) ** -power])
            found, residual = scipy.optimize.nnls(columns * weights[:, np.newaxis], means * weights)
            floor, _, amplitude = found
            fits.append((amplitude, power, time, floor))
            chi.append(residual**2)
            residuals.append((columns @ found - means) * weights)
    amplitudes, powers, scales, floors = np.array(fits).T
    slopes = np.maximum(amplitudes * powers / scales, 1e-300)
    # Where no curve fits, scatter is larger than batches tell: chi-squared counts in its units. And
    # neighbours that are off together count as fewer.
    misfit = np.array(chi) * min(1.0, len(means) / max(min(chi), 1e-300))
    misfit *= _independent(residuals[int(np.argmin(chi))])
    misfit += (np.log(slopes / gradient_norm**2) / np.log(_SLOPE_FACTOR)) ** 2
    likely = np.exp((misfit.min() - misfit) / 2)
    order = np.argsort(-likely, kind="stable")
    order = order[likely[order] > _DROPPED]
    return ProgressCurve(
        likely[order] / likely[order].sum(),
        amplitudes[order],
        powers[order],
        scales[order],
        floors[order],
        horizon,
    )


def _blocks(number: int) -> list[tuple[int, int]]:
    """Blocks of steps, at most a twentieth of all."""
    edges = np.unique(np.geomspace(1, number + 1, _BLOCKS + 1).astype(int)) - 1
    bounds, longest = [0], max(1, number // 20)
    for edge in edges[1:].tolist():
        while edge - bounds[-1] > longest:
            bounds.append(bounds[-1] + longest)
        if edge > bounds[-1]:
            bounds.append(edge)
    return list(zip(bounds[:-1], bounds[1:], strict=True))


def _errors(losses: np.ndarray, bounds: list[tuple[int, int]], means: np.ndarray) -> np.ndarray:
    """Errors of the means: the scatter of batches, and a part of the excess, as laws never hold."""
    pooled = np.sqrt(np.mean(np.diff(losses) ** 2) / 2)
    within = np.array([losses[a:b].std() if b - a > 2 else pooled for a, b in bounds])
    lengths = np.array([b - a for a, b in bounds])
    excess = means - means.min()
    tiny = 1e-6 * max(np.abs(means).max(), 1e-300)
    return np.sqrt(within**2 / lengths + (_MISFIT * excess) ** 2 + tiny**2)


def _independent(residuals: np.ndarray) -> float:
    """The share of them that are independent, by the correlation of neighbours."""
    correlation = residuals[1:] @ residuals[:-1] / max(residuals @ residuals, 1e-300)
    correlation = np.clip(correlation, 0.0, _CORRELATED)
    return float((1 - correlation) / (1 + correlation))
