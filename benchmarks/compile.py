"""How often a run compiles, how long that takes, and what a second run compiles again.

Claims: a first run compiles the simulator's program once; a run with another learning rate,
threshold, seed, length of the timeline, or protocol of the same kind compiles nothing at all.
Protocols are of three kinds: every arrival commits; arrivals are gathered; arrivals are gathered
and all jobs read one version. A width of the waves that is new, and a kind that is new, are one
compilation more. A run that chooses its width compiles nothing either when it is made again.

Baseline: the bare `lax.scan` loop of one arrival after another, traced and compiled in the same
process. Seconds are those that JAX reports for tracing, lowering and compiling; "small" counts the
programs beside the simulator's own, such as those that make keys and slots. Every model has a
process of its own, with empty caches.

    python benchmarks/compile.py
"""

import jax
import jax.numpy as jnp
import loops
import measuring

import async_optax as ao
from async_optax import problems

NUM_WORKERS, NUM_COMMITS = 16, 200
PROGRAM = "run_chunk"
EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration": "trace",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower",
    "/jax/core/compile/backend_compile_duration": "compile",
}
MODELS = {
    "MLP 784-128-10": lambda: loops.perceptron((784, 128, 10)),
    "24 layers of 64": lambda: loops.perceptron((64,) * 24 + (10,)),
    "transformer, 6 layers": lambda: problems.attention(num_layers=6, width=64),
}
QUICK = {"MLP 16-8-4": lambda: loops.perceptron((16, 8, 4))}
QUICK_RUNS = 8  # those of one kind, compiled once


class Compilations:
    """Counts and seconds of everything that JAX traces and compiles while it is open."""

    def __init__(self):
        self._events = []

    def __enter__(self):
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *error):
        jax.monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event, seconds, **details):
        if event in EVENTS:
            name = details.get("fun_name", "").removeprefix("jit(").removesuffix(")")
            self._events.append((EVENTS[event], name, seconds))

    def count(self, name=None):
        """Number of programs compiled; of one name, or of all."""
        return sum(e == "compile" and name in (None, n) for e, n, _ in self._events)

    def seconds(self, name):
        """Seconds by phase for one name."""
        return {
            phase: sum(s for e, n, s in self._events if (e, n) == (phase, name))
            for phase in EVENTS.values()
        }


def run(
    problem, learning_rate=0.01, max_norm=1.0, seed=0, protocol=None, lanes=1, commits=NUM_COMMITS
):
    """A run, all of whose settings can be changed one at a time."""
    timeline = ao.simulate_timeline(
        protocol or ao.protocols.asynchronous(),
        ao.runtimes.exponential(),
        NUM_WORKERS,
        num_commits=commits,
        seed=seed,
    )
    optimizer = ao.optimizers.clipped_sgd(learning_rate, max_norm)
    return ao.simulate(problem, optimizer, timeline, key=jax.random.key(seed), lanes=lanes).params


# name: changed settings, claimed compilations of the program; where it is 0, of any program
RUNS = {
    "first run": ({}, 1),
    "the same again": ({}, 0),
    "learning rate": ({"learning_rate": 0.02}, 0),
    "threshold": ({"max_norm": 0.5}, 0),
    "seed of timeline and jobs": ({"seed": 1}, 0),
    "timeline 3 times as long": ({"commits": 3 * NUM_COMMITS}, 0),
    "ringmaster(8)": ({"protocol": ao.protocols.ringmaster(8)}, 0),
    "lanes auto, again": ({"lanes": "auto"}, 0),
    "buffered(4), the first to gather": ({"protocol": ao.protocols.buffered(4)}, 1),
    "buffered(8)": ({"protocol": ao.protocols.buffered(8)}, 0),
    "synchronous, the first with one version": ({"protocol": ao.protocols.synchronous()}, 1),
    "rennala(8)": ({"protocol": ao.protocols.rennala(8)}, 0),
    "8 lanes": ({"lanes": 8}, 1),
    "8 lanes, learning rate": ({"lanes": 8, "learning_rate": 0.02}, 0),
}


def measure(name):
    """Counts and seconds for one model, in the process that calls it."""
    problem = (MODELS | QUICK)[name]()
    rows = {}
    runs = list(RUNS.items())[: QUICK_RUNS if name in QUICK else None]
    for change, (settings, claim) in runs:
        if change.endswith("again") and settings:
            run(problem, **settings)  # the first time is not counted: it may measure several widths
        with Compilations() as seen:
            seconds = measuring.seconds(lambda settings=settings: run(problem, **settings))
        count = seen.count(PROGRAM)
        rows[change] = {
            "program": count,
            "small": seen.count() - count,
            "claim": claim,
            "run_seconds": seconds,
            "program_seconds": seen.seconds(PROGRAM),
        }
    functions, params, keys = loops.start(problem, NUM_COMMITS)
    workers = jnp.arange(NUM_COMMITS, dtype=jnp.int32) % NUM_WORKERS
    with Compilations() as seen:
        jax.block_until_ready(
            loops.asynchronous(functions, params, workers, keys, num_workers=NUM_WORKERS)
        )
    return {
        "parameters": loops.size(params),
        "runs": rows,
        "bare_loop_seconds": seen.seconds("asynchronous"),
    }


def show(name, row):
    bare, ours = row["bare_loop_seconds"], row["runs"]["first run"]["program_seconds"]
    print(f"\n{name}: {row['parameters']:,} parameters; seconds to trace, lower, compile")
    for label, phases in (("simulate", ours), ("bare loop", bare)):
        shown = " ".join(f"{phases[phase]:7.2f}" for phase in EVENTS.values())
        print(f"  {label:39} {shown}, together {sum(phases.values()):.2f}")
    print(
        f"  {'compilations of a run with':39} {'program':>7} {'small':>7} {'claim':>7} {'run s':>7}"
    )
    for change, counted in row["runs"].items():
        print(
            f"  {change:39} {counted['program']:7} {counted['small']:7} {counted['claim']:7} "
            f"{counted['run_seconds']:7.2f}",
            flush=True,
        )


def main():
    args = measuring.parser(__doc__, turns=1).parse_args()
    rows = {}
    for name in QUICK if args.quick else MODELS:
        turns = [measuring.in_own_process(measure, name) for _ in range(args.turns)]
        rows[name] = min(turns, key=lambda row: row["runs"]["first run"]["run_seconds"])
        show(name, rows[name])
    measuring.write_results(args.output, "compile", {"models": rows})


if __name__ == "__main__":
    main()
