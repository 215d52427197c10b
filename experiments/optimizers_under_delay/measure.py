"""The runs: numbers searched on one seed, then judged on fresh ones."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import async_optax as ao
from experiments.ledger import Ledger
from experiments.optimizers_under_delay import config
from experiments.optimizers_under_delay.config import NONE, OPTIMIZERS, Delay, Preset

FURTHEST = 6  # doublings or halvings from where a search starts
Done = Callable[[str], None]


class Bench:
    """Runs of one preset.

    Args:
      preset: how much is computed.
      ledger: where runs are stored as they end.
    """

    def __init__(self, preset: Preset, ledger: Ledger):
        text = config.load(preset)
        self.preset, self._ledger = preset, ledger
        self._problem = config.make_problem(preset, text)
        self._guessing = config.guessing(text)
        self._timelines = {
            delay: config.make_timeline(preset, delay)
            for delay in dict.fromkeys((*preset.delays, *preset.remedied))
        }
        decides = dataclasses.asdict(preset)
        for grid in (
            "optimizers",
            "remedied",
            "remedies",
            "strengths",
            "thresholds",
            "tuned_on",
            "seeds",
        ):
            decides.pop(grid)
        decides.pop("delays")
        self._decides = decides

    def run(
        self, name: str, delay: Delay, remedy: str, extra: float, rate: float, seed: int
    ) -> dict[str, Any]:
        """Returns the ``losses`` over a run, its last ``loss``, and if it ``diverged``."""
        description = self._decides | {
            "optimizer": name,
            "delay": dataclasses.asdict(delay),
            "remedy": remedy,
            "extra": extra,
            "learning_rate": rate,
            "seed": seed,
        }
        return self._ledger.run(
            description, lambda: self._computed(name, delay, remedy, extra, rate, seed)
        )

    def _computed(
        self, name: str, delay: Delay, remedy: str, extra: float, rate: float, seed: int
    ) -> dict[str, Any]:
        started, preset = time.perf_counter(), self.preset
        optimizer = config.under_delay(
            rate,
            name,
            remedy,
            float(preset.num_updates),
            extra,
            float(delay.most),
            config.stage_delays(delay, preset.num_layers),
        )
        result = ao.simulate(
            self._problem,
            optimizer,
            self._timelines[delay],
            key=jax.random.key(seed),
            worker=ao.pipeline.gradient() if delay.by_stage else None,
            lanes=1,
            evaluate_every=preset.num_updates // preset.num_evaluations,
        )
        counted = result.evaluations["version"] <= preset.num_updates
        values = np.log(result.evaluations["perplexity"][counted])
        losses = np.full(preset.num_evaluations + 1, self._guessing)
        finite = np.isfinite(values)
        losses[: len(values)][finite] = np.minimum(values[finite], 2 * self._guessing)
        return {
            "losses": [round(float(loss), 4) for loss in losses],
            "loss": round(min(float(losses[-1]), self._guessing), 4),
            "diverged": result.diverged is not None,
            "seconds": round(time.perf_counter() - started, 2),
        }

    def searched(
        self, name: str, delay: Delay, remedy: str, extra: float, start: float
    ) -> dict[float, float]:
        """Returns losses by learning rate: from a start, by factors of 2, to a best one inside.

        The search ends when both neighbours of the best rate have been tried, or after
        ``FURTHEST`` steps to one side.
        """
        found: dict[int, float] = {}

        def loss(k: int) -> float:
            if k not in found:
                seed = self.preset.tuned_on
                found[k] = self.run(name, delay, remedy, extra, start * 2.0**k, seed)["loss"]
            return found[k]

        best = 0
        while True:
            nearest = [k for k in (best - 1, best, best + 1) if abs(k) <= FURTHEST]
            following = min(nearest, key=lambda k: (loss(k), k))  # all diverge: lower
            if following == best:
                return {start * 2.0**k: found[k] for k in sorted(found)}
            best = following


def measure(preset: Preset, ledger: Ledger, done: Done) -> dict[str, Any]:
    """Returns ``rows``, one per optimizer, delay and remedy; says what is done.

    The learning rate is searched from where the optimizer's last search ended. Strengths and
    thresholds are compared at the best rate without a remedy; the best of them, and of the rates
    around, is taken.
    """
    bench, rows = Bench(preset, ledger), []
    rates: dict[tuple[str, Delay], float] = {}
    for name in preset.optimizers:
        start = OPTIMIZERS[name]
        for delay in preset.delays:
            row = _row(bench, name, delay, NONE, [(0.0, start)])
            start = rates[name, delay] = row["learning_rate"]
            rows.append(row)
            done(_said(row))
    for delay in preset.remedied:
        for name in preset.optimizers:
            for remedy in preset.remedies:
                start = rates[name, delay]
                tried = [(extra, start) for extra in config.extras(preset, remedy)]
                rows.append(_row(bench, name, delay, remedy, tried))
                done(_said(rows[-1]))
    return {"rows": rows}


def _said(row: dict[str, Any]) -> str:
    losses = ", ".join(f"{loss:.3f}" for loss in row["losses"])
    return f"{row['optimizer']}, {row['delay']}, {row['remedy']} {row['extra']:g}: {losses}"


def _row(
    bench: Bench, name: str, delay: Delay, remedy: str, tried: list[tuple[float, float]]
) -> dict[str, Any]:
    seed = bench.preset.tuned_on
    by_extra = {
        extra: bench.run(name, delay, remedy, extra, rate, seed)["loss"] for extra, rate in tried
    }
    extra = min(by_extra, key=lambda value: by_extra[value])
    by_rate = bench.searched(name, delay, remedy, extra, tried[0][1])
    rate = min(by_rate, key=lambda value: by_rate[value])
    fresh = [bench.run(name, delay, remedy, extra, rate, seed) for seed in bench.preset.seeds]
    return {
        "optimizer": name,
        "delay": delay.name,
        "remedy": remedy,
        "learning_rate": rate,
        "at_edge": rate in (min(by_rate), max(by_rate)),
        "extra": extra,
        "by_extra": [[value, loss] for value, loss in by_extra.items()],
        "by_rate": [[value, loss] for value, loss in by_rate.items()],
        "losses": [run["loss"] for run in fresh],
        "curves": [run["losses"] for run in fresh],
        "diverged": sum(run["diverged"] for run in fresh),
        "seconds": [run["seconds"] for run in fresh],
    }
