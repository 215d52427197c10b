"""Arrivals per second of `simulate` over the bare hand-written `lax.scan` loop.

Claims, with lanes=1 and everything on one thread, per arrival:
- the rate of the bare loop times 0.85 for a small network, 0.95 where a gradient takes over 1 ms;
- with 1024 workers at most 1.2 times what 16 workers take, plus cold memory. Cold memory is one
  slot read and one slot written that are no longer in cache: the bytes of one copy of the
  parameters three times (read; fetched because a line is fetched before it is written; written
  back), at the measured bandwidth between one core and memory;
- where 16 workers are waited for, at most 1.25 times the better of two loops with one step per
  commit: the workers' gradients one by one, or all their batches as one.

Baselines: plain SGD as a single scan on the same timeline with the same batches, with one copy of
the parameters per worker; both end at the same parameters, to rounding. The limit: gradients at one
version, without copies, as many by one vmap as is fastest. All run in turns within one process, at
two lengths: the slope is the time per arrival, without what a run costs once; a ratio is the median
over the turns; compilation and the making of timelines are not in it. The script starts itself
again on one core, with XLA's single-threaded matrix products (Linux).

    python benchmarks/engine.py
"""

import functools
import statistics
from typing import NamedTuple

import jax.numpy as jnp
import loops
import measuring

import async_optax as ao
from async_optax.engine import compile_timeline

NUM_WORKERS, MANY_WORKERS = 16, 1024
TOLERANCE = 1e-3  # of the parameters: thousands of steps amplify the last bit
MAX_WIDTH = 256
OVER_MEMORY, OVER_DIRECT = 1.2, 1.25  # claimed


class Model(NamedTuple):
    """Layer widths, lengths of the runs in arrivals, claimed ratio to the bare loop."""

    widths: tuple[int, ...]
    lengths: tuple[int, int]
    claim: float


SMALL = "small (MLP 784-128-10)"
MODELS = {
    SMALL: Model((784, 128, 10), (2000, 5000), 0.85),
    "larger (MLP 784-1024-1024-10)": Model((784, 1024, 1024, 10), (80, 240), 0.95),
}
QUICK = {SMALL: Model((16, 8, 4), (64, 192), 0.85)}


class Runs:
    """One problem on timelines of one protocol; lengths are in arrivals."""

    def __init__(self, model, protocol, num_workers, arrivals_per_commit=1):
        self.problem = loops.perceptron(model.widths)
        self.num_workers = num_workers
        self.lengths = model.lengths
        self.timelines = {
            length: ao.simulate_timeline(
                protocol,
                ao.runtimes.two_speed(4.0),
                num_workers,
                num_commits=length // arrivals_per_commit,
            )
            for length in model.lengths
        }
        slots = {compile_timeline(timeline).num_slots for timeline in self.timelines.values()}
        if len(slots) > 1:
            raise AssertionError(f"the slope holds the making of slots: {slots} at {self.lengths}")
        self.functions, self.params, self.keys = loops.start(self.problem, max(model.lengths))
        self.workers = {
            length: jnp.asarray(timeline.worker) for length, timeline in self.timelines.items()
        }

    def simulate(self, length, lanes=1):
        return loops.simulate(self.problem, self.timelines[length], lanes).params

    def bare(self, length):
        jobs = self.workers[length], self.keys[:length]
        return loops.asynchronous(self.functions, self.params, *jobs, num_workers=self.num_workers)

    def in_blocks(self, loop, width, length):
        blocks = loops.in_blocks(self.workers[length], self.keys[:length], width)
        return loop(self.functions, self.params, *blocks)

    def check(self, loop):
        """Raises unless the simulator and a loop end at the same parameters."""
        difference = loops.largest_difference(
            self.simulate(self.lengths[0]), loop(self.lengths[0])[0]
        )
        if not difference < TOLERANCE:
            raise AssertionError(f"simulate and the loop by hand end {difference} apart")
        return difference


