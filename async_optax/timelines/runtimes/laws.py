"""Laws of compute times, each by its inverse distribution function."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.special

from async_optax.timelines.runtimes.model import RuntimeModel, per_worker
from async_optax.validation import require_number

Quantile = Callable[[np.ndarray, Any], np.ndarray]


def _no_machine_spread(scale: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda draws: np.full(len(draws), scale)


def _ones(draws: np.ndarray, worker: Any = None) -> np.ndarray:
    del worker
    return np.ones_like(draws)


def _same_for_all(quantile: Callable[[np.ndarray], np.ndarray]) -> Quantile:
    return lambda draws, worker: quantile(draws)


def _gamma_quantile(shape: float) -> Callable[[np.ndarray], np.ndarray]:
    """Quantile of the Gamma law with mean 1."""
    return lambda draws: scipy.special.gammaincinv(shape, draws) / shape


def deterministic(times: float | Sequence[float] = 1.0) -> RuntimeModel:
    """Every job of worker j takes ``times[j]``.

    Args:
      times: one time > 0 for all workers, or one per worker.

    Returns:
      A runtime model.

    Raises:
      ValueError: if a time is not a finite number > 0; when used, if there is not one time
        per worker.

    Example:
      >>> next(deterministic(2.0).job_times(num_workers=1, seed=0)[0])
      2.0
    """
    require_number("times", np.asarray(times), above=0, scalar=False)
    given = np.asarray(times, np.float64)
    if given.ndim > 1 or not given.size:
        raise ValueError(f"times must be a number or one per worker, got shape {given.shape}")
    shown = times if given.size <= 8 else f"[{given.size} times]"
    return RuntimeModel(
        f"deterministic({shown})",
        lambda draws: per_worker("times", given, len(draws)),
        _ones,
    )


def gamma(mean: float = 1.0, cv: float = 0.1, machine_cv: float = 0.0) -> RuntimeModel:
    """Gamma-distributed times, with Gamma-distributed machine means.

    A job takes ``Gamma(shape=1/cv**2)`` scaled to its machine's mean; machine means are
    ``Gamma(shape=1/machine_cv**2)`` scaled to ``mean``.

    Args:
      mean: mean time of a job over machines, > 0.
      cv: coefficient of variation of the jobs of one machine, >= 0.001.
      machine_cv: coefficient of variation between machines, 0 (all equal) or >= 0.001.

    Returns:
      A runtime model.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> round(next(gamma(mean=2.0).job_times(num_workers=1, seed=0)[0]), 3)
      2.33

    References:
      Ali et al., `Task execution time modeling for heterogeneous computing systems
      <https://doi.org/10.1109/HCW.2000.843743>`_, 2000. Hakimi et al., `DANA
      <https://arxiv.org/abs/1907.11612>`_, 2019, use cv 0.1 and (as we recall) machine_cv 0.6.
    """
    require_number("mean", mean, above=0)
    require_number("cv", cv, at_least=0.001)
    if machine_cv != 0:
        require_number("machine_cv", machine_cv, at_least=0.001)
    between = _gamma_quantile(1 / machine_cv**2) if machine_cv else _ones
    spread = f", machine_cv={machine_cv:g}" if machine_cv else ""
    return RuntimeModel(
        f"gamma(mean={mean:g}, cv={cv:g}{spread})",
        lambda draws: mean * between(draws),
        _same_for_all(_gamma_quantile(1 / cv**2)),
    )


def exponential(mean: float = 1.0) -> RuntimeModel:
    """Exponentially distributed times: memoryless workers.

    Args:
      mean: mean time of a job, > 0.

    Returns:
      A runtime model.

    Raises:
      ValueError: if ``mean`` is out of range.

    Example:
      >>> round(next(exponential().job_times(num_workers=1, seed=0)[0]), 3)
      2.906
    """
    require_number("mean", mean, above=0)
    return RuntimeModel(
        f"exponential(mean={mean:g})",
        _no_machine_spread(mean),
        _same_for_all(lambda draws: -np.log1p(-draws)),
    )


def pareto(alpha: float, minimum: float = 1.0) -> RuntimeModel:
    """Pareto-distributed times: ``P(time > t) = (minimum / t) ** alpha``.

    Args:
      alpha: tail index > 0; the mean is infinite up to 1, the variance up to 2.
      minimum: shortest time, > 0.

    Returns:
      A runtime model.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> round(next(pareto(alpha=1.5).job_times(num_workers=1, seed=0)[0]), 3)
      6.941
    """
    require_number("alpha", alpha, above=0)
    require_number("minimum", minimum, above=0)
    return RuntimeModel(
        f"pareto(alpha={alpha:g}, minimum={minimum:g})",
        _no_machine_spread(minimum),
        _same_for_all(lambda draws: (1 - draws) ** (-1 / alpha)),
    )


def uniform(low: float, high: float) -> RuntimeModel:
    """Uniformly distributed times.

    Args:
      low: shortest time, > 0.
      high: longest time, > ``low``.

    Returns:
      A runtime model.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> round(next(uniform(1.0, 2.0).job_times(num_workers=1, seed=0)[0]), 3)
      1.945
    """
    require_number("low", low, above=0)
    require_number("high", high, above=low)
    return RuntimeModel(
        f"uniform({low:g}, {high:g})",
        _no_machine_spread(1.0),
        _same_for_all(lambda draws: low + (high - low) * draws),
    )


def lognormal(mean: float = 1.0, sigma: float = 0.5) -> RuntimeModel:
    """Log-normally distributed times: ``mean * exp(sigma * z - sigma**2 / 2)``, z normal.

    Args:
      mean: mean time of a job, > 0.
      sigma: standard deviation of the logarithm, > 0.

    Returns:
      A runtime model.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> round(next(lognormal(sigma=1.0).job_times(num_workers=1, seed=0)[0]), 3)
      3.007
    """
    require_number("mean", mean, above=0)
    require_number("sigma", sigma, above=0)
    return RuntimeModel(
        f"lognormal(mean={mean:g}, sigma={sigma:g})",
        _no_machine_spread(mean),
        _same_for_all(lambda draws: np.exp(sigma * _normal(draws) - sigma**2 / 2)),
    )


def half_normal(minimum: float = 1.0, sigma: float = 1.0) -> RuntimeModel:
    """A shortest time plus a delay: ``minimum * (1 + sigma * abs(z))``, z normal.

    With machine scales it is the law ``tau_i + abs(N(0, tau_i))`` of the Ringmaster experiments.

    Args:
      minimum: shortest time, > 0.
      sigma: of the delay, in units of ``minimum``, > 0.

    Returns:
      A runtime model.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> round(next(half_normal().job_times(num_workers=1, seed=0)[0]), 3)
      2.921

    References:
      Maranjyan, Tyurin, Richtarik, `Ringmaster ASGD <https://arxiv.org/abs/2501.16168>`_, 2025.
    """
    require_number("minimum", minimum, above=0)
    require_number("sigma", sigma, above=0)
    return RuntimeModel(
        f"half_normal(minimum={minimum:g}, sigma={sigma:g})",
        _no_machine_spread(minimum),
        _same_for_all(lambda draws: 1 - sigma * scipy.special.ndtri((1 - draws) / 2)),
    )


def _normal(draws: np.ndarray) -> np.ndarray:
    """The normal quantile, finite at 0."""
    return scipy.special.ndtri(np.maximum(draws, 2.0**-54))
