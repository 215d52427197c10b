"""Time per arrival over the width of a wave, by workers and model size, and what "auto" picks.

Claims: the width that lanes="auto" picks takes at most 1.25 times as long per arrival as the best
of 1, 2, 4, ..., 64. On a GPU, with 256 workers and a small network, the best width is at least 20
times as fast as the bare loop, one arrival after another, and reaches at least 0.7 of the
gradients alone.

Baselines: the bare `lax.scan` of one arrival after another, and the gradients alone: as many lanes
by one vmap, each of which trains a copy of its own, so that nothing is exchanged. All widths run in
turns within one process at two lengths; the slope is the time per arrival; compilation and the
making of timelines are not in it. Compute times are Gamma with a variation of 0.5.

    python benchmarks/lanes.py
"""

import functools
import statistics
from typing import NamedTuple

import jax
import jax.numpy as jnp
import loops
import measuring

import async_optax as ao

AUTO, OVER_SCAN, OF_GRADIENTS = 1.25, 20.0, 0.7  # claimed
WORKERS = (16, 256)
WIDTHS = (1, 2, 4, 8, 16, 32, 64)
AUTO_SECONDS = 5.0  # one lane at a time: for a shorter run, "auto" does not measure


class Model(NamedTuple):
    """Layer widths, and lengths of the runs in arrivals: on a CPU, on anything else."""

    widths: tuple[int, ...]
    on_cpu: tuple[int, int]
    elsewhere: tuple[int, int]

    @property
    def lengths(self):
        """The two lengths for the device at hand."""
        return self.on_cpu if jax.default_backend() == "cpu" else self.elsewhere


MODELS = {
    "5 k": Model((32, 80, 32, 10), (4096, 12_288), (8192, 40_960)),
    "100 k": Model((784, 128, 10), (1024, 3072), (8192, 40_960)),
    "1 M": Model((784, 768, 512, 10), (128, 384), (4096, 12_288)),
}
QUICK = {"0.2 k": Model((16, 8, 4), (64, 192), (64, 192))}
SMALL = "5 k"


def make_timelines(num_workers, lengths):
    return {
        length: ao.simulate_timeline(
            ao.protocols.asynchronous(),
            ao.runtimes.gamma(cv=0.5),
            num_workers,
            num_commits=length,
        )
        for length in lengths
    }


def measure(model, num_workers, widths, turns, auto_seconds=AUTO_SECONDS):
    """Every width and the bare loop, and what "auto" chooses for a run of so many seconds."""
    problem, lengths = loops.perceptron(model.widths), model.lengths
    timelines = make_timelines(num_workers, lengths)
    functions, params, keys = loops.start(problem, lengths[1])

    def simulate(width, length):
        return loops.simulate(problem, timelines[length], width).params

    def bare(length):
        workers = jnp.asarray(timelines[length].worker)
        return loops.asynchronous(functions, params, workers, keys[:length], num_workers)

    def gradients(width, length):
        blocks = loops.in_blocks(timelines[length].worker, keys[:length], width)
        return loops.gradients_at_own_versions(functions, params, *blocks)

    widths = [width for width in widths if width <= num_workers]
    contestants = {width: functools.partial(simulate, width) for width in widths}
    contestants["bare loop"] = bare
    times = measuring.by_two_lengths(contestants, lengths, turns)
    micro = {name: 1e6 * statistics.median(slopes) for name, slopes in times.slope.items()}
    best = min(widths, key=micro.get)
    arrivals = max(lengths[1], int(auto_seconds * 1e6 / micro[1]))
    long = make_timelines(num_workers, [arrivals])[arrivals]
    choice = loops.simulate(problem, long, "auto").lanes
    # Once more side by side: the least of many measurements is too small.
    finals = {best: contestants[best], "gradients": functools.partial(gradients, best)}
    if choice.lanes in contestants:
        finals[choice.lanes] = contestants[choice.lanes]
    final = measuring.by_two_lengths(finals, lengths, turns)
    row = {
        "parameters": loops.size(params),
        "num_workers": num_workers,
        "arrivals": lengths,
        "microseconds_per_arrival": micro,
        "fixed_seconds": times.fixed,
        "first_call_seconds": times.first_call,
        "best_width": best,
        "ratio_to_bare_scan": measuring.ratio(times.slope["bare loop"], times.slope[best]),
        "ratio_to_gradients_alone": measuring.ratio(final.slope["gradients"], final.slope[best]),
        "auto": {"arrivals": arrivals, "lanes": choice.lanes, "reason": choice.reason},
    }
    if choice.lanes in finals:
        slopes = final.slope[choice.lanes], final.slope[best]
        row["auto"] |= {"ratio_to_best": measuring.ratio(*slopes), "claim": AUTO}
    return row


def main():
    args = measuring.parser(__doc__, turns=3).parse_args()
    models, turns = (QUICK, 1) if args.quick else (MODELS, args.turns)
    all_workers, widths = ((4,), (1, 2)) if args.quick else (WORKERS, WIDTHS)
    auto_seconds = 0.0 if args.quick else AUTO_SECONDS
    on_gpu = jax.default_backend() == "gpu"
    shown = " ".join(f"{width:>8}" for width in widths)
    print(
        f"microseconds per arrival by width\n{'model':8} {'workers':>7} {shown} "
        f"{'bare':>8} {'best':>4} {'of bare':>8} {'of gradients':>12} {'auto':>4} {'of best':>7}"
    )
    rows = []
    for name, model in models.items():
        for num_workers in all_workers:
            row = {"model": name}
            row |= measure(model, num_workers, widths, turns, auto_seconds)
            if on_gpu and name == SMALL and num_workers == 256:
                row |= {
                    "claim_to_bare_scan": OVER_SCAN,
                    "claim_to_gradients_alone": OF_GRADIENTS,
                }
            rows.append(row)
            micro = row["microseconds_per_arrival"]
            shown = " ".join(f"{micro[w]:8.1f}" if w in micro else f"{'-':>8}" for w in widths)
            print(
                f"{name:8} {num_workers:7} {shown} {micro['bare loop']:8.1f} "
                f"{row['best_width']:4} {row['ratio_to_bare_scan']:8.2f} "
                f"{row['ratio_to_gradients_alone']:12.2f} {row['auto']['lanes']:4} "
                f"{row['auto'].get('ratio_to_best', float('nan')):7.2f}",
                flush=True,
            )
    measuring.write_results(args.output, "lanes", {"rows": rows})


if __name__ == "__main__":
    main()