def best_width(runs, max_width):
    """The fastest width of the limit: 1, 2, 4, ... until one is slower; and all measured."""
    length, measured, width = runs.lengths[0], {}, 1
    while width <= max_width:
        run = functools.partial(runs.in_blocks, loops.gradients_at_one_version, width, length)
        measuring.seconds(run)  # compiles
        measured[width] = min(measuring.seconds(run) for _ in range(3)) / (length // width * width)
        if measured[width] > 1.05 * min(measured.values()):
            break
        width *= 2
    return min(measured, key=measured.get), measured


def measure_model(model, turns, num_workers=NUM_WORKERS, max_width=MAX_WIDTH):
    """The simulator against the bare loop and the limit."""
    runs = Runs(model, ao.protocols.asynchronous(), num_workers)
    difference = runs.check(runs.bare)
    contestants = {"simulate": runs.simulate, "bare loop": runs.bare}
    widths = {}
    if max_width:
        width, widths = best_width(runs, max_width)
        contestants["limit"] = functools.partial(
            runs.in_blocks, loops.gradients_at_one_version, width
        )
    times = measuring.by_two_lengths(contestants, model.lengths, turns)
    row = {
        "num_workers": num_workers,
        "arrivals": model.lengths,
        "parameter_bytes": loops.num_bytes(runs.params),
        "largest_difference": difference,
        "times": times.summary(),
        "ratio_to_bare_scan": measuring.ratio(times.slope["bare loop"], times.slope["simulate"]),
        "ratio_to_bare_scan_whole_run": measuring.ratio(
            times.whole["bare loop"], times.whole["simulate"]
        ),
    }
    if widths:
        row |= {
            "milliseconds_per_gradient": 1e3 * statistics.median(times.slope["limit"]),
            "ratio_to_synchronous_limit": measuring.ratio(
                times.slope["limit"], times.slope["simulate"]
            ),
            "limit_width": width,
            "limit_microseconds_by_width": {w: 1e6 * s for w, s in widths.items()},
        }
    return row


def measure_many_workers(model, few, turns, num_workers):
    """Many workers' slots are not in cache: what does that cost beyond the memory traffic?"""
    first_round = 8 * num_workers  # by then every worker has a version of its own
    lengths = first_round, first_round + model.lengths[1] - model.lengths[0]
    row = measure_model(model._replace(lengths=lengths), turns, num_workers, max_width=0)
    bandwidth = measuring.memory_bandwidth()
    cold = 1e6 * 3 * row["parameter_bytes"] / bandwidth
    few_workers, many_workers = (
        r["times"]["simulate"]["microseconds_per_arrival"] for r in (few, row)
    )
    return row | {
        "gigabytes_per_second": 1e-9 * bandwidth,
        "cold_bytes": 3 * row["parameter_bytes"],
        "cold_microseconds": cold,
        "few_workers_microseconds": few_workers,
        "ratio_to_few_workers_and_memory": many_workers / (few_workers + cold),
        "claim": OVER_MEMORY,
    }


def measure_synchronous(model, turns, num_workers=NUM_WORKERS):
    """A protocol that waits for all, against the loops one would write for it alone."""
    lengths = tuple(length // num_workers * num_workers for length in model.lengths)
    model = model._replace(lengths=lengths)
    runs = Runs(model, ao.protocols.synchronous(), num_workers, num_workers)
    one_by_one = functools.partial(runs.in_blocks, loops.one_by_one_then_step, num_workers)
    one_batch = functools.partial(runs.in_blocks, loops.one_batch_then_step, num_workers)
    differences = {"one by one": runs.check(one_by_one), "one batch": runs.check(one_batch)}
    contestants = {
        "simulate": runs.simulate,
        "simulate, a lane per worker": functools.partial(runs.simulate, lanes=num_workers),
        "one by one": one_by_one,
        "one batch": one_batch,
    }
    times = measuring.by_two_lengths(contestants, lengths, turns)
    ratios = {
        name: {
            loop: measuring.ratio(times.slope[name], times.slope[loop])
            for loop in ("one by one", "one batch")
        }
        for name in list(contestants)[:2]
    }
    return {
        "num_workers": num_workers,
        "arrivals": lengths,
        "largest_difference": differences,
        "times": times.summary(),
        "ratios": ratios,
        "ratio_to_better_loop": max(ratios["simulate"].values()),
        "claim": OVER_DIRECT,
    }


def main():
    args = measuring.parser(__doc__, turns=7).parse_args()
    measuring.pin_to_one_thread()
    models, turns = (QUICK, 1) if args.quick else (MODELS, args.turns)
    workers, many = (4, 32) if args.quick else (NUM_WORKERS, MANY_WORKERS)
    rows = {}
    print(
        f"{'microseconds per arrival':32} {'simulate':>9} {'bare loop':>9} {'limit (width)':>14} "
        f"{'of bare':>8} {'whole run':>9} {'claim':>6} {'of limit':>8}"
    )
    for name, model in models.items():
        row = rows[name] = measure_model(model, turns, workers, 1 if args.quick else MAX_WIDTH)
        row["claim"] = model.claim
        print(
            f"{name:32} {_microseconds(row, 'simulate'):9.1f} "
            f"{_microseconds(row, 'bare loop'):9.1f} "
            f"{_microseconds(row, 'limit'):8.1f} ({row['limit_width']:3}) "
            f"{row['ratio_to_bare_scan']:8.3f} {row['ratio_to_bare_scan_whole_run']:9.3f} "
            f"{row['claim']:6.2f} {row['ratio_to_synchronous_limit']:8.3f}",
            flush=True,
        )
    small = models[SMALL]
    cold = measure_many_workers(small, rows[SMALL], turns, many)
    print(
        f"\n{many} workers: simulate {_microseconds(cold, 'simulate'):.1f}, bare loop "
        f"{_microseconds(cold, 'bare loop'):.1f} microseconds; {workers} workers and cold memory: "
        f"{cold['few_workers_microseconds']:.1f} + {cold['cold_microseconds']:.1f} (at "
        f"{cold['gigabytes_per_second']:.1f} GB/s); ratio "
        f"{cold['ratio_to_few_workers_and_memory']:.3f}, claim {cold['claim']}",
        flush=True,
    )
    synchronous = measure_synchronous(small, turns, workers)
    print(f"\nsynchronous, {workers} workers: microseconds per arrival")
    for name in synchronous["times"]:
        print(f"  {name:30} {_microseconds(synchronous, name):9.1f}")
    print(f"  ratio {synchronous['ratio_to_better_loop']:.3f}, claim {synchronous['claim']}")
    results = {"models": rows, "many_workers": cold, "synchronous": synchronous}
    measuring.write_results(args.output, "engine", results)


def _microseconds(row, name):
    return row["times"][name]["microseconds_per_arrival"]


if __name__ == "__main__":
    main()
