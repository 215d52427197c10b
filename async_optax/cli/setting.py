"""Groups of flags that say how long jobs take and how noisy gradients are."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Literal

from async_optax import noise
from async_optax.timelines import runtimes
from async_optax.validation import require_number


@dataclasses.dataclass(frozen=True)
class Runtimes:
    """How long jobs take; each number belongs to the models named beside it."""

    model: Literal[
        "deterministic",
        "two_speed",
        "power_law",
        "gamma",
        "exponential",
        "lognormal",
        "half_normal",
        "pareto",
        "uniform",
    ] = "two_speed"
    mean: float = 1.0
    """Mean time of a job (of the fastest worker with two_speed and power_law; the shortest time
    with half_normal and pareto; not used with uniform)."""
    slow_factor: float = 8.0
    """two_speed: how much slower the slow half is."""
    exponent: float = 0.5
    """power_law: worker i of 1, 2, ... takes i ** exponent times as long."""
    cv: float = 0.5
    """two_speed, power_law and gamma: coefficient of variation of a worker's times; 0 is constant
    with the first two."""
    machine_cv: float = 0.0
    """gamma: coefficient of variation between workers."""
    sigma: float = 0.5
    """lognormal and half_normal: spread of the times."""
    alpha: float = 1.5
    """pareto: tail index."""
    low: float = 0.5
    """uniform: shortest time."""
    high: float = 1.5
    """uniform: longest time."""
    download: float = 0.0
    """Mean time to fetch the parameters, exponential; 0 is none. With any model, as below."""
    upload: float = 0.0
    """Mean time to send the result, exponential; 0 is none."""
    server: float = 0.0
    """Time the server takes for each arrival, one after another; 0 is none."""

    def make(self) -> runtimes.RuntimeModel:
        """Builds the runtime model."""
        for name in ("download", "upload", "server"):
            require_number(name, getattr(self, name), at_least=0)
        model = self._times()
        if self.download or self.upload:
            model = model.with_transfers(
                download=runtimes.exponential(self.download) if self.download else None,
                upload=runtimes.exponential(self.upload) if self.upload else None,
            )
        return model.with_server(runtimes.deterministic(self.server)) if self.server else model

    def _times(self) -> runtimes.RuntimeModel:
        match self.model:
            case "deterministic" | "exponential":
                return getattr(runtimes, self.model)(self.mean)
            case "gamma":
                return runtimes.gamma(self.mean, self.cv, self.machine_cv)
            case "lognormal" | "half_normal":
                return getattr(runtimes, self.model)(self.mean, self.sigma)
            case "pareto":
                return runtimes.pareto(self.alpha, self.mean)
            case "uniform":
                return runtimes.uniform(self.low, self.high)
        law = runtimes.gamma(cv=self.cv) if self.cv != 0 else None
        if self.model == "power_law":
            return runtimes.power_law(self.exponent, fast_time=self.mean, law=law)
        return runtimes.two_speed(self.slow_factor, fast_time=self.mean, law=law)


@dataclasses.dataclass(frozen=True)
class Noise:
    """Noise added to every gradient coordinate."""

    model: Literal["none", "alpha_stable", "student_t", "sub_weibull", "gaussian"] = "alpha_stable"
    tail: float = 1.2
    """alpha of alpha_stable, degrees of freedom of student_t, theta of sub_weibull."""
    scale: float = 0.05
    """In gradient units."""

    @property
    def name(self) -> str:
        """How the noise is made, for tables."""
        if self.model == "none":
            return "no noise"
        tail = "" if self.model == "gaussian" else f"{self.tail:g}, "
        return f"{self.model}({tail}scale={self.scale:g}) noise"

    def make(self) -> noise.NoiseModel | None:
        """Builds the noise model."""
        if self.model == "none":
            return None
        if self.model == "gaussian":
            return noise.gaussian(self.scale)
        return getattr(noise, self.model)(self.tail, self.scale)


@contextlib.contextmanager
def naming(flags: str) -> Iterator[None]:
    """Puts the group of flags before an error that names a function's argument."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{flags}: {error}") from error
