"""Do methods that bound their steps converge under heavy-tailed noise where others do not?

From the root of the repository: ``python -m experiments.heavy_tailed_logistic.run`` (``--help``).
"""

import argparse
import importlib.metadata
import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from rich.progress import Progress

import async_optax as ao
from async_optax import optimizers
from async_optax.report import all_or_nothing, format_rate, require_writable
from experiments.heavy_tailed_logistic.plots import plot_loss
from experiments.markdown import table_row

RESULTS = Path(__file__).parent / "results"
NUM_EXAMPLES, NUM_FEATURES, BATCH_SIZE = 1024, 32, 32
NUM_WORKERS = 32
RUNTIMES = ao.runtimes.two_speed(8.0, law=ao.runtimes.gamma(cv=0.5))
NUM_EVALUATIONS = 240
LAST_QUARTER = slice(-NUM_EVALUATIONS // 4, None)
LEVEL = 1 / 3  # of the initial excess loss: what converges stays below it

# Thresholds are the registry's defaults; both clips by norm have the same.
UNBOUNDED = {
    "sgd": optimizers.sgd,
    "delay_adaptive_sgd": partial(optimizers.delay_adaptive_sgd, num_workers=NUM_WORKERS),
    "staleness_aware_sgd": optimizers.staleness_aware_sgd,
    "dc_asgd": optimizers.dc_asgd,
}
_BY_NORM = {"clipping": "global_norm", "threshold": 1.0}
BOUNDED = {
    "clipped_sgd": optimizers.clipped_sgd,
    "normalized_momentum_sgd": optimizers.normalized_momentum_sgd,
    "async_heavy_tailed (norm)": partial(optimizers.async_heavy_tailed, **_BY_NORM),
    "async_heavy_tailed (coord)": optimizers.async_heavy_tailed,
}
METHODS = UNBOUNDED | BOUNDED

# Tail index and scale. The first is the question. The controls: a sixth of its scale; and no heavy
# tail, as alpha = 2 is Gaussian, with standard deviation 0.42.
NOISES = {"heavy": (1.5, 0.3), "heavy, 1/6": (1.5, 0.05), "Gaussian": (2.0, 0.3)}


class Grid(NamedTuple):
    """What every method goes through under every noise."""

    learning_rates: Sequence[float]
    seeds: Sequence[int]
    max_time: float


FULL = Grid([2.0**k for k in range(-14, 2)], range(5), max_time=400.0)
QUICK = Grid([2.0**-9, 2.0**-3], range(2), max_time=10.0)


@cache
def logistic() -> ao.Problem:
    """Returns logistic regression whose evaluation is the true excess loss, over all examples.

    Features are standard normal; labels are drawn from the model with parameters of norm 2, so
    that the minimum, which the excess counts from, is finite and unique.
    """
    rng = np.random.Generator(np.random.PCG64(0))
    x = rng.standard_normal((NUM_EXAMPLES, NUM_FEATURES))
    truth = rng.standard_normal(NUM_FEATURES)
    probability = 1 / (1 + np.exp(-2 * x @ truth / np.linalg.norm(truth)))
    x *= np.where(rng.random(NUM_EXAMPLES) < probability, 1, -1)[:, None]  # the label's sign
    best = np.zeros(NUM_FEATURES)
    for _ in range(20):  # Newton's method, in double precision
        wrong = 1 / (1 + np.exp(x @ best))
        best += np.linalg.solve(x.T * (wrong * (1 - wrong)) @ x, x.T @ wrong)
    minimum = np.mean(np.logaddexp(0, -x @ best))
    signed = jnp.asarray(x, jnp.float32)
    batch, evaluate = Partial(_sample, signed), Partial(_excess, signed, minimum)
    return ao.Problem(lambda key: jnp.zeros(NUM_FEATURES), _loss, batch, evaluate)


def _loss(params: jax.Array, signed: jax.Array, key: jax.Array | None) -> jax.Array:
    del key
    return jnp.mean(jnp.logaddexp(0.0, -signed @ params))


def _sample(signed: jax.Array, key: jax.Array, worker: jax.Array) -> jax.Array:
    del worker  # all workers draw from the same data
    return signed[jax.random.randint(key, (BATCH_SIZE,), 0, len(signed))]


def _excess(signed: jax.Array, minimum: float, params: jax.Array) -> dict[str, jax.Array]:
    return {"excess": _loss(params, signed, None) - minimum}


@cache
def _timeline(max_time: float, seed: int) -> ao.Timeline:
    protocol = ao.protocols.asynchronous()
    return ao.simulate_timeline(protocol, RUNTIMES, NUM_WORKERS, max_time=max_time, seed=seed)


def excess_loss(noise: str, method: str, rate: float, seed: int, max_time: float) -> np.ndarray:
    """Returns the excess loss over time, as a share of the initial one.

    What has diverged counts as the largest float32. For one seed, all methods and learning rates
    have the same timeline, batches and noise.
    """
    result = ao.simulate(
        logistic().with_noise(ao.noise.alpha_stable(*NOISES[noise])),
        METHODS[method](rate),
        _timeline(max_time, seed),
        key=jax.random.key(seed),
        lanes=1,
        evaluate_at=np.linspace(0, max_time, NUM_EVALUATIONS + 1).tolist(),
    )
    excess = result.evaluations["excess"].astype(np.float64)
    lost = NUM_EVALUATIONS + 1 - len(excess)
    return np.pad(excess / excess[0], (0, lost), constant_values=float(jnp.finfo("float32").max))


def judge(rates: Sequence[float], curves: Sequence[np.ndarray]) -> dict[str, Any]:
    """Judges a method at its own best learning rate: that of the least worst excess loss.

    ``curves`` are excess losses ``[num_seeds, num_times]`` for each rate. Worst and median are
    over the last quarter and all seeds; ``usual`` is the rate of the least median instead.
    """
    ends = np.stack(curves)[:, :, LAST_QUARTER]
    worst, median = ends.max(axis=(1, 2)), np.median(ends, axis=(1, 2))
    best, usual = int(np.argmin(worst)), int(np.argmin(median))
    at = [{"rate": rates[i], "worst": worst[i], "median": median[i]} for i in (best, usual)]
    return at[0] | {
        "usual": at[1],
        "at_grid_edge": best in (0, len(rates) - 1),
        "seeds_below": int(np.sum(ends[best].max(axis=1) < LEVEL)),
        "rates_below": int(np.sum(worst < LEVEL)),
        "worst_by_rate_and_seed": ends.max(axis=2).tolist(),
    }


def line(row: Mapping[str, Any]) -> str:
    """Returns a row as a line of the README's table."""
    rate = f"{format_rate(row['rate'])}{'*' if row['at_grid_edge'] else ''}"
    cells = [row["noise"], row["method"], "yes" if row["rates_below"] else "no", rate]
    cells += [f"{row[key]:.2g}" for key in ("worst", "median")]
    cells += [str(row["seeds_below"]), str(row["rates_below"]), format_rate(row["usual"]["rate"])]
    cells += [f"{row['usual'][key]:.2g}" for key in ("median", "worst")]
    return table_row(cells)


def run_grid(grid: Grid, threads: int) -> tuple[list[dict[str, Any]], dict[Any, np.ndarray]]:
    """Returns a row per noise and method, and all curves; draws a progress bar."""
    cells = [(n, m, rate) for n in NOISES for m in METHODS for rate in grid.learning_rates]
    jobs = [(*cell, seed, grid.max_time) for cell in cells for seed in grid.seeds]
    with Progress() as progress, ThreadPoolExecutor(threads) as pool:
        runs = pool.map(lambda job: excess_loss(*job), jobs)
        runs = np.stack(list(progress.track(runs, total=len(jobs), description="runs")))
    curves = dict(zip(cells, runs.reshape(len(cells), len(grid.seeds), -1), strict=True))
    rates = grid.learning_rates
    return [
        {"noise": n, "method": m} | judge(rates, [curves[n, m, rate] for rate in rates])
        for n in NOISES
        for m in METHODS
    ], curves


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--threads", type=int, default=2, help="runs at a time")
    parser.add_argument("--quick", action="store_true", help="a smoke test: numbers mean nothing")
    options = parser.parse_args(arguments)
    if options.quick and options.output == RESULTS:
        parser.error("--quick needs an --output of its own: its numbers mean nothing")
    require_writable(options.output)
    grid, started = QUICK if options.quick else FULL, time.perf_counter()
    rows, curves = run_grid(grid, options.threads)
    setting = {"runtimes": RUNTIMES.name, "num_workers": NUM_WORKERS, "noises": NOISES}
    summary = {
        "setting": setting | grid._asdict() | {"seeds": list(grid.seeds), "level": LEVEL},
        "versions": {n: importlib.metadata.version(n) for n in ("async_optax", "jax", "numpy")},
        "seconds": round(time.perf_counter() - started),
        "rows": rows,
    }
    with all_or_nothing(options.output) as staging:
        (staging / "summary.json").write_text(json.dumps(summary, indent=1, allow_nan=False) + "\n")
        plot_loss(staging / "loss.png", rows, curves, LEVEL)
    print("\n".join(line(row) for row in rows))


if __name__ == "__main__":
    main()
