"""Cost of an update of a pipeline's simulation over a synchronous step of the same model.

Claim, with everything on one thread: an update of an asynchronous pipeline of 8 stages with weight
stashing costs at most 1.3 times a synchronous step, plus stash copies. Without stashing it costs at
most 1.3 times a synchronous step that recomputes each stage's forward pass in its backward pass,
which is what such a pipeline does, plus copies.

Baseline: a single `lax.scan` that carries parameters and optimizer state, with the gradient of the
same loss on the same batches and the same optimizer without its delays. A second loop by hand
carries the versions as well: what it takes beyond the baseline is the price of the stash copies
themselves. Both end at the same parameters as the simulator, to rounding. All run in turns within
one process, at two lengths: the slope is the time per update, without what a run costs once; a
ratio is the median over the turns, and compilation is not in it. The script starts itself again on
one core, with XLA's single-threaded matrix products (Linux).

    python benchmarks/pipeline.py
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import loops
import measuring
import numpy as np
import optax
from jax import lax
from jax.tree_util import Partial

import async_optax as ao
from async_optax.optimizers import pipelines
from async_optax.transforms import delay_stages, served_params

CLAIM, RATE, NUM_STAGES = 1.3, 1e-3, 8
TOLERANCE = 1e-3  # of the parameters: many steps of Adam amplify the last bit


class Model(NamedTuple):
    """Width of a stage, rows of a batch, lengths of the runs in updates."""

    width: int
    batch: int
    lengths: tuple[int, int]


MODELS = {
    "small (8 blocks, width 64)": Model(64, 32, (200, 600)),
    "larger (8 blocks, width 256)": Model(256, 32, (30, 90)),
}
QUICK = {"tiny (8 blocks, width 8)": Model(8, 4, (64, 192))}
STASHED = {"pipedream": pipelines.pipedream, "nesterov": pipelines.nesterov_pipeline}
WITHOUT = {
    "pipemare": functools.partial(pipelines.pipemare, annealing_steps=1000),
    "nesterov, no stash": functools.partial(
        pipelines.nesterov_pipeline_no_stash, annealing_steps=1000
    ),
}
# A method without its delays: the same arithmetic, but for a factor per stage.
ORDINARY = {
    "pipedream": pipelines.gpipe,
    "pipemare": pipelines.gpipe,
    "nesterov": ao.optimizers.nadam_delayed,
    "nesterov, no stash": ao.optimizers.nadam_delayed,
}


def _init(width, key):
    up, down = jax.random.split(key)
    return {
        "up": jax.random.normal(up, (width, 4 * width)) / np.sqrt(width),
        "down": jax.random.normal(down, (4 * width, width)) / np.sqrt(4 * width),
    }


def _block(params, x, key):
    del key
    unit = jax.nn.standardize(x, axis=-1)
    return x + jax.nn.gelu(unit @ params["up"]) @ params["down"]


def _loss(outputs, batch):
    return jnp.mean((outputs - 2 * jnp.roll(batch, 1, axis=1)) ** 2)


def _rows(shape, key, worker):
    del worker
    return jax.random.normal(key, shape)


def problem(model, recompute=False):
    """Residual perceptrons, one per stage, on random data: only their cost matters here."""
    block = jax.checkpoint(_block) if recompute else _block
    stage = ao.pipeline.Stage(Partial(_init, model.width), block)
    return ao.pipeline.problem(
        [stage] * NUM_STAGES, _loss, Partial(_rows, (model.batch, model.width))
    )


def _gradient(functions, params, key):
    loss, sample = functions()
    batch_key, loss_key, _ = jax.random.split(key, 3)
    return jax.value_and_grad(loss)(params, sample(batch_key, 0), loss_key)


@jax.jit
def synchronous(functions, tx, params, keys):
    """One step after another at the current parameters."""

    def step(carry, key):
        params, state = carry
        value, gradient = _gradient(functions, params, key)
        updates, state = tx.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), value

    (params, _), losses = lax.scan(step, (params, tx.init(params)), keys)
    return params, losses


@jax.jit
def with_versions(functions, tx, params, keys):
    """The same at the mix of versions that a pipeline sees; the versions are in the carry."""
    tx = delay_stages(tx)

    def step(carry, key):
        params, served, state = carry
        value, gradient = _gradient(functions, served, key)
        updates, state = tx.update(gradient, state, params, stale_params=served)
        params = optax.apply_updates(params, updates)
        # Read after it is written, or the rings would be copied.
        return (params, served_params(params, state), state), value

    (params, _, _), losses = lax.scan(step, (params, params, tx.init(params)), keys)
    return params, losses


def measure(model, turns):
    """All methods on one model."""
    plain, recomputing = problem(model), problem(model, recompute=True)
    functions, params, keys = loops.start(plain, max(model.lengths))
    again, _, _ = loops.start(recomputing, 1)
    timelines = {n: ao.pipeline.timeline(NUM_STAGES, n) for n in model.lengths}
    drained = {n: ao.pipeline.timeline(NUM_STAGES, n, synchronous=True) for n in model.lengths}

    def simulated(make, length):
        return ao.simulate(
            plain,
            make(RATE),
            (drained if make is pipelines.gpipe else timelines)[length],
            key=jax.random.key(loops.KEY_SEED),
            worker=ao.pipeline.gradient(),
            lanes=1,
        ).params

    def by_hand(loop, functions, make, length):
        return loop(functions, make(RATE), params, keys[:length])

    contestants = {
        "adamw": functools.partial(by_hand, synchronous, functions, pipelines.gpipe),
        "adamw, versions": functools.partial(by_hand, with_versions, functions, pipelines.gpipe),
        "adamw, recomputing": functools.partial(by_hand, synchronous, again, pipelines.gpipe),
        "nadamw": functools.partial(by_hand, synchronous, functions, ao.optimizers.nadam_delayed),
        "nadamw, recomputing": functools.partial(
            by_hand, synchronous, again, ao.optimizers.nadam_delayed
        ),
    }
    methods = STASHED | WITHOUT
    contestants |= {name: functools.partial(simulated, make) for name, make in methods.items()}
    contestants["gpipe"] = functools.partial(simulated, pipelines.gpipe)
    differences = {
        "synchronous": loops.largest_difference(
            simulated(pipelines.gpipe, model.lengths[0]), contestants["adamw"](model.lengths[0])[0]
        ),
        "versions": loops.largest_difference(
            simulated(pipelines.pipedream, model.lengths[0]),
            contestants["adamw, versions"](model.lengths[0])[0],
        ),
    }
    if not max(differences.values()) < TOLERANCE:
        raise AssertionError(f"simulate and the loops by hand end apart: {differences}")
    times = measuring.by_two_lengths(contestants, model.lengths, turns)

    def ratio(name, baseline):
        return measuring.ratio(times.slope[name], times.slope[baseline])

    copies = [
        a - b for a, b in zip(times.slope["adamw, versions"], times.slope["adamw"], strict=True)
    ]
    rows = {}
    for name in [*methods, "gpipe"]:
        adam = "nadamw" if "nesterov" in name else "adamw"
        claimed = f"{adam}, recomputing" if name in WITHOUT else adam
        stashes = name != "gpipe"
        beside = [time - stashes * c for time, c in zip(times.slope[name], copies, strict=True)]
        rows[name] = {
            "ratio_to_synchronous": ratio(name, adam),
            "ratio_to_baseline": ratio(name, claimed),
            "ratio_without_copies": measuring.ratio(beside, times.slope[claimed]),
            "baseline": claimed,
            "claim": CLAIM,
        }
    return {
        "num_stages": NUM_STAGES,
        "num_parameters": loops.size(params),
        "updates": model.lengths,
        "largest_difference": differences,
        "times": times.summary(),
        "ratio_of_stash_copies": ratio("adamw, versions", "adamw"),
        "methods": rows,
    }


def main():
    args = measuring.parser(__doc__, turns=7).parse_args()
    measuring.pin_to_one_thread()
    models, turns = (QUICK, 1) if args.quick else (MODELS, args.turns)
    results = {}
    for name, model in models.items():
        row = results[name] = measure(model, turns)
        alone = row["times"]["adamw"]["microseconds_per_arrival"]
        print(f"{name}: a synchronous step takes {alone:.0f} microseconds", flush=True)
        print(f"  versions by hand {row['ratio_of_stash_copies']:.3f}")
        for method, of in row["methods"].items():
            print(
                f"  {method:20} {of['ratio_to_synchronous']:.3f} of a synchronous step, "
                f"{of['ratio_to_baseline']:.3f} of {of['baseline']}; without stash copies "
                f"{of['ratio_without_copies']:.3f}, claim {of['claim']}",
                flush=True,
            )
    measuring.write_results(args.output, "pipeline", {"models": results})


if __name__ == "__main__":
    main()
