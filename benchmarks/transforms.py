"""Cost of one update of each transformation, over optax and over the memory traffic it needs.

Claim: the headline chain (clip by coordinate, compensate for the delay, weigh by the staleness,
step) costs at most 1.6 times ``optax.chain(optax.clip_by_global_norm, optax.sgd)``, which reads no
stale parameters, 1.8 times if it clips by the global norm; clipping by the global norm alone,
without overflow, costs at most 1.3 times as much. Baseline: that chain, applied the same way: one
jitted call from gradients and donated parameters to new parameters. Floor: the arrays that have to
move, each read or written once, at the bandwidth at which the gradients are added to the parameters
in place. Transformation, baseline and floor take turns within one process; a ratio is the median
over the turns, compilation is measured apart.

    python benchmarks/transforms.py
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import measuring
import optax

import async_optax as ao
from async_optax import transforms

MILLIONS = (1, 25, 110)
NUM_BLOCKS = 4
FLOOR_ARRAYS = 3


class Case(NamedTuple):
    """What is measured: a factory, the arrays that have to move, the claimed ratio to optax."""

    make: Callable[[], optax.GradientTransformation]
    arrays: int
    claim: float | None = None
    gathers: bool = False  # whether arrivals come with a commit and a weight


# Arrays of the parameters' size that have to move, one per read and one per write. Every case
# reads gradients and parameters and writes parameters: 3. Stale parameters are 1 more; state that
# is read and written is 2 more, of all workers only one's.
CASES = {
    "clip_by_global_norm": Case(lambda: transforms.clip_by_global_norm(1.0), 3, claim=1.3),
    "clip_by_quantile": Case(lambda: transforms.clip_by_quantile(0.5), 3),
    "clip_coordinates_by_quantile": Case(lambda: transforms.clip_coordinates_by_quantile(), 3),
    "bi_clip": Case(lambda: transforms.bi_clip(0.01, 1.0), 3),
    "scale_by_normalized_momentum": Case(lambda: transforms.scale_by_normalized_momentum(), 5),
    "compensate_delay": Case(lambda: transforms.compensate_delay(0.04), 4),
    "compensate_delay, max_ratio": Case(lambda: transforms.compensate_delay(0.04, 0.5), 4),
    "compensate_delay_adaptive, 2 workers": Case(
        lambda: transforms.compensate_delay_adaptive(num_workers=2), 6
    ),
    "compensate_delay_dynamic": Case(lambda: transforms.compensate_delay_dynamic(), 10),
    "difference_to_worker_model": Case(lambda: transforms.difference_to_worker_model(0.1), 4),
    "scale_by_staleness": Case(
        lambda: transforms.scale_by_staleness(ao.weights.polynomial(0.5)), 3
    ),
    "scale_by_staleness_schedule": Case(
        lambda: transforms.scale_by_staleness_schedule(transforms.schedules.capped(0.1, 4)), 3
    ),
    "scale_by_adadelay": Case(lambda: transforms.scale_by_adadelay(0.1), 5),
    "scale_by_gap_momentum": Case(
        lambda: transforms.scale_by_gap_momentum(0.9, max_learning_rate=0.1), 8
    ),
    "scale_by_nadam_delayed": Case(lambda: transforms.scale_by_nadam_delayed(), 7),
    "trace_nesterov_delayed": Case(lambda: transforms.trace_nesterov_delayed(), 5),
    "trace_per_worker, 2 workers": Case(lambda: transforms.trace_per_worker(num_workers=2), 5),
    "trace_with_look_ahead, 2 workers": Case(
        lambda: transforms.trace_with_look_ahead(num_workers=2, learning_rate=0.1), 7
    ),
    "trace_smega2": Case(lambda: transforms.trace_smega2(num_workers=2, learning_rate=0.1), 7),
    "look_ahead": Case(lambda: transforms.look_ahead(optax.sgd(0.1), num_steps=3), 4),
    "accumulate_until_commit": Case(
        lambda: transforms.accumulate_until_commit(optax.sgd(0.1)), 5, gathers=True
    ),
    "async_heavy_tailed": Case(lambda: ao.optimizers.async_heavy_tailed(0.1), 4, claim=1.6),
    "async_heavy_tailed, global_norm": Case(
        lambda: ao.optimizers.async_heavy_tailed(0.1, clipping="global_norm"), 4, claim=1.8
    ),
    "async_heavy_tailed, adaptive": Case(
        lambda: ao.optimizers.async_heavy_tailed(0.01, clipping="adaptive"), 4
    ),
}


def optax_chain():
    return optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))


def make_tree(num_parameters, seed):
    """Random leaves in the shapes of a transformer with ``NUM_BLOCKS`` blocks."""
    width = round(math.sqrt(num_parameters / (12 * NUM_BLOCKS)))
    shapes = {
        "attention": (width, 3, width),
        "projection": (width, width),
        "up": (width, 4 * width),
        "down": (4 * width, width),
        "scale": (width,),
        "bias": (4 * width,),
    }
    keys = jax.random.split(jax.random.key(seed), (NUM_BLOCKS, len(shapes)))
    return [
        {
            name: 0.1 * jax.random.normal(key, shape)
            for key, (name, shape) in zip(block, shapes.items(), strict=True)
        }
        for block in keys
    ]


def compiled(tx, params, gradients, extra_args):
    """Returns ``step(params, state) -> (params, state)``, its first state, and seconds."""
    tx = optax.with_extra_args_support(tx)
    state = jax.jit(tx.init)(params)  # jitted, no two leaves are one array: each can be donated

    def step(params, state, gradients, extra_args):
        updates, state = tx.update(gradients, state, params, **extra_args)
        return optax.apply_updates(params, updates), state

    # Donated, so that writing new parameters and state does not measure allocation.
    started = time.perf_counter()
    jitted = jax.jit(step, donate_argnums=(0, 1))
    program = jitted.lower(params, state, gradients, extra_args).compile()
    seconds = time.perf_counter() - started
    return lambda params, state: program(params, state, gradients, extra_args), state, seconds


def compiled_floor(params, gradients):
    """The update with the least traffic, ``params + gradients`` in place."""
    add = jax.jit(
        lambda params, gradients: jax.tree.map(jnp.add, params, gradients), donate_argnums=0
    )
    program = add.lower(params, gradients).compile()
    return lambda params, state: (program(params, gradients), state)


def alternate(steps, states, params, turns):
    """Seconds of each contestant by turn; all of them move the same parameters along."""
    seconds = {name: [] for name in steps}
    for turn in range(-1, turns):  # the first turn touches the memory and does not count
        for name in list(steps)[:: 1 if turn % 2 else -1]:
            started = time.perf_counter()
            params, states[name] = jax.block_until_ready(steps[name](params, states[name]))
            if turn >= 0:
                seconds[name].append(time.perf_counter() - started)
    return seconds, params


def measure(case, params, gradients, extra_args, turns):
    step, state, compilation = compiled(case.make(), params, gradients, extra_args)
    optax_step, optax_state, _ = compiled(optax_chain(), params, gradients, extra_args)
    steps = {"ours": step, "optax": optax_step, "floor": compiled_floor(params, gradients)}
    states = {"ours": state, "optax": optax_state, "floor": None}
    seconds, params = alternate(steps, states, params, turns)

    def ratio(name, factor=1.0):
        pairs = zip(seconds["ours"], seconds[name], strict=True)
        return statistics.median(ours / (factor * other) for ours, other in pairs)

    moved = FLOOR_ARRAYS * sum(x.nbytes for x in jax.tree.leaves(params))
    row = {
        "arrays_moved": case.arrays,
        "milliseconds": 1e3 * statistics.median(seconds["ours"]),
        "optax_milliseconds": 1e3 * statistics.median(seconds["optax"]),
        "floor_gigabytes_per_second": 1e-9 * moved / statistics.median(seconds["floor"]),
        "compilation_seconds": compilation,
        "ratio_to_optax": ratio("optax"),
        "ratio_to_floor": ratio("floor", case.arrays / FLOOR_ARRAYS),
        "claim": case.claim,
    }
    return row, params


def measure_size(millions, turns):
    params, gradients, stale = (make_tree(1e6 * millions, seed) for seed in range(3))
    extra_args = {"stale_params": stale, "staleness": jnp.int32(3), "worker": jnp.int32(1)}
    commit = {"commit": jnp.bool_(True), "weight": jnp.float32(1.0)}
    rows = {}
    for name, case in CASES.items():
        given = extra_args | commit if case.gathers else extra_args
        rows[name], params = measure(case, params, gradients, given, turns)
        row = rows[name]
        claim = "" if case.claim is None else f"{case.claim:.1f}"
        print(
            f"{millions:6g} M  {name:37} {row['milliseconds']:9.2f} {row['ratio_to_optax']:8.2f} "
            f"{claim:>6} {case.arrays:7} {row['ratio_to_floor']:8.2f}",
            flush=True,
        )
    return {"parameters": sum(x.size for x in jax.tree.leaves(params)), "cases": rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--sizes", type=float, nargs="+", default=MILLIONS, metavar="MILLIONS")
    parser.add_argument("--turns", type=int, default=11)
    args = parser.parse_args()
    print(
        f"{'parameters':>8} {'transformation':36} {'ms':>9} {'of optax':>8} {'claim':>6} "
        f"{'arrays':>7} {'of floor':>8}"
    )
    sizes = {f"{millions:g} M": measure_size(millions, args.turns) for millions in args.sizes}
    measuring.write_results(args.output, "transforms", {"sizes": sizes})


if __name__ == "__main__":
    main()
