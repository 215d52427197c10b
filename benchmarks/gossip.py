"""One round of gossip among n agents over n gradients in a bare hand-written `lax.scan`.

Claim, on one thread: a round of `simulate`, gradients, mixing and steps of n agents, takes at most
1.2 times what n gradients take, each with the step of plain SGD on its agent's own copy. Batches
are of 32 samples unless it says otherwise: the larger they are, the less of a round is mixing.

Baseline: a scan over rounds, in it a scan over agents; nobody mixes. Beside it D-PSGD by hand: the
same scan with the product of the mixing matrix and the copies; `simulate` ends at its parameters,
to rounding. All run in turns within one process, at two lengths: the slope is the time per round,
without what a run costs once; a ratio is the median over the turns; compilation is not in it. The
script starts itself again on one core, with XLA's single-threaded matrix products (Linux).

    python benchmarks/gossip.py
"""

import functools
import statistics
from typing import NamedTuple

import jax
import jax.numpy as jnp
import loops
import measuring
from jax import lax

import async_optax as ao
from async_optax import topologies

CLAIM = 1.2
TOLERANCE = 1e-4
DELAY = 4


class Model(NamedTuple):
    """Layer widths, number of agents, lengths of the runs in rounds, samples per gradient."""

    widths: tuple[int, ...]
    num_agents: int
    lengths: tuple[int, int]
    batch_size: int = loops.BATCH


MODELS = {
    "small (MLP 784-128-10), 8 agents": Model((784, 128, 10), 8, (200, 800)),
    "small (MLP 784-128-10), 32 agents": Model((784, 128, 10), 32, (50, 200)),
    "small (MLP 784-128-10), 32 agents, batches of 128": Model((784, 128, 10), 32, (25, 75), 128),
    "larger (MLP 784-1024-1024-10), 8 agents": Model((784, 1024, 1024, 10), 8, (10, 30)),
}
QUICK = {"tiny": Model((16, 8, 4), 4, (16, 48))}


def methods(num_agents):
    """What is measured: plain gossip, sparse and dense, late, and the costliest method."""
    rate, ring = loops.LEARNING_RATE, topologies.ring(num_agents)
    late = topologies.delayed_links(ring, 0.5)
    return {
        "D-PSGD, ring": ao.optimizers.d_psgd(rate, ring),
        "D-PSGD, complete": ao.optimizers.d_psgd(rate, topologies.complete(num_agents)),
        "D-PSGD, ring, late": ao.optimizers.d_psgd(rate, ring, DELAY * late),
        "PC-ASGD, ring, late": ao.optimizers.pc_asgd(rate, ring, late, DELAY),
    }


def starting_point(problem, num_agents, num_rounds):
    """Functions, copies and keys ``[num_rounds, num_agents]``, as `simulate` has them."""
    functions, params, keys = loops.start(problem, num_rounds)
    copies = jax.tree.map(lambda x: jnp.repeat(x[None], num_agents, 0), params)
    agents = jnp.arange(num_agents)
    split = jax.vmap(lambda key: jax.vmap(functools.partial(jax.random.fold_in, key))(agents))
    return functions, copies, split(keys)


def _round(functions, copies, keys):
    loss, sample = functions()

    def agent(job):
        params, worker, key = job
        batch_key, loss_key, _ = jax.random.split(key, 3)
        batch = sample(batch_key, worker)
        value, gradient = jax.value_and_grad(loss)(params, batch, loss_key)
        return jax.tree.map(lambda p, g: p - loops.LEARNING_RATE * g, params, gradient), value

    return lax.map(agent, (copies, jnp.arange(len(keys)), keys))


@jax.jit
def alone(functions, copies, keys):
    """Every agent trains for itself: n gradients and steps per round."""
    return lax.scan(functools.partial(_round, functions), copies, keys)


@jax.jit
def by_hand(functions, matrix, copies, keys):
    """D-PSGD: ``W x - rate * g``, the mixing as a product with a matrix."""

    def mixed(copies, keys):
        stepped, values = _round(functions, copies, keys)

        def mix(x, y):
            product = jnp.matmul(matrix, x.reshape(len(x), -1)).reshape(x.shape)
            return product + (y - x)

        return jax.tree.map(mix, copies, stepped), values

    return lax.scan(mixed, copies, keys)


def measure(model, turns):
    """All methods against n gradients."""
    problem, n = loops.perceptron(model.widths, batch_size=model.batch_size), model.num_agents
    agents, ring = ao.gossip.problem(problem, n), topologies.ring(n)
    functions, copies, keys = starting_point(problem, n, max(model.lengths))
    timelines = {
        length: ao.gossip.timeline(ring, ao.runtimes.deterministic(), length)
        for length in model.lengths
    }

    def simulate(optimizer, length):
        return ao.simulate(
            agents,
            optimizer,
            timelines[length],
            key=jax.random.key(loops.KEY_SEED),
            worker=ao.gossip.gradients(),
            lanes=1,
        ).params

    contestants = {
        name: functools.partial(simulate, optimizer) for name, optimizer in methods(n).items()
    }
    names = list(contestants)
    contestants["n gradients"] = lambda length: alone(functions, copies, keys[:length])
    matrix = jnp.asarray(ring.matrices[0], jnp.float32)
    contestants["by hand, ring"] = lambda length: by_hand(functions, matrix, copies, keys[:length])
    short = model.lengths[0]
    difference = loops.largest_difference(
        contestants["D-PSGD, ring"](short), contestants["by hand, ring"](short)[0]
    )
    if not difference < TOLERANCE:
        raise AssertionError(f"simulate and the loop by hand end {difference} apart")
    times = measuring.by_two_lengths(contestants, model.lengths, turns)
    return {
        "num_agents": n,
        "rounds": model.lengths,
        "parameter_bytes": loops.num_bytes(copies) // n,
        "largest_difference": difference,
        "times": {name: row["microseconds_per_arrival"] for name, row in times.summary().items()},
        "first_call_seconds": times.first_call,
        "ratio_to_n_gradients": {
            name: measuring.ratio(times.slope[name], times.slope["n gradients"])
            for name in (*names, "by hand, ring")
        },
        "ratio_to_by_hand": measuring.ratio(
            times.slope["D-PSGD, ring"], times.slope["by hand, ring"]
        ),
        "milliseconds_per_gradient": 1e3 * statistics.median(times.slope["n gradients"]) / n,
        "claim": CLAIM,
    }


def main():
    args = measuring.parser(__doc__, turns=5).parse_args()
    measuring.pin_to_one_thread()
    models, turns = (QUICK, 1) if args.quick else (MODELS, args.turns)
    rows = {}
    for name, model in models.items():
        row = rows[name] = measure(model, turns)
        print(
            f"\n{name}: {row['milliseconds_per_gradient']:.3f} ms per gradient; over n gradients:"
        )
        for method, ratio in row["ratio_to_n_gradients"].items():
            print(f"  {method:22} {ratio:6.3f}", flush=True)
        print(f"  claim {CLAIM}; D-PSGD over the loop by hand: {row['ratio_to_by_hand']:.3f}")
    measuring.write_results(args.output, "gossip", {"models": rows})


if __name__ == "__main__":
    main()
