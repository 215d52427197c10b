"""A run that saves itself after every chunk; called by test_resuming, and killed by it."""

import jax

import async_optax as ao
from async_optax import data
from async_optax.engine import execution
from tests.engine.problems import make_timeline


class Numbers:
    """A source of numbers that fits nowhere."""

    def __len__(self):
        return 10**12

    def __getitem__(self, row):
        return float(row % 7)


def _init(key):
    return jax.numpy.full(3, 4.0)


def _loss(x, batch, key):
    return ((x[None] - batch[:, None]) ** 2).mean()


def _evaluate(x):
    return {"sum": x.sum()}


def execute(**options):
    """Streams its data, in chunks of 32 arrivals."""
    execution._FIRST_CHUNK, execution._CHUNK_SECONDS = 32, 0.0
    rows = data.uniform_rows(10**9, batch_size=4)
    problem = ao.Problem(_init, _loss, data.streamed(Numbers(), rows, num_threads=1), _evaluate)
    return ao.simulate(
        problem,
        ao.optimizers.fedbuff(0.1, momentum=0.5),
        make_timeline(200, ao.protocols.buffered(3)),
        key=jax.random.key(0),
        worker=ao.local_steps(2, ao.optimizers.sgd(0.05), learning_rate=0.05),
        evaluate_every=9,
        **{"lanes": 1} | options,
    )


def save_and_report(folder):
    """Prints how many arrivals are done, each time after they have been saved."""
    execute(
        checkpoint=ao.Checkpointing(folder, every=0),
        progress=lambda done, total: print(done, flush=True),
    )
