"""Time and memory over the number of workers and the number of parameters.

Claims: 10 000 workers of a model with 10 000 parameters take less than 2 GiB, everything included
(what Python and JAX take before the run is listed beside it); from 10 000 to 100 million
parameters, with 4 workers, an arrival takes at most 1.25 times what it takes in the bare loop.

Baseline: the bare `lax.scan` with a copy of the parameters per worker, on the same timeline with
the same batches. Every row has a process of its own, so that its memory is its own; its peak is
read after the simulator ran and before the baseline does. Within a row both run in turns at two
lengths; the slope is the time per arrival; compilation and the making of timelines are not in it.
Networks have two square layers; a batch is 32.

    python benchmarks/scaling.py
"""

import jax
import jax.numpy as jnp
import loops
import measuring

import async_optax as ao

WORKERS = (1, 10, 100, 1000, 10_000)
FEW_PARAMETERS = 10_000
PARAMETERS = {
    # lengths of the runs in arrivals
    10**4: (2000, 8000),
    10**5: (1000, 3000),
    10**6: (100, 400),
    10**7: (10, 40),
    10**8: (3, 9),
}
FEW_WORKERS = 4
MEMORY, MANY_WORKERS, OVER_BARE = 2 << 30, 10_000, 1.25  # claimed
# Copies of the parameters held at once by the hungrier of the two: one per worker, two sets of
# those while the baseline's result replaces its argument, and gradient, stale and new parameters.
COPIES = 2 * (FEW_WORKERS + 1) + 5


def measure(num_parameters, num_workers, lengths, turns):
    """One row, in the process that calls it."""
    before = measuring.peak_bytes()
    problem = loops.perceptron(loops.widths_for(num_parameters), num_samples=256)
    timelines = {
        length: ao.simulate_timeline(
            ao.protocols.asynchronous(),
            ao.runtimes.gamma(cv=0.5),
            num_workers,
            num_commits=length,
        )
        for length in lengths
    }

    def simulate(length):
        return loops.simulate(problem, timelines[length]).params

    jax.block_until_ready(simulate(lengths[1]))
    peak = measuring.peak_bytes()
    functions, params, keys = loops.start(problem, lengths[1])

    def bare(length):
        workers = jnp.asarray(timelines[length].worker)
        return loops.asynchronous(functions, params, workers, keys[:length], num_workers)[0]

    runs = {"simulate": simulate, "bare loop": bare}
    times = measuring.by_two_lengths(runs, lengths, turns)
    return {
        "parameters": loops.size(params),
        "num_workers": num_workers,
        "arrivals": lengths,
        "times": times.summary(),
        "ratio_to_bare_scan": measuring.ratio(times.slope["simulate"], times.slope["bare loop"]),
        "peak_bytes": peak,
        "bytes_before": before,
        "slots_bytes": (num_workers + 1) * loops.num_bytes(params),
    }


def lengths_for(num_workers):
    """Long enough for every worker to have a version of its own, in the shorter run too."""
    short = max(4000, 3 * num_workers)
    return short, short + 8000


def show(row):
    if "skipped" in row:
        print(f"{row['parameters']:12,} {row['num_workers']:8,} {row['skipped']}", flush=True)
        return
    micro = {name: t["microseconds_per_arrival"] for name, t in row["times"].items()}
    print(
        f"{row['parameters']:12,} {row['num_workers']:8,} {micro['simulate']:12.1f} "
        f"{micro['bare loop']:12.1f} {row['ratio_to_bare_scan']:8.2f} "
        f"{row['peak_bytes'] / 2**20:10.0f} {row['slots_bytes'] / 2**20:10.0f}",
        flush=True,
    )


def by_workers(all_workers, lengths, turns):
    rows = []
    for num_workers in all_workers:
        row = measuring.in_own_process(
            measure, FEW_PARAMETERS, num_workers, lengths or lengths_for(num_workers), turns
        )
        if num_workers == MANY_WORKERS:
            row["claim_bytes"] = MEMORY
        rows.append(row)
        show(row)
    return rows


def by_parameters(all_parameters, turns):
    rows = []
    for num_parameters, lengths in all_parameters.items():
        needed = COPIES * 4 * num_parameters
        row = {"parameters": num_parameters, "num_workers": FEW_WORKERS}
        if needed > measuring.available_bytes():
            available = measuring.available_bytes()
            row["skipped"] = f"needs about {needed >> 20} MiB, {available >> 20} MiB are left"
        else:
            row = measuring.in_own_process(measure, num_parameters, FEW_WORKERS, lengths, turns)
            row["claim"] = OVER_BARE
        rows.append(row)
        show(row)
    return rows


def main():
    args = measuring.parser(__doc__, turns=3).parse_args()
    turns = 1 if args.quick else args.turns
    print(
        f"{'parameters':>12} {'workers':>8} {'us simulate':>12} {'us bare loop':>12} "
        f"{'ratio':>8} {'peak MiB':>10} {'slots MiB':>10}"
    )
    if args.quick:
        workers = by_workers((10,), (64, 192), turns)
        parameters = by_parameters({10**12: (1, 2)}, turns)  # fits nowhere
    else:
        workers = by_workers(WORKERS, None, turns)
        parameters = by_parameters(PARAMETERS, turns)
    results = {"by_workers": workers, "by_parameters": parameters}
    measuring.write_results(args.output, "scaling", results)


if __name__ == "__main__":
    main()
