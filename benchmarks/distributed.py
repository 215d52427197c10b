"""Commits per second of real workers over a bare Ray loop that ships the same bytes.

Claim: at 1e4 to 1e8 parameters (single precision), asynchronous SGD on two worker processes by
`ao.distributed.train` makes at least 0.8 times as many commits per second as the loop one would
write by hand: a server actor that waits for a gradient, takes a jitted step, puts the parameters
into the object store and calls the worker again. No policy, trace, checkpoint, check of what comes,
status or stale parameters are in it. Workers are the same in both: one thread, the same jitted
gradient, of a quadratic, whose cost is that of reading and writing the parameters once.

Both run in turns, in processes of their own within one Ray session; the first commits are not
counted; a ratio is the median over the turns.

    python benchmarks/distributed.py
"""

import statistics
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import measuring
import numpy as np
from jax.tree_util import Partial

import async_optax as ao
from async_optax.distributed import ray_session, train
from async_optax.distributed.worker_actor import configure_jax

CLAIM = 0.8
NUM_WORKERS, RATE = 2, 0.1
SIZES = {  # parameters: commits, of which so many at the start are not counted
    10_000: (1500, 300),
    100_000: (1000, 200),
    1_000_000: (500, 100),
    10_000_000: (120, 20),
    100_000_000: (24, 6),
}
QUICK = {10_000: (60, 20)}


def zeros(size, key):
    return jnp.zeros(size)


def half_square(x, batch, key):
    return jnp.sum((x - batch) ** 2) / 2


def ones(key, worker):
    return jnp.ones(())


def quadratic(size):
    return ao.Problem(init=Partial(zeros, size), loss=half_square, batch=ones)


class BareWorker:
    """Computes the gradient of the quadratic."""

    def __init__(self, size):
        configure_jax("cpu", False, 1)
        self._size = size
        self._gradient = jax.jit(jax.value_and_grad(half_square))
        self.compute(np.zeros(size, np.float32))

    def ready(self):
        return True

    def compute(self, x):
        loss, gradient = self._gradient(x, np.float32(1.0), None)
        return np.asarray(gradient), float(loss)


class BareServer:
    """The loop by hand."""

    def __init__(self, workers, size):
        configure_jax(None, False, 0)
        self._workers, self._size = workers, size

    def run(self, num_commits, uncounted):
        import ray

        step = jax.jit(lambda x, g: x - RATE * g)
        x = jnp.zeros(self._size)
        calls = {}

        def send(worker, x):
            calls[worker.compute.remote(ray.put(np.asarray(x)))] = worker

        for worker in self._workers:
            send(worker, x)
        for commit in range(num_commits):
            if commit == uncounted:
                started = time.perf_counter()
            ready, _ = ray.wait(list(calls), num_returns=1)
            gradient, _ = ray.get(ready[0])
            x = step(x, gradient)
            send(calls.pop(ready[0]), x)
        jax.block_until_ready(x)
        return (num_commits - uncounted) / (time.perf_counter() - started), np.asarray(x[:3])


def bare(ray, size, num_commits, uncounted):
    """Commits per second of the loop by hand."""
    workers = [ray.remote(num_cpus=1)(BareWorker).remote(size) for _ in range(NUM_WORKERS)]
    server = ray.remote(num_cpus=1)(BareServer).remote(workers, size)
    ray.get([worker.ready.remote() for worker in workers])
    rate, _ = ray.get(server.run.remote(num_commits, uncounted))
    for actor in (*workers, server):
        ray.kill(actor)
    return rate


def ours(size, num_commits, uncounted):
    """Commits per second of `train`."""
    with tempfile.TemporaryDirectory() as folder:
        result = train(
            quadratic(size),
            ao.optimizers.sgd(RATE),
            ao.protocols.asynchronous(),
            NUM_WORKERS,
            key=jax.random.key(0),
            directory=Path(folder) / "run",
            num_commits=num_commits,
            checkpoint_every=None,
        )
    times = result.recording.timeline.commit_times
    return (num_commits - uncounted) / (times[-1] - times[uncounted - 1])


def measure(ray, size, num_commits, uncounted, turns):
    contestants = {
        "train": lambda: ours(size, num_commits, uncounted),
        "bare loop": lambda: bare(ray, size, num_commits, uncounted),
    }
    rates = {name: [] for name in contestants}
    for turn in range(turns):
        for name in list(contestants)[:: 1 if turn % 2 else -1]:
            rates[name].append(contestants[name]())
    return {
        "num_parameters": size,
        "megabytes_per_commit": 2 * 4 * size / 1e6,
        "commits_per_second": {name: statistics.median(rates[name]) for name in rates},
        "by_turn": rates,
        "ratio": measuring.ratio(rates["train"], rates["bare loop"]),
        "claim": CLAIM,
    }


def main():
    options = measuring.parser(__doc__, turns=3)
    options.add_argument("--largest", type=int, default=max(SIZES), help="most parameters")
    args = options.parse_args()
    sizes, turns = (QUICK, 1) if args.quick else (SIZES, args.turns)
    rows = []
    store = 8 * 4 * min(args.largest, max(sizes))
    with ray_session(None, 2 * NUM_WORKERS + 2, store) as ray:
        for size, (num_commits, uncounted) in sizes.items():
            if size > args.largest:
                continue
            row = measure(ray, size, num_commits, uncounted, turns)
            rows.append(row)
            shown = ", ".join(f"{k} {v:.4g}/s" for k, v in row["commits_per_second"].items())
            print(f"{size:>11} parameters: {shown}; ratio {row['ratio']:.3f}", flush=True)
    measuring.write_results(args.output, "distributed", {"rows": rows})


if __name__ == "__main__":
    main()
