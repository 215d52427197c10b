"""Runtime models: how long a worker takes for a job.

A model has two parts: a time scale per machine, drawn once, and a law of the jobs' times in
units of that scale. Both come from uniform draws through inverse distribution functions, one
stream per worker: the k-th job of worker j takes the same time under every protocol, and a
seed means the same times on every machine.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import scipy.special

from async_optax.validation import require_count, require_number, require_seed

_BLOCK = 256  # draws per call of a quantile: amortises NumPy's overhead


@dataclasses.dataclass(frozen=True)
class RuntimeModel:
    """Distribution of compute times: ``time = machine_scale * quantile(uniform)``.

    Attributes:
      name: how the model was made, for tables and errors.
      machine_scales: maps uniform draws ``[num_workers]`` to time scales ``[num_workers]``.
      quantile: maps uniform draws in [0, 1) to job times in units of the scale.
    """

    name: str
    machine_scales: Callable[[np.ndarray], np.ndarray]
    quantile: Callable[[np.ndarray], np.ndarray]

    def job_times(self, num_workers: int, seed: int) -> list[Iterator[float]]:
        """Returns an endless stream of job times for each worker.

        Args:
          num_workers: number of workers, >= 1.
          seed: a non-negative integer.

        Returns:
          One iterator per worker, in the model's time unit.

        Raises:
          ValueError: if the model cannot serve that many workers.

        Example:
          >>> times = deterministic([1.0, 4.0]).job_times(num_workers=2, seed=0)
          >>> next(times[0]), next(times[1])
          (1.0, 4.0)
        """
        require_count("num_workers", num_workers)
        require_seed(seed)
        machine_draws = _stream(seed, 0).random(num_workers)
        scales = np.broadcast_to(self.machine_scales(machine_draws), num_workers)
        return [
            self._worker_times(_stream(seed, 1, worker), float(scale))
            for worker, scale in enumerate(scales)
        ]

    def _worker_times(self, stream: np.random.Generator, scale: float) -> Iterator[float]:
        while True:
            yield from (scale * self.quantile(stream.random(_BLOCK))).tolist()


def _stream(seed: int, *path: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=path)))


def _no_machine_spread(scale: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda draws: np.full(len(draws), scale)


def _ones(draws: np.ndarray) -> np.ndarray:
    return np.ones_like(draws)


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
    per_worker = np.asarray(times, np.float64)
    if per_worker.ndim > 1:
        raise ValueError(f"times must be a number or one per worker, got shape {per_worker.shape}")

    def machine_scales(draws: np.ndarray) -> np.ndarray:
        if per_worker.ndim == 1 and len(per_worker) != len(draws):
            raise ValueError(f"times has {len(per_worker)} entries for {len(draws)} workers")
        return np.broadcast_to(per_worker, len(draws))

    return RuntimeModel(f"deterministic({times})", machine_scales, _ones)


def two_speed(
    slow_factor: float,
    *,
    slow_fraction: float = 0.5,
    fast_time: float = 1.0,
    law: RuntimeModel | None = None,
) -> RuntimeModel:
    """Some workers are slower than the others by a constant factor.

    The first workers take ``fast_time`` per job, the last ``round(slow_fraction * n)`` of the
    n workers ``slow_factor * fast_time``; with a ``law``, these are scales of random times.

    Args:
      slow_factor: D >= 1.
      slow_fraction: share of slow workers, in [0, 1].
      fast_time: time unit of the fast workers, > 0.
      law: a model whose job times multiply the scale, such as ``exponential()``; its own
        machine scales are not used. ``None`` is deterministic.

    Returns:
      A runtime model.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> times = two_speed(8.0).job_times(num_workers=4, seed=0)
      >>> [next(t) for t in times]
      [1.0, 1.0, 8.0, 8.0]

    References:
      The straggler model of Erickson, Johansson, `Clipping Makes Distributed and Federated
      Asynchronous SGD Robust to Stragglers <https://arxiv.org/abs/2606.13287>`_, 2026.
    """
    require_number("slow_factor", slow_factor, at_least=1)
    require_number("slow_fraction", slow_fraction, at_least=0, at_most=1)
    require_number("fast_time", fast_time, above=0)
    if law is not None and not isinstance(law, RuntimeModel):
        raise TypeError(f"law must be a runtime model such as exponential(), got {law!r}")

    def machine_scales(draws: np.ndarray) -> np.ndarray:
        slow = np.arange(len(draws)) >= len(draws) - round(slow_fraction * len(draws))
        return np.where(slow, slow_factor * fast_time, fast_time)

    name = f"two_speed({slow_factor:g}, slow_fraction={slow_fraction:g}, fast_time={fast_time:g}"
    name += f", law={law.name})" if law else ")"
    return RuntimeModel(name, machine_scales, law.quantile if law else _ones)


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
        _gamma_quantile(1 / cv**2),
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
        lambda draws: -np.log1p(-draws),
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
        lambda draws: (1 - draws) ** (-1 / alpha),
    )
