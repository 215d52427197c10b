"""Cost of a sweep over that of its runs one by one.

Claims, for learning rates x seeds that share a timeline of 16 workers, compilation apart:
- a sweep of 32 runs takes at most 1.1 times as long as 32 single runs shared out over the cores;
- `strategy="auto"` chooses a strategy that takes at most 1.25 times as long as the best;
- on a GPU a sweep of 64 runs takes at most as long as 8 single runs.

Baseline: `simulate`, one run after another, in as many processes at once as there are cores: what
the cores can do when all are busy, without a sweep. XLA's matrix products are single-threaded and
nothing is pinned. Sweeps are timed as a whole, from arguments to dataset, checks and digests
included, in turns with the baseline, whose processes are started and have compiled before; ratios
are medians over the turns. How many single runs a sweep takes is told besides, with nothing running
beside those. "auto" measures once in a process: what its first choice took, compilations included,
is listed apart. The script starts itself again for the single-threaded matrix products.

    python benchmarks/sweep.py
"""

import concurrent.futures
import dataclasses
import functools
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import loops
import measuring
from jax.tree_util import Partial

import async_optax as ao
from async_optax.sweeps import strategies

NUM_WORKERS, NUM_SEEDS, SINGLES = 16, 4, 4
PER_CORE, OVER_BEST, ON_GPU = 1.1, 1.25, 8.0  # claimed
STRATEGIES = ("threads", "loop", "vmap")


class Case(NamedTuple):
    """A function that makes the problem, arrivals of a run, and numbers of runs."""

    make: Callable[[], ao.Problem]
    num_arrivals: int
    all_num_runs: tuple[int, ...] = (32,)


def perceptron(*widths):
    """A multilayer perceptron that is evaluated on a few of its samples."""
    problem = loops.perceptron(widths)
    samples, labels = problem.batch.args
    evaluate = Partial(_evaluate, problem.loss, samples[:256], labels[:256])
    return dataclasses.replace(problem, evaluate=evaluate)


def _evaluate(loss, samples, labels, params):
    return {"loss": loss(params, (samples, labels), None)}


def quadratic(size):
    """The distance to noisy points, squared: as little work as there can be."""
    return ao.Problem(
        init=lambda key: jnp.full(size, 4.0),
        loss=lambda x, batch, key: jnp.sum((x - batch) ** 2) / 2,
        batch=lambda key, worker: 1 + jax.random.normal(key, (size,)),
        evaluate=lambda x: {"distance": jnp.linalg.norm(x - 1)},
    )


TINY, DIGITS = "tiny (10 numbers)", "digits (MLP 64-64-10)"
CASES = {
    TINY: Case(functools.partial(quadratic, 10), 120_000),
    DIGITS: Case(functools.partial(perceptron, 64, 64, 10), 1500, (32, 64)),
    "small (MLP 784-128-10)": Case(functools.partial(perceptron, 784, 128, 10), 1500),
}
QUICK = {TINY: Case(functools.partial(quadratic, 10), 64)}


