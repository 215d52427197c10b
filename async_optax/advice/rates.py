"""The learning rate of a protocol: progress against noise, below the limit of stability."""

import dataclasses
from typing import Literal

import numpy as np

from async_optax.advice.measuring import Measured
from async_optax.theory.tails import Interval

_SHARES = np.geomspace(1e-4, 0.98, 300)  # of the limit, that are tried
_CLOSE = 0.5  # share of the limit above which stability decides
_PARTS = np.linspace(0, 1, 1001)


@dataclasses.dataclass(frozen=True)
class Drive:
    """What a protocol makes of gradients, in a given time.

    Attributes:
      limit: largest stable learning rate times curvature, unclipped.
      num_commits: steps of the server.
      weight: mean total weight of the gradients of a step: 1 for means and single ones.
      squares: mean sum of squared weights of a step: 1 / n for the mean of n.
    """

    limit: float
    num_commits: float
    weight: float
    squares: float


@dataclasses.dataclass(frozen=True)
class RateAdvice:
    """A learning rate and what it promises.

    Attributes:
      largest: largest stable learning rate.
      learning_rate: the one advised.
      likely: where 80 % of the fits have their best rate.
      limited_by: what forbids a larger one: ``"stability"``, or ``"noise"``, which leaves more
        above the minimum the larger the rate.
      loss: expected at the end.
      noise: the part of it that noise keeps up.
    """

    largest: float
    learning_rate: float
    likely: Interval
    limited_by: Literal["stability", "noise"]
    loss: float
    noise: float

    @property
    def share(self) -> float:
        """The advised rate as a share of the largest."""
        return self.learning_rate / self.largest


def advise_rate(measured: Measured, drive: Drive) -> RateAdvice:
    """Chooses the learning rate of least expected loss at the end.

    At rate eta a clip of response p leaves gradients of ``p eta``. The largest rate is
    ``eta_max = a / (h p)``, with a the protocol's limit and h the curvature. After K steps of
    weight w, with S the mean sum of squared weights of a step, the expected loss f solves::

        f = progress(s) + eta S / (4 p w) * V(f) * sum_j q_j (1 - exp(-2 h_j s)) / (1 - x_j)
        s = p w eta K,    V(f) = V min(1, f / f_end),    x_j = eta h_j / (eta_max h_1)

    V is the variance of one gradient's noise at the end of the warm-up, where the loss was f_end;
    for losses >= 0 it falls with the loss, at least in proportion: by expected smoothness
    ``E norm(g)**2 <= 2 L E loss``. The share q_j of it falls on curvature h_j, and needs time to
    add up where that is small; the last factor is exact for modes with fresh gradients, and has its
    pole at the limit for stale ones, too. Each fit of the progress curve has its best rate; advised
    is their geometric mean by weight.

    Args:
      measured: of the problem.
      drive: of the protocol.

    Returns:
      A :class:`RateAdvice`.

    References:
      Ours. Gower et al., `SGD: General Analysis and Improved Rates
      <https://arxiv.org/abs/1901.09401>`_, 2019, for expected smoothness. Certainty: our reading.
    """
    largest = largest_rate(measured, drive)
    losses, _ = expected_losses(measured, drive, largest * _SHARES)
    best, weights = np.argmin(losses, axis=1), measured.curve.weights
    logs = np.log(_SHARES)[best]
    share = float(np.exp(weights @ logs))
    loss, noise = expected_losses(measured, drive, np.array(largest * share))
    order = np.argsort(logs)
    reached = np.cumsum(weights[order])
    low, high = (
        _SHARES[best[order[np.searchsorted(reached, q * reached[-1])]]] for q in (0.1, 0.9)
    )
    return RateAdvice(
        largest=largest,
        learning_rate=largest * share,
        likely=Interval(float(largest * low), float(largest * high)),
        limited_by="stability" if share > _CLOSE else "noise",
        loss=float(weights @ loss),
        noise=float(weights @ noise),
    )


def largest_rate(measured: Measured, drive: Drive) -> float:
    """Returns the largest stable learning rate."""
    return drive.limit / (measured.curvature * measured.clip.response)


def expected_losses(
    measured: Measured, drive: Drive, rates: np.ndarray, part: np.ndarray | float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the expected loss after a part of the time, and what noise has of it.

    Args:
      measured: of the problem.
      drive: of the protocol.
      rates: learning rates below the largest.
      part: of the time, in [0, 1]; broadcast against ``rates``.

    Returns:
      Two arrays ``[num_fits, ...]``.
    """
    response = measured.clip.response
    effective = response * drive.weight * np.asarray(rates)
    flow = effective * drive.num_commits * part
    nodes = np.maximum(measured.noise_curvatures, 0)
    relative = nodes / max(nodes.max(), measured.eigenvalues[0])
    shares = np.minimum(rates / largest_rate(measured, drive), 0.99)[..., np.newaxis]
    reached = -np.expm1(-2 * nodes * flow[..., np.newaxis]) / (1 - shares * relative)
    scale = rates * drive.squares / (4 * response * drive.weight) * measured.variance
    noise = scale * (reached @ measured.noise_shares)
    without = measured.curve.without_noise(flow)
    end = measured.loss_end
    if end <= 0:
        return without + noise, np.broadcast_to(noise, without.shape)
    # Below the loss of the warm-up's end, noise is less in proportion.
    small = without / (1 - np.minimum(noise / end, 0.999))
    losses = np.where(small < end, small, without + noise)
    return losses, losses - without


def time_to_match(
    measured: Measured, drive: Drive, advice: RateAdvice, level: float
) -> float | None:
    """Returns the share of the time in which the expected loss falls to a level, if it does."""
    rates = np.full(_PARTS.shape, advice.learning_rate)
    losses, _ = expected_losses(measured, drive, rates, _PARTS)
    reached = measured.curve.weights @ losses <= level * (1 + 1e-9)
    return float(_PARTS[np.argmax(reached)]) if reached.any() else None
