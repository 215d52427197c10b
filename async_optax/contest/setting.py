"""The setting of a contest: who takes part, and what everyone shares."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from async_optax import optimizers
from async_optax.engine import Problem
from async_optax.timelines import Timeline, simulate_timeline
from async_optax.timelines.protocols import Protocol
from async_optax.timelines.runtimes import RuntimeModel
from async_optax.validation import require_count, require_number, require_seed

_MAX_ARRIVALS = 5e6
_MAX_WORKERS = 100_000
_MAX_EVALUATIONS = 100_000


@dataclasses.dataclass(frozen=True)
class Entrant:
    """A method under a protocol.

    Attributes:
      method: name in the registry.
      protocol: the protocol.
      arguments: of the method, beside the learning rate.
      variant: what distinguishes it from other entrants of the same method, or ``""``.
      baseline: whether speed-ups are counted from the fastest of these.
    """

    method: str
    protocol: Protocol
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    variant: str = ""
    baseline: bool = False

    @property
    def label(self) -> str:
        """The method and its variant."""
        return f"{self.method} ({self.variant})" if self.variant else self.method


@dataclasses.dataclass(frozen=True)
class Contest:
    """The setting that all entrants share.

    Attributes:
      problem: its evaluation must return ``accuracy``.
      entrants: who takes part.
      runtimes: compute times of the workers.
      num_workers: number of workers.
      max_time: simulated time that everyone has.
      learning_rates: the grid, ascending.
      seeds: of initialisation, batches, noise and compute times.
      target: accuracy to reach, in (0, 1].
      num_evaluations: evenly spaced in simulated time, after the one at the start.
      description: what else there is to say about the setting, as plain data for the summary.
    """

    problem: Problem
    entrants: Sequence[Entrant]
    runtimes: RuntimeModel
    num_workers: int
    max_time: float
    learning_rates: Sequence[float]
    seeds: Sequence[int]
    target: float
    num_evaluations: int = 100
    description: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def check(self) -> None:
        """Checks the setting before anything is computed.

        Raises:
          ValueError: naming what is wrong.
        """
        require_count("num_workers", self.num_workers)
        require_number("num_workers", self.num_workers, at_most=_MAX_WORKERS)
        require_number("max_time", self.max_time, above=0)
        require_number("target", self.target, above=0, at_most=1)
        require_count("num_evaluations", self.num_evaluations)
        require_number("num_evaluations", self.num_evaluations, at_most=_MAX_EVALUATIONS)
        labels = [(entrant.label, entrant.protocol.name) for entrant in self.entrants]
        for name, values in (
            ("entrants", labels),
            ("learning_rates", self.learning_rates),
            ("seeds", self.seeds),
        ):
            if not len(values):
                raise ValueError(f"{name} must not be empty")
            if len(set(values)) < len(values):
                raise ValueError(f"{name} must differ from each other, got {list(values)}")
        for learning_rate in self.learning_rates:
            require_number("learning_rate", learning_rate, above=0)
        for seed in self.seeds:
            require_seed(seed)
        self._check_length()
        for protocol in {entrant.protocol for entrant in self.entrants}:
            self.timeline(protocol, self.seeds[0])
        for entrant in self.entrants:
            optimizers.make(
                entrant.method, learning_rate=self.learning_rates[0], **entrant.arguments
            )
        self.problem.check()
        metrics: Mapping[str, Any] = {}
        if self.problem.evaluate is not None:
            params = jax.eval_shape(self.problem.init, jax.random.key(0))
            metrics = jax.eval_shape(self.problem.evaluate, params)
        if "accuracy" not in metrics:
            raise ValueError(f"problem.evaluate must return 'accuracy', got {sorted(metrics)}")

    def _check_length(self) -> None:
        """Estimates the arrivals when nobody waits, before simulating that many."""
        streams = self.runtimes.job_times(self.num_workers, self.seeds[0])
        means = [np.mean(list(itertools.islice(stream, 16))) for stream in streams]
        arrivals = float(np.sum(self.max_time / np.array(means)))
        if arrivals > _MAX_ARRIVALS:
            raise ValueError(
                f"max_time={self.max_time:g} means about {arrivals:.2g} arrivals per run; "
                f"at most {_MAX_ARRIVALS:.0e} are allowed"
            )

    def timeline(self, protocol: Protocol, seed: int) -> Timeline:
        """Returns the timeline that all methods under ``protocol`` share for a seed."""
        return simulate_timeline(
            protocol, self.runtimes, self.num_workers, max_time=self.max_time, seed=seed
        )
