"""A contest of methods and protocols on one problem, over learning rates and seeds."""

import concurrent.futures
import dataclasses
import itertools
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from async_optax import optimizers
from async_optax.engine import Divergence, Problem, simulate
from async_optax.timelines import Timeline, simulate_timeline
from async_optax.timelines.protocols import Protocol
from async_optax.timelines.runtimes import RuntimeModel
from async_optax.validation import require_count, require_number, require_seed

_MAX_ARRIVALS = 5e6
NEAR_BEST = 0.02  # a learning rate counts as near the best within two points of accuracy


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
        require_number("max_time", self.max_time, above=0)
        require_number("target", self.target, above=0, at_most=1)
        require_count("num_evaluations", self.num_evaluations)
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


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One entrant at one learning rate and seed.

    Attributes:
      seed: of the run.
      time: simulated times of the evaluations.
      accuracy: at those times; ends before the divergence, if any.
      time_to_target: simulated time, or ``None`` if the target was not reached, or not kept
        because the run diverged.
      diverged: where the run diverged, or ``None``.
    """

    seed: int
    time: np.ndarray
    accuracy: np.ndarray
    time_to_target: float | None
    diverged: Divergence | None

    @property
    def final_accuracy(self) -> float:
        """Accuracy at the end; 0 for a run that diverged, whatever it had reached before."""
        return 0.0 if self.diverged else float(self.accuracy[-1])


@dataclasses.dataclass(frozen=True, eq=False)
class Standing:
    """How an entrant did: at its best learning rate, and over the grid.

    Attributes:
      entrant: who.
      runs: ``runs[learning_rate]``, one per seed.
      learning_rate: the best, by mean final accuracy.
      fastest_learning_rate: the one with the least mean time to the target, or ``None``.
      speedup: at the best learning rate, over the fastest baseline at its own; or ``None`` if
        either never reached the target.
    """

    entrant: Entrant
    runs: Mapping[float, Sequence[Run]]
    learning_rate: float
    fastest_learning_rate: float | None
    speedup: float | None

    @property
    def best(self) -> Sequence[Run]:
        """The runs at the best learning rate, one per seed."""
        return self.runs[self.learning_rate]

    @property
    def final_accuracies(self) -> list[float]:
        """Final accuracy at the best learning rate, one per seed."""
        return [run.final_accuracy for run in self.best]

    @property
    def time_to_target(self) -> float | None:
        """Mean over seeds, or ``None`` unless all of them reached the target."""
        return mean_time_to_target(self.best)

    @property
    def fastest_time_to_target(self) -> float | None:
        """Mean over seeds at the learning rate where it is least, or ``None``."""
        if self.fastest_learning_rate is None:
            return None
        return mean_time_to_target(self.runs[self.fastest_learning_rate])

    def mean_accuracies(self) -> dict[float, float]:
        """Returns the mean final accuracy for each learning rate of the grid."""
        return {
            learning_rate: float(np.mean([run.final_accuracy for run in runs]))
            for learning_rate, runs in self.runs.items()
        }

    def num_near_best(self) -> int:
        """Returns how many learning rates stay within two points of the best; 0 if all diverge."""
        means = np.array(list(self.mean_accuracies().values()))
        if means.max() == 0:
            return 0
        # A hair of tolerance: accuracies are float32 and the bound is decimal.
        return int(np.sum(means >= means.max() - NEAR_BEST - 1e-6))


def mean_time_to_target(runs: Sequence[Run]) -> float | None:
    """Returns the mean time to the target, or ``None`` unless every run reached it."""
    times = [run.time_to_target for run in runs if run.time_to_target is not None]
    return float(np.mean(times)) if len(times) == len(runs) else None


def run_contest(
    contest: Contest, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Standing]:
    """Runs all entrants at all learning rates and seeds.

    Entrants under one protocol share its timeline; all share batches and noise by job. Runs
    go one by one through as many threads as there are cores, with one lane each.

    Args:
      contest: the setting.
      progress: called with the number of runs done and in all.

    Returns:
      One standing per entrant, in their order.

    Raises:
      ValueError: if the setting is not valid.
    """
    contest.check()
    protocols = {entrant.protocol for entrant in contest.entrants}
    timelines = {
        (protocol, seed): contest.timeline(protocol, seed)
        for protocol in protocols
        for seed in contest.seeds
    }
    cells = [
        (entrant, learning_rate, seed)
        for entrant in range(len(contest.entrants))
        for learning_rate in contest.learning_rates
        for seed in contest.seeds
    ]
    stopped = threading.Event()

    def stop_if_asked(done: int, total: int) -> None:
        if stopped.is_set():
            raise concurrent.futures.CancelledError

    progress(0, len(cells))
    evaluate_at = np.linspace(0, contest.max_time, contest.num_evaluations + 1).tolist()

    def run(cell: tuple[int, float, int]) -> Run:
        entrant, learning_rate, seed = contest.entrants[cell[0]], *cell[1:]
        result = simulate(
            contest.problem,
            optimizers.make(entrant.method, learning_rate=learning_rate, **entrant.arguments),
            timelines[entrant.protocol, seed],
            key=jax.random.key(seed),
            lanes=1,
            evaluate_at=evaluate_at,
            progress=stop_if_asked,
        )
        return Run(
            seed=seed,
            time=result.evaluations["time"],
            accuracy=result.evaluations["accuracy"],
            time_to_target=None if result.diverged else result.time_to("accuracy", contest.target),
            diverged=result.diverged,
        )

    runs: dict[tuple[int, float, int], Run] = {}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        futures = {pool.submit(run, cell): cell for cell in cells}
        try:
            for future in concurrent.futures.as_completed(futures):
                runs[futures[future]] = future.result()
                progress(len(runs), len(cells))
        except BaseException:
            stopped.set()  # runs under way end at their next chunk
            pool.shutdown(cancel_futures=True)
            raise
    return _standings(contest, runs)


def _standings(contest: Contest, runs: Mapping[tuple[int, float, int], Run]) -> list[Standing]:
    by_entrant: list[dict[float, list[Run]]] = [
        {lr: [runs[i, lr, seed] for seed in contest.seeds] for lr in contest.learning_rates}
        for i in range(len(contest.entrants))
    ]
    best = [_best_learning_rate(grid) for grid in by_entrant]
    times = [mean_time_to_target(grid[lr]) for grid, lr in zip(by_entrant, best, strict=True)]
    baselines = [
        time
        for entrant, time in zip(contest.entrants, times, strict=True)
        if entrant.baseline and time is not None
    ]
    baseline = min(baselines, default=None)
    return [
        Standing(entrant, grid, lr, _fastest_learning_rate(grid), _ratio(baseline, time))
        for entrant, grid, lr, time in zip(contest.entrants, by_entrant, best, times, strict=True)
    ]


def _fastest_learning_rate(runs: Mapping[float, Sequence[Run]]) -> float | None:
    times = {lr: mean_time_to_target(at_rate) for lr, at_rate in runs.items()}
    reached = {lr: time for lr, time in times.items() if time is not None}
    return min(reached, key=lambda lr: reached[lr], default=None)


def _ratio(baseline: float | None, time: float | None) -> float | None:
    # A target that holds at the start is reached at time 0: no speed-up can be told.
    return baseline / time if baseline is not None and time else None


def _best_learning_rate(runs: Mapping[float, Sequence[Run]]) -> float:
    """Highest mean final accuracy; ties go to the earlier target, then the later divergence."""

    def merit(learning_rate: float) -> tuple[float, float, float]:
        at_rate = runs[learning_rate]
        reached = mean_time_to_target(at_rate)
        survived = [run.diverged.time if run.diverged else np.inf for run in at_rate]
        accuracy = float(np.mean([run.final_accuracy for run in at_rate]))
        return accuracy, -np.inf if reached is None else -reached, min(survived)

    return max(runs, key=merit)
