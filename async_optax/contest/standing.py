"""How the entrants of a contest did: their runs, and what they come to."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from async_optax.contest.setting import Contest, Entrant
from async_optax.engine import Divergence

NEAR_BEST = 0.02  # a learning rate counts as near the best within two points of accuracy


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


def standings(contest: Contest, runs: Mapping[tuple[int, float, int], Run]) -> list[Standing]:
    """Judges runs, given by index of the entrant, learning rate and seed."""
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
