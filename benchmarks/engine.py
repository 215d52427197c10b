"""Arrivals per second of `simulate` over the bare hand-written `lax.scan` loop.

Claim: the simulator is as fast as what one would write by hand for one method and one
protocol. Baseline: plain asynchronous SGD as a single scan that carries the parameters and one
copy of them per worker, on the same timeline with the same batches. Limit: synchronous SGD as
a scan without copies, the same number of gradients one after another. All three run in turns
within one process; a ratio is the median over the turns, compilation is measured apart.

    python benchmarks/engine.py
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import Partial

import async_optax as ao

NUM_WORKERS = 16
BATCH = 32
LEARNING_RATE = 0.01
MODELS = {
    # name: layer widths, arrivals per turn, claimed ratio
    "small (MLP 784-128-10)": ((784, 128, 10), 4000, 0.85),
    "larger (MLP 784-1024-1024-10)": ((784, 1024, 1024, 10), 1000, 0.95),
}


def make_problem(widths):
    """A multilayer perceptron on random data: only its cost matters here."""
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(2048, widths[0])), jnp.float32)
    labels = jnp.asarray(rng.integers(0, widths[-1], 2048))

    def init(key):
        keys = jax.random.split(key, len(widths) - 1)
        return [
            (jax.random.normal(k, (a, b)) / np.sqrt(a), jnp.zeros(b))
            for k, a, b in zip(keys, widths[:-1], widths[1:], strict=True)
        ]

    def loss(params, batch, key):
        del key
        x, y = batch
        for w, b in params[:-1]:
            x = jax.nn.relu(x @ w + b)
        w, b = params[-1]
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(x @ w + b), y[:, None], 1))

    return ao.Problem(init, loss, Partial(_sample, images, labels))


def _sample(images, labels, key, worker):
    del worker
    rows = jax.random.randint(key, (BATCH,), 0, len(images))
    return images[rows], labels[rows]


@jax.jit
def bare_asynchronous(problem_data, params, workers, keys):
    """The loop one would write by hand: a copy of the parameters per worker."""
    loss, sample = problem_data

    def step(carry, inputs):
        params, copies = carry
        worker, key = inputs
        stale = jax.tree.map(lambda c: c[worker], copies)
        batch_key, loss_key = jax.random.split(key)
        batch = sample(batch_key, worker)
        value, gradient = jax.value_and_grad(loss)(stale, batch, loss_key)
        params = jax.tree.map(lambda p, g: p - LEARNING_RATE * g, params, gradient)
        copies = jax.tree.map(lambda c, p: c.at[worker].set(p), copies, params)
        return (params, copies), value

    copies = jax.tree.map(lambda p: jnp.repeat(p[None], NUM_WORKERS, 0), params)
    (params, _), losses = lax.scan(step, (params, copies), (workers, keys))
    return params, losses


@jax.jit
def bare_synchronous(problem_data, params, workers, keys):
    """The limit: the same gradients one after another, nobody stale."""
    loss, sample = problem_data

    def step(params, inputs):
        worker, key = inputs
        batch_key, loss_key = jax.random.split(key)
        batch = sample(batch_key, worker)
        value, gradient = jax.value_and_grad(loss)(params, batch, loss_key)
        return jax.tree.map(lambda p, g: p - LEARNING_RATE * g, params, gradient), value

    return lax.scan(step, params, (workers, keys))


def timed(function):
    started = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - started


def measure(widths, num_arrivals, turns):
    problem = make_problem(widths)
    timeline = ao.simulate_timeline(
        ao.protocols.asynchronous(),
        ao.runtimes.two_speed(4.0),
        NUM_WORKERS,
        num_commits=num_arrivals,
    )
    key = jax.random.key(0)
    params = problem.init(key)
    keys = jax.random.split(key, num_arrivals)
    workers = jnp.asarray(timeline.worker)
    data = (Partial(problem.loss), problem.batch)

    def simulate(lanes=1):
        optimizer = ao.optimizers.sgd(LEARNING_RATE)
        result = ao.simulate(problem, optimizer, timeline, key=key, lanes=lanes)
        return result.params, result.lanes

    contestants = {
        "simulate": lambda: simulate()[0],
        "bare asynchronous scan": lambda: bare_asynchronous(data, params, workers, keys),
        "bare synchronous scan": lambda: bare_synchronous(data, params, workers, keys),
    }
    compilation = {name: timed(run) for name, run in contestants.items()}
    lanes = simulate("auto")[1]
    seconds = {name: [] for name in contestants}
    for turn in range(turns):
        # Alternating order: no contestant always runs on the caches of the same other one.
        for name in list(contestants)[:: 1 if turn % 2 else -1]:
            seconds[name].append(timed(contestants[name]))
    return {
        "arrivals": num_arrivals,
        "milliseconds_per_gradient": 1e3
        * statistics.median(seconds["bare synchronous scan"])
        / num_arrivals,
        "first_call_seconds": compilation,
        "median_seconds": {name: statistics.median(s) for name, s in seconds.items()},
        "ratio_to_bare_scan": statistics.median(
            b / a
            for a, b in zip(seconds["simulate"], seconds["bare asynchronous scan"], strict=True)
        ),
        "ratio_to_synchronous_limit": statistics.median(
            b / a
            for a, b in zip(seconds["simulate"], seconds["bare synchronous scan"], strict=True)
        ),
        "lanes_chosen_by_auto": {"lanes": lanes.lanes, "reason": lanes.reason},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--turns", type=int, default=9)
    args = parser.parse_args()
    rows = {}
    print(
        f"{'model':32} {'ms/gradient':>11} {'of bare scan':>12} {'claim':>6} {'of sync limit':>13}"
    )
    for name, (widths, num_arrivals, claim) in MODELS.items():
        row = rows[name] = measure(widths, num_arrivals, args.turns) | {"claim": claim}
        print(
            f"{name:32} {row['milliseconds_per_gradient']:11.3f} "
            f"{row['ratio_to_bare_scan']:12.3f} {claim:6.2f} "
            f"{row['ratio_to_synchronous_limit']:13.3f}",
            flush=True,
        )
    machine = {
        "device": str(jax.devices()[0]),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "python": platform.python_version(),
    }
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / "engine.json"
    path.write_text(json.dumps({"machine": machine, "models": rows}, indent=2) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
