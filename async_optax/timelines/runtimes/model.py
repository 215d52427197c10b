"""The runtime model: how long jobs take, and when workers are there."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from async_optax.timelines.runtimes.availability import Availability, Given, Renewing
from async_optax.timelines.runtimes.speeds import Speeds
from async_optax.timelines.runtimes.streams import COMPUTE, DOWNTIME, MACHINES, UPTIME, stream
from async_optax.validation import require_count, require_seed

_FIRST_BLOCK, _LARGEST_BLOCK = 4, 32  # draws per call of a quantile: amortises its overhead


@dataclasses.dataclass(frozen=True)
class RuntimeModel:
    """Times of jobs: ``time = machine_scale * quantile(uniform, worker)``, and what surrounds them.

    A model has a time scale per machine, drawn once, and a law of the jobs' times in units of
    that scale. Both come from uniform draws through inverse distribution functions, one stream
    per worker: the k-th job of worker j computes equally long under every protocol, and a seed
    means the same times on every machine.

    Attributes:
      name: how the model was made, for tables and errors.
      machine_scales: maps uniform draws ``[num_workers]`` to time scales ``[num_workers]``.
      quantile: maps uniform draws in [0, 1) and the workers they are for (an index, or one per
        draw) to job times in units of the scale.
      machines: laws of which each machine draws a factor of its scale, once.
      download: law of the time to fetch the parameters, or ``None`` for no time.
      upload: law of the time to send the result, or ``None`` for no time.
      server: law of the time the server takes for an arrival, one after another, or ``None``.
      speeds: how fast machines are over time, or ``None`` for always equally fast.
      availability: when workers are there, or ``None`` for always.
    """

    name: str
    machine_scales: Callable[[np.ndarray], np.ndarray]
    quantile: Callable[[np.ndarray, Any], np.ndarray]
    machines: tuple["RuntimeModel", ...] = ()
    download: "RuntimeModel | None" = None
    upload: "RuntimeModel | None" = None
    server: "RuntimeModel | None" = None
    speeds: Speeds | None = None
    availability: Availability | None = None

    @property
    def only_computes(self) -> bool:
        """Whether a job is nothing but its compute time, on workers that are always there."""
        surroundings = (self.download, self.upload, self.server, self.speeds, self.availability)
        return all(part is None for part in surroundings)

    def job_times(self, num_workers: int, seed: int) -> list[Iterator[float]]:
        """Returns an endless stream of compute times for each worker.

        Args:
          num_workers: number of workers, >= 1.
          seed: an integer in [0, 2**31).

        Returns:
          One iterator per worker, in the model's time unit.

        Raises:
          ValueError: if the model cannot serve that many workers.

        Example:
          >>> from async_optax import runtimes
          >>> times = runtimes.deterministic([1.0, 4.0]).job_times(num_workers=2, seed=0)
          >>> next(times[0]), next(times[1])
          (1.0, 4.0)
        """
        require_count("num_workers", num_workers)
        require_seed(seed)
        return self.part_times(num_workers, seed, COMPUTE)

    def part_times(self, num_workers: int, seed: int, part: int) -> list[Iterator[float]]:
        """As :meth:`job_times`, from the streams of another part of a job, such as ``UPLOAD``."""
        scales = self.scales(num_workers, seed, part).tolist()
        return [self._times(seed, part, worker, scale) for worker, scale in enumerate(scales)]

    def scales(self, num_workers: int, seed: int, part: int = COMPUTE) -> np.ndarray:
        """Returns the machines' time scales, float64 ``[num_workers]``."""
        purpose = MACHINES if part == COMPUTE else part
        draws = stream(seed, purpose).random(num_workers)
        scales = np.ones(num_workers) * self.machine_scales(draws)
        for level, law in enumerate(self.machines):
            level_seed = (purpose, 0, level)  # no worker's stream has three numbers
            scales = scales * law.machine_scales(stream(seed, *level_seed, 0).random(num_workers))
            factors = stream(seed, *level_seed, 1).random(num_workers)
            scales *= law.quantile(factors, np.arange(num_workers))
        return scales

    def times(self, draws: np.ndarray, worker: Any, scale: Any) -> np.ndarray:
        """Returns the compute times that uniform draws mean for workers of these scales.

        Raises:
          ValueError: if one is not finite.
        """
        with np.errstate(over="ignore"):
            times = scale * self.quantile(draws, worker)
        if not np.isfinite(times).all():
            raise ValueError(f"{self.name} has drawn a time that is not finite: too heavy a tail")
        return times

    def _times(self, seed: int, part: int, worker: int, scale: float) -> Iterator[float]:
        draws, block = stream(seed, part, worker), _FIRST_BLOCK
        while True:
            yield from self.times(draws.random(block), worker, scale).tolist()
            block = min(4 * block, _LARGEST_BLOCK)

    def with_machines(self, law: "RuntimeModel") -> "RuntimeModel":
        """Returns the model on machines that differ: each multiplies its times by a draw of a law.

        Args:
          law: of the factors; ``deterministic([1.0, 2.0, 4.0])`` gives them one by one.

        Returns:
          A runtime model.

        Raises:
          TypeError: if ``law`` is not a runtime model.
          ValueError: if it has transfers, a server, speeds or failures of its own.

        Example:
          >>> from async_optax import runtimes
          >>> model = runtimes.exponential(2.0).with_machines(runtimes.deterministic([1.0, 3.0]))
          >>> model.scales(num_workers=2, seed=0)
          array([2., 6.])
        """
        require_law("law", law)
        name = f"{self.name}.with_machines({law.name})"
        return dataclasses.replace(self, name=name, machines=(*self.machines, law, *law.machines))

    def with_transfers(
        self, *, download: "RuntimeModel | None" = None, upload: "RuntimeModel | None" = None
    ) -> "RuntimeModel":
        """Returns the model with a download before, and an upload after, each computation.

        A job reads the server's version when its download starts, and arrives when its upload
        ends. Transfers have machine scales and streams of their own.

        Args:
          download: law of the download times, ``None`` for no time.
          upload: law of the upload times, ``None`` for no time.

        Returns:
          A runtime model.

        Raises:
          TypeError: if one is not a runtime model.
          ValueError: if one has transfers, a server, speeds or failures of its own, or the model
            has what this adds already.

        Example:
          >>> from async_optax import runtimes
          >>> runtimes.gamma().with_transfers(upload=runtimes.exponential(0.1)).name
          'gamma(mean=1, cv=0.1).with_transfers(upload=exponential(mean=0.1))'
        """
        self._require_without("transfers", self.download, self.upload)
        given = {k: v for k, v in {"download": download, "upload": upload}.items() if v is not None}
        if not given:
            raise ValueError("with_transfers needs a law for download, upload, or both")
        for name, law in given.items():
            require_law(name, law)
        shown = ", ".join(f"{name}={law.name}" for name, law in given.items())
        return dataclasses.replace(
            self, name=f"{self.name}.with_transfers({shown})", download=download, upload=upload
        )

    def with_server(self, law: "RuntimeModel") -> "RuntimeModel":
        """Returns the model with a server that handles arrivals one after another.

        An upload that ends while the server is busy queues, first come first served. The job
        arrives, and the worker hears of it, when the server is done with it. One that is thrown
        away while it queues, or whose worker leaves, is lost, and takes the server's time still.

        Args:
          law: of the server's time per arrival.

        Returns:
          A runtime model.

        Raises:
          TypeError: if ``law`` is not a runtime model.
          ValueError: if it has transfers, a server, speeds or failures of its own, or the model
            has a server already.

        Example:
          >>> from async_optax import runtimes
          >>> runtimes.gamma().with_server(runtimes.deterministic(0.01)).name
          'gamma(mean=1, cv=0.1).with_server(deterministic(0.01))'
        """
        self._require_without("a server", self.server)
        require_law("law", law)
        return dataclasses.replace(self, name=f"{self.name}.with_server({law.name})", server=law)

    def with_speeds(
        self,
        times: Sequence[float],
        speeds: Sequence[float] | Sequence[Sequence[float]],
        period: float | None = None,
    ) -> "RuntimeModel":
        """Returns the model on machines whose speed drifts: piecewise constant over time.

        A computation of drawn time ``w`` that starts at ``s`` ends at the ``t`` at which the
        integral of the speed from ``s`` to ``t`` is ``w``. Transfers and the server do not drift.

        Args:
          times: increasing starts of the pieces; the first is 0.
          speeds: > 0, one per piece for all workers, or one row per worker; 1 is as drawn.
          period: if given, the pieces repeat with this period, > the last of ``times``.

        Returns:
          A runtime model.

        Raises:
          ValueError: if the numbers are out of range or do not fit together, or the model has
            speeds already.

        Example:
          >>> from async_optax import runtimes
          >>> model = runtimes.deterministic(2.0).with_speeds([0.0, 1.0], [1.0, 0.5])
          >>> model.speeds.finish(worker=0, start=0.0, work=2.0)  # half of it at half the speed
          3.0
        """
        self._require_without("speeds", self.speeds)
        drift = Speeds.make(times, speeds, period)
        return dataclasses.replace(
            self, name=f"{self.name}.with_speeds({drift.name})", speeds=drift
        )

    def with_failures(
        self, up: "RuntimeModel", down: "RuntimeModel | None" = None
    ) -> "RuntimeModel":
        """Returns the model with workers that fail: a job is lost when its worker does.

        Args:
          up: law of the time from a worker's start, or return, to its failure.
          down: law of the time to its return; ``None`` if it never returns.

        Returns:
          A runtime model.

        Raises:
          TypeError: if one is not a runtime model.
          ValueError: if one has transfers, a server, speeds or failures of its own, or the model
            has what this adds already.

        Example:
          >>> from async_optax import runtimes
          >>> model = runtimes.gamma().with_failures(
          ...     runtimes.exponential(100.0), runtimes.deterministic(5.0)
          ... )
          >>> model.name
          'gamma(mean=1, cv=0.1).with_failures(exponential(mean=100), deterministic(5.0))'
        """
        self._require_without("failures or availability", self.availability)
        require_law("up", up)
        if down is not None:
            require_law("down", down)

        def spans(num_workers: int, seed: int) -> Renewing:
            ends = up.part_times(num_workers, seed, UPTIME)
            returns = None if down is None else down.part_times(num_workers, seed, DOWNTIME)
            return Renewing(ends, returns)

        name = f"{self.name}.with_failures({up.name}{f', {down.name}' if down else ''})"
        return dataclasses.replace(self, name=name, availability=Availability(spans))

    def with_availability(
        self, intervals: Mapping[int, Sequence[tuple[float, float]]]
    ) -> "RuntimeModel":
        """Returns the model with workers that join, leave and return at given times.

        Args:
          intervals: for some workers, the intervals ``(join, leave)`` in which they are there,
            in order; ``float("inf")`` is never to leave. Workers not named are always there.

        Returns:
          A runtime model.

        Raises:
          ValueError: if intervals are empty, overlap, or are out of order, or the model has
            failures already; when used, if a worker does not exist.

        Example:
          >>> from async_optax import runtimes
          >>> model = runtimes.deterministic().with_availability({1: [(5.0, 9.0)]})
          >>> list(model.availability.spans(2, 0).of(1))
          [(5.0, 9.0)]
        """
        self._require_without("failures or availability", self.availability)
        given = Given.checked(intervals)
        return dataclasses.replace(
            self,
            name=f"{self.name}.with_availability({len(given.intervals)} workers)",
            availability=Availability(given.for_workers),
        )

    def _require_without(self, what: str, *parts: Any) -> None:
        """Raises if a part is there already: nothing that was asked for is dropped in silence."""
        if any(part is not None for part in parts):
            raise ValueError(f"{self.name} has {what} already, and only one such part")


def require_law(name: str, law: Any) -> None:
    """Raises unless ``law`` is a runtime model that only computes."""
    if not isinstance(law, RuntimeModel):
        raise TypeError(f"{name} must be a runtime model such as exponential(), got {law!r}")
    if not law.only_computes:
        raise ValueError(
            f"{name} must be a plain law of times, without transfers, server, speeds or failures; "
            f"got {law.name}"
        )


def per_worker(name: str, values: np.ndarray, num_workers: int) -> np.ndarray:
    """Returns ``values``, one for all or one per worker, as ``[num_workers]``.

    Raises:
      ValueError: if their number is another.
    """
    if values.ndim == 1 and len(values) != num_workers:
        raise ValueError(f"{name} has {len(values)} entries for {num_workers} workers")
    return np.broadcast_to(values, num_workers)
