"""How many workers are worth having: the speed of the slowest mode in wall-clock time."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from async_optax.theory.arguments import checked_row
from async_optax.theory.characteristic_roots import damping
from async_optax.theory.recursion import spectral_radius, stability_limit
from async_optax.theory.replay import replayed_growth
from async_optax.timelines import simulate_timeline
from async_optax.timelines.protocols import Protocol
from async_optax.timelines.runtimes import RuntimeModel
from async_optax.validation import require_choice, require_count, require_number, require_seed

_MODELS = ("discrete", "continuum")
_COMMITS, _COMMITS_PER_WORKER = 2000, 100


class BestWorkers(NamedTuple):
    """The best number of workers.

    Attributes:
      num_workers: M with the largest rate.
      rate: of the slowest mode, per unit of time.
      cap: the largest M at which all modes converge, as a real number.
    """

    num_workers: int
    rate: float
    cap: float


def worker_rates(
    learning_rate: float,
    curvatures: ArrayLike,
    num_workers: ArrayLike,
    *,
    mean_time: float = 1.0,
    model: str = "discrete",
) -> np.ndarray:
    """How fast the slowest mode dies out, in wall-clock time, with more and more equal workers.

    M asynchronous workers that take the same time mu make ``M / mu`` commits per unit of time, of
    staleness ``M - 1``. A mode of curvature h dies out at the rate ``-log(radius) M / mu``, with
    :func:`async_optax.theory.spectral_radius` of the step ``eta h``; in the continuum at
    ``-Re W_0(-eta h (M - 1)) M / ((M - 1) mu)``, and at ``eta h / mu`` for one worker.

    At a fixed learning rate, which is what noise leaves free, the rate grows with M, faster than M
    itself, until the stiffest mode starts to swing; then it falls. With the best rate for
    each M the rate hardly depends on M: without noise, more workers only make steps smaller.

    Args:
      learning_rate: eta > 0.
      curvatures: h > 0 of the modes; those of the slowest and the stiffest are enough.
      num_workers: M >= 1, ``[num]``.
      mean_time: mu > 0, of a gradient.
      model: ``"discrete"``, exact for equal deterministic times, or ``"continuum"``.

    Returns:
      float64 ``[num]``, per unit of time: the least over the modes, negative if one diverges.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range.

    Example:
      >>> worker_rates(0.1, [0.1, 1.0], [1, 4, 13, 16]).round(3)
      array([0.01 , 0.041, 0.15 , 0.009])
    """
    workers = np.asarray(num_workers)
    if workers.dtype.kind not in "iu" or workers.ndim != 1:
        raise TypeError(f"num_workers must be one row of integers >= 1, got {num_workers!r}")
    checked_row("num_workers", workers, at_least=1)
    modes = _checked_modes(learning_rate, curvatures, mean_time, model)
    steps, lags = modes[:, None], workers - 1
    if model == "discrete":
        with np.errstate(divide="ignore"):
            rates = -np.log(spectral_radius(steps, lags))
    else:
        rates = np.asarray(damping(steps, lags))
    return rates.min(axis=0) * workers / mean_time


def best_num_workers(
    learning_rate: float,
    curvatures: ArrayLike,
    *,
    mean_time: float = 1.0,
    model: str = "discrete",
    max_workers: int | None = None,
) -> BestWorkers:
    """The number of equal asynchronous workers at which the slowest mode dies out fastest.

    The largest of :func:`worker_rates` over all M up to the cap
    ``1 + pi / (2 eta h_max)`` of the continuum, or the M at which the exact limit
    ``2 sin(pi / (2 (2 M - 1)))`` is ``eta h_max``. For a single mode it is close to
    ``1 + 1 / (e eta h)``.

    Args:
      learning_rate: eta > 0.
      curvatures: h > 0 of the modes; those of the slowest and the stiffest are enough.
      mean_time: mu > 0, of a gradient.
      model: ``"discrete"``, exact for equal deterministic times, or ``"continuum"``.
      max_workers: how many there are at most, >= 1; ``None``: no bound.

    Returns:
      :class:`BestWorkers`.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range, or even one worker diverges.

    Example:
      >>> best = best_num_workers(0.1, [0.1, 1.0], model="continuum")
      >>> best.num_workers, round(best.rate, 3), round(best.cap, 1)
      (13, 0.149, 16.7)

    References:
      Our derivation, after Yu, Chen, Poor, `Distributed Stochastic Gradient Descent with Staleness
      <https://arxiv.org/abs/2406.11159>`_, 2025. Certainty: abstract; checked by simulation.
    """
    modes = _checked_modes(learning_rate, curvatures, mean_time, model)
    if max_workers is not None:
        require_count("max_workers", max_workers)
    step = modes.max()
    if step >= stability_limit(0):
        raise ValueError(
            f"learning_rate must be < {2 / step * learning_rate:.6g}, above which even one worker "
            f"diverges, got {learning_rate}"
        )
    if model == "discrete":
        cap = (np.pi / (2 * np.arcsin(step / 2)) + 1) / 2
    else:
        cap = 1 + np.pi / (2 * step)
    last = int(cap) if max_workers is None else min(int(cap), max_workers)
    workers = np.arange(1, last + 1)
    rates = worker_rates(learning_rate, curvatures, workers, mean_time=mean_time, model=model)
    best = int(np.argmax(rates))
    return BestWorkers(int(workers[best]), float(rates[best]), float(cap))


def simulated_worker_rates(
    protocol: Protocol,
    runtimes: RuntimeModel,
    learning_rate: float,
    curvatures: ArrayLike,
    num_workers: Sequence[int],
    *,
    num_commits: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """How fast the slowest mode dies out under any protocol and any compute times.

    As :func:`worker_rates`, by :func:`async_optax.theory.replayed_growth` on a simulated timeline
    for each number of workers.

    Args:
      protocol: one of :mod:`async_optax.protocols`.
      runtimes: one of :mod:`async_optax.runtimes`.
      learning_rate: eta > 0.
      curvatures: h > 0 of the modes; those of the slowest and the stiffest are enough.
      num_workers: integers >= 1, ``[num]``.
      num_commits: length of each timeline; ``None`` is 2000, and 100 more for each worker.
      seed: of the timelines.

    Returns:
      float64 ``[num]``, per unit of simulated time; negative where a mode diverges.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range, or the protocol cannot run on so many workers.

    Example:
      >>> import async_optax as ao
      >>> rates = simulated_worker_rates(
      ...     ao.protocols.asynchronous(), ao.runtimes.gamma(cv=0.5), 0.1, [0.1, 1.0], [1, 8, 13]
      ... )
      >>> rates.round(2)
      array([0.01, 0.09, 0.15])
    """
    modes = _checked_modes(learning_rate, curvatures, 1.0, "discrete")
    require_seed(seed)
    rates = []
    for workers in num_workers:
        require_count("num_workers", workers)
        length = num_commits or _COMMITS + _COMMITS_PER_WORKER * workers
        timeline = simulate_timeline(protocol, runtimes, workers, num_commits=length, seed=seed)
        growth = replayed_growth(timeline, [modes.min(), modes.max()]).max()
        rates.append(-growth * timeline.num_commits / timeline.commit_times[-1])
    return np.array(rates)


def _checked_modes(
    learning_rate: float, curvatures: ArrayLike, mean_time: float, model: str
) -> np.ndarray:
    require_number("learning_rate", learning_rate, above=0)
    modes = checked_row("curvatures", np.atleast_1d(np.asarray(curvatures)), above=0)
    require_number("mean_time", mean_time, above=0)
    require_choice("model", model, _MODELS)
    return learning_rate * modes
