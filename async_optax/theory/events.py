"""What is not applied or not sent: thresholds on staleness, and communication at events."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from async_optax.theory.arguments import checked_kernel
from async_optax.theory.recursion import spectral_radius, stability_limit
from async_optax.transforms import weights
from async_optax.validation import require_count, require_number

_LARGEST_RADIUS = 1 - 1e-5  # so that a response is summed in reasonable time
_SETTLED = 1e-12  # of the impulse response that is left when it is cut


def drop_above(kernel: ArrayLike, max_staleness: int) -> np.ndarray:
    """The kernel that is left when gradients above a staleness are ignored.

    What is ignored still counts as a commit, as under
    :func:`async_optax.optimizers.ringmaster_sgd`. A protocol that rejects it, and commits less
    often, makes another timeline: simulate that.

    Args:
      kernel: p >= 0, ``[max_staleness + 1]``.
      max_staleness: the largest that is applied, >= 0.

    Returns:
      float64, adding up to the share that is applied.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range, or nothing is left.

    Example:
      >>> drop_above([0.5, 0.25, 0.25], 1)
      array([0.5 , 0.25])

    References:
      A threshold on staleness is a parameter of Yu, Chen, Poor, `Distributed Stochastic Gradient
      Descent with Staleness <https://arxiv.org/abs/2406.11159>`_, 2025. Certainty: abstract; the
      formula is ours.
    """
    require_count("max_staleness", max_staleness, at_least=0)
    left = checked_kernel(kernel)[: max_staleness + 1]
    if not left.any():
        raise ValueError(f"max_staleness={max_staleness} leaves nothing of the kernel")
    return left


def reweigh(kernel: ArrayLike, weight_fn: weights.WeightFn) -> np.ndarray:
    """The kernel that is left when gradients are weighted by their staleness.

    Args:
      kernel: p >= 0, ``[max_staleness + 1]``.
      weight_fn: one of :mod:`async_optax.weights`.

    Returns:
      float64 ``[max_staleness + 1]``: ``p_j weight_fn(j)``.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range, or nothing is left.

    Example:
      >>> reweigh([0.5, 0.25, 0.25], weights.inverse())
      array([0.5  , 0.25 , 0.125])
    """
    old = checked_kernel(kernel)
    factors = np.asarray(weight_fn(np.arange(len(old), dtype=np.int32)), np.float64)
    return checked_kernel(old * factors)


class EventRun(NamedTuple):
    """A run in which gradients are sent at events.

    Attributes:
      params: float64 ``[num_commits + 1]``, the mode.
      sent: bool ``[num_commits]``, whether the gradient of the commit was sent.
    """

    params: np.ndarray
    sent: np.ndarray


def event_triggered(
    step: float, staleness: int, threshold: float, num_commits: int, *, start: float = 1.0
) -> EventRun:
    """Simulates a delayed mode whose worker sends only what has changed enough.

    At commit k the gradient is, in units of the curvature, ``g = x_{k-tau}``. If it differs from
    the last one sent by more than the threshold, or is the first, it is sent; else the server uses
    the last one sent again. Before the start all versions are ``start``.

    Args:
      step: a > 0, learning rate times curvature.
      staleness: tau >= 0.
      threshold: >= 0, in units of the parameters; 0 sends whatever has changed.
      num_commits: >= 1.
      start: x_0.

    Returns:
      :class:`EventRun`.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range.

    Example:
      >>> run = event_triggered(0.1, 4, threshold=0.05, num_commits=200)
      >>> bool(abs(run.params[-1]) <= residual_radius(0.1, 4, 0.05)), int(run.sent.sum())
      (True, 19)

    References:
      Communication at events is a parameter of Yu, Chen, Poor, `Distributed Stochastic Gradient
      Descent with Staleness <https://arxiv.org/abs/2406.11159>`_, 2025. Certainty: abstract; the
      rule is our reading.
    """
    _check(step, staleness, threshold)
    require_count("num_commits", num_commits)
    require_number("start", start)
    params, sent = [float(start)], np.zeros(num_commits, bool)
    held = np.inf
    for k in range(num_commits):
        gradient = params[max(k - staleness, 0)]
        sent[k] = abs(gradient - held) > threshold
        if sent[k]:
            held = gradient
        params.append(params[k] - step * held)
    return EventRun(np.array(params), sent)


def residual_radius(step: float, staleness: int, threshold: float) -> float:
    """How far from the minimum a mode may stay when small changes are not sent.

    The server then moves by ``x_{k+1} = x_k - a (x_{k-tau} + d_k)`` with ``abs(d_k)`` at most the
    threshold, so the limit of stability is as before, and in the end
    ``abs(x) <= a threshold sum_k abs(G_k)``, G the response of the mode to one unit push.

    Args:
      step: a > 0, below :func:`async_optax.theory.stability_limit`.
      staleness: tau >= 0.
      threshold: >= 0, in units of the parameters.

    Returns:
      The bound, in units of the parameters: the threshold itself while the mode does not
      oscillate.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range.

    Example:
      >>> round(residual_radius(0.05, 4, 0.1), 4), round(residual_radius(0.3, 4, 0.1), 3)
      (0.1, 0.976)

    References:
      Our derivation. Certainty: checked by simulation. The bound is the least that holds for all
      disturbances of this size; those of events are milder.
    """
    _check(step, staleness, threshold)
    limit = stability_limit(staleness)
    if spectral_radius(step, staleness) > _LARGEST_RADIUS or step >= limit:
        raise ValueError(f"step must be well below the limit {limit:.6g}, got {step}")
    response, total = [0.0] * staleness + [1.0], 0.0
    window = staleness + 1
    while sum(abs(value) for value in response[-window:]) > _SETTLED * max(total, 1.0):
        for _ in range(window):
            total += abs(response[-1])
            response.append(response[-1] - step * response[-window])
        del response[:-window]
    return step * threshold * total


def _check(step: float, staleness: int, threshold: float) -> None:
    require_number("step", step, above=0)
    require_count("staleness", staleness, at_least=0)
    require_number("threshold", threshold, at_least=0)