class Sweep:
    """A problem, a timeline, and learning rates x seeds."""

    def __init__(self, case, num_runs):
        self.problem = case.make()
        self.timeline = ao.simulate_timeline(
            ao.protocols.asynchronous(),
            ao.runtimes.gamma(cv=0.5),
            NUM_WORKERS,
            num_commits=case.num_arrivals,
        )
        self.rates = [0.01 * 2.0**-i for i in range(num_runs // NUM_SEEDS)]

    def singles(self, number=SINGLES):
        """So many runs, one after another."""
        return [
            ao.simulate(
                self.problem,
                ao.optimizers.sgd(self.rates[0]),
                self.timeline,
                key=jax.random.key(seed),
                lanes=1,
            ).params
            for seed in range(number)
        ]

    def all(self, strategy):
        """Every run, as a dataset."""
        dataset = ao.sweep(
            self.problem,
            "sgd",
            self.timeline,
            seeds=range(NUM_SEEDS),
            grid={"learning_rate": self.rates},
            strategy=strategy,
        )
        assert (dataset["status"] == "done").all()
        return dataset


class Processes:
    """As many processes as cores, each of which runs its share one run after another."""

    def __init__(self, case, num_runs):
        self.cores = len(os.sched_getaffinity(0))
        self._case, self._share = case, num_runs // self.cores
        self.num_runs = self._share * self.cores
        context = multiprocessing.get_context("spawn")
        self._pools = [
            concurrent.futures.ProcessPoolExecutor(1, mp_context=context) for _ in range(self.cores)
        ]

    def run(self):
        """All of them at once."""
        shares = [pool.submit(_run_share, self._case, self._share) for pool in self._pools]
        return [share.result() for share in shares]

    def close(self):
        """Ends them."""
        for pool in self._pools:
            pool.shutdown()


def _run_share(case, number):
    jax.block_until_ready(_prepared(case).singles(number))


@functools.cache
def _prepared(case):
    return Sweep(case, NUM_SEEDS)


def first_choice(sweep):
    """What "auto" chooses, and the seconds it takes to."""
    choose, taken = strategies.choose_strategy, []

    def timed(*args):
        started = time.perf_counter()
        choice = choose(*args)
        taken.append(time.perf_counter() - started)
        return choice

    strategies.choose_strategy = timed
    try:
        choice = json.loads(sweep.all("auto").attrs["strategy_choice"])
    finally:
        strategies.choose_strategy = choose
    return choice, taken[0]


def measure(case, num_runs, turns):
    """Sweeps by every strategy against single runs."""
    sweep, processes = Sweep(case, num_runs), Processes(case, num_runs)
    choice, choosing = first_choice(sweep)
    contestants = {name: functools.partial(sweep.all, name) for name in (*STRATEGIES, "auto")}
    contestants |= {"singles": sweep.singles, "processes": processes.run}
    first = {name: measuring.seconds(run) for name, run in contestants.items()}
    times = measuring.in_turns(contestants, turns)
    processes.close()
    single = [taken / SINGLES for taken in times.pop("singles")]
    ideal = [taken * num_runs / processes.num_runs for taken in times.pop("processes")]
    best = min(STRATEGIES, key=lambda name: statistics.median(times[name]))
    chosen = choice["strategy"]
    claims = {"auto_ratio_to_best": OVER_BEST}
    if jax.default_backend() == "gpu":
        claims |= {"auto_ratio_to_one_run": ON_GPU} if num_runs == 64 else {}
    elif num_runs == 32:
        claims |= {"auto_ratio_to_processes": PER_CORE}
    return {
        "num_runs": num_runs,
        "arrivals": case.num_arrivals,
        "parameters": loops.size(sweep.problem.init(jax.random.key(0))),
        "cores": processes.cores,
        "single_seconds": statistics.median(single),
        "processes_seconds": statistics.median(ideal),
        "seconds": {name: statistics.median(taken) for name, taken in times.items()},
        "first_call_seconds": first,
        "ratio_to_processes": {
            name: measuring.ratio(taken, ideal) for name, taken in times.items()
        },
        "ratio_to_one_run": {name: measuring.ratio(taken, single) for name, taken in times.items()},
        "best": best,
        "auto": {
            "strategy": chosen,
            "reason": choice["reason"],
            "measured_seconds_per_run": choice["seconds_per_run"],
            "choosing_seconds": choosing,
            "ratio_to_best": measuring.ratio(times[chosen], times[best]),
        },
        "claims": claims,
    }


def start_again_with_single_threaded_products():
    """Starts this script again, unless XLA's matrix products are single-threaded already."""
    flags = os.environ.get("XLA_FLAGS", "")
    if measuring.ONE_THREAD not in flags:
        environment = os.environ | {"XLA_FLAGS": f"{flags} {measuring.ONE_THREAD}".strip()}
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def main():
    args = measuring.parser(__doc__, turns=3).parse_args()
    start_again_with_single_threaded_products()
    cases, turns = (QUICK, 1) if args.quick else (CASES, args.turns)
    shown = " ".join(f"{name:>8}" for name in (*STRATEGIES, "auto"))
    print(
        f"{'over a process per core':26} {'runs':>4} {'s each':>7} {shown} {'in runs':>8} "
        f"{'chosen':>8} {'of best':>8} {'choosing':>8}"
    )
    rows = []
    for name, case in cases.items():
        for num_runs in case.all_num_runs:
            row = {"problem": name} | measure(case, num_runs, turns)
            rows.append(row)
            ratios = " ".join(f"{ratio:8.2f}" for ratio in row["ratio_to_processes"].values())
            auto = row["auto"]
            print(
                f"{name:26} {num_runs:4} {row['single_seconds']:7.3f} {ratios} "
                f"{row['ratio_to_one_run']['auto']:8.2f} {auto['strategy']:>8} "
                f"{auto['ratio_to_best']:8.2f} {auto['choosing_seconds']:8.2f}",
                flush=True,
            )
    measuring.write_results(args.output, "sweep", {"rows": rows})


if __name__ == "__main__":
    main()
