"""The compiled program: a chunk of waves, applied to the server's state in one call."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.tree_util import Partial

from async_optax.engine.problem import Problem
from async_optax.engine.record import ArrivalInfo, Recorder
from async_optax.engine.worker import WorkerProgram
from async_optax.transforms import Structure, served_params, split_numbers

MAX_ARRIVALS = 2048  # per call; shapes never depend on how many there really are
MAX_SEGMENTS = 64

WORKER, STALENESS, READ_SLOT, WRITE_SLOT, COMMIT, JOB = range(6)  # columns of ``integers``


class Server(NamedTuple):
    """What the server carries from one arrival to the next.

    Attributes:
      params: the current version.
      opt_state: the optimizer's state.
      slots: the live versions as workers read them (the parameters, or the optimizer's
        look-ahead), like params with a leading axis ``[num_rows]``.
    """

    params: optax.Params
    opt_state: optax.OptState
    slots: optax.Params


class Chunk(NamedTuple):
    """The part of a plan that one call executes, padded to constant shapes.

    Waves are grouped in segments; a segment may end in an evaluation. NumPy arrays on the
    host, tracers in the program.

    Attributes:
      integers: int32 ``[MAX_ARRIVALS + lanes, 6]``, one row per arrival.
      weights: default float ``[MAX_ARRIVALS + lanes]``, shares in the commits.
      wave_starts: int32 ``[MAX_ARRIVALS + 1]``, first arrival of each wave.
      segment_ends: int32 ``[MAX_SEGMENTS]``, the wave after the segment's last.
      evaluates: bool ``[MAX_SEGMENTS]``, whether the segment ends in an evaluation.
      num_segments: int32 scalar.
    """

    integers: Any
    weights: Any
    wave_starts: Any
    segment_ends: Any
    evaluates: Any
    num_segments: Any


@dataclasses.dataclass(frozen=True)
class Structures:
    """Everything static about a run: runs with equal structures share one compilation.

    Attributes:
      problem: structure of the problem, without its numbers and data.
      optimizer: structure of the optimizer, without its numbers.
      worker: the worker program.
      recorders: names and functions of what is kept per arrival.
      lanes: width of a wave.
      commits_every_arrival: whether accumulation can be left out.
    """

    problem: Structure
    optimizer: Structure
    worker: WorkerProgram
    recorders: tuple[tuple[str, Recorder], ...]
    lanes: int
    commits_every_arrival: bool


@functools.partial(jax.jit, static_argnames="structures", donate_argnames="server")
def run_chunk(
    structures: Structures,
    problem_numbers: tuple[Any, ...],
    optimizer_numbers: tuple[Any, ...],
    server: Server,
    chunk: Chunk,
    key: jax.Array,
) -> tuple[Server, jax.Array, jax.Array]:
    """Executes a chunk.

    Args:
      structures: the static part.
      problem_numbers: numbers and data of the problem.
      optimizer_numbers: numbers of the optimizer.
      server: the state before; donated.
      chunk: what to execute.
      key: the run's key; job i uses ``fold_in(key, i)``.

    Returns:
      The state after, the records ``[MAX_ARRIVALS, num_recorders]`` and the evaluations
      ``[MAX_SEGMENTS, num_metrics]``; rows beyond the chunk's content are zero.
    """
    problem = structures.problem.join(problem_numbers)
    optimizer = structures.optimizer.join(optimizer_numbers)
    job_keys = jax.vmap(functools.partial(jax.random.fold_in, key))(chunk.integers[:, JOB])
    wave_fn = _single_wave if structures.lanes == 1 else _wide_wave
    run_wave = wave_fn(structures, problem, optimizer, chunk, job_keys)
    evaluate = _packed_evaluation(problem)

    def run_segment(segment: jax.Array, carry: Any) -> Any:
        first_wave, server, records, evaluations = carry
        last_wave = chunk.segment_ends[segment]
        server, records = lax.fori_loop(first_wave, last_wave, run_wave, (server, records))
        metrics = lax.cond(
            chunk.evaluates[segment],
            evaluate,
            lambda params: jnp.zeros(evaluations.shape[1:]),
            server.params,
        )
        return last_wave, server, records, evaluations.at[segment].set(metrics)

    num_metrics = jax.eval_shape(evaluate, server.params).shape[0]
    records = jnp.zeros((MAX_ARRIVALS, len(structures.recorders)))
    evaluations = jnp.zeros((MAX_SEGMENTS, num_metrics))
    start = (jnp.int32(0), server, records, evaluations)
    _, server, records, evaluations = lax.fori_loop(0, chunk.num_segments, run_segment, start)
    return server, records, evaluations


def _packed_evaluation(problem: Problem) -> Callable[[optax.Params], jax.Array]:
    def evaluate(params: optax.Params) -> jax.Array:
        metrics = problem.evaluate(params) if problem.evaluate is not None else {}
        values = [jnp.asarray(metrics[name], float) for name in sorted(metrics)]
        return jnp.stack(values) if values else jnp.zeros(0)

    return evaluate


def _single_wave(
    structures: Structures, problem: Problem, optimizer: Any, chunk: Chunk, job_keys: jax.Array
) -> Callable:
    """One arrival per wave: the stale parameters are read once, for gradient and optimizer."""

    def run_wave(arrival: jax.Array, carry: tuple[Server, jax.Array]) -> tuple[Server, jax.Array]:
        server, records = carry
        row = chunk.integers[arrival]
        stale_params = _read(server.slots, row[READ_SLOT])
        gradient, loss = structures.worker(problem, stale_params, row[WORKER], job_keys[arrival])
        weight = chunk.weights[arrival]
        gradient_fn = _gradient_fn(structures, problem, row, job_keys[arrival])
        server, values = _apply(
            structures, optimizer, server, row, weight, stale_params, gradient, loss, gradient_fn
        )
        return server, records.at[arrival].set(values)

    return run_wave


def _wide_wave(
    structures: Structures, problem: Problem, optimizer: Any, chunk: Chunk, job_keys: jax.Array
) -> Callable:
    """All gradients of a wave by one vmap, then its arrivals one by one in their order."""
    compute = jax.vmap(structures.worker, in_axes=(None, 0, 0, 0))

    def run_wave(wave: jax.Array, carry: tuple[Server, jax.Array]) -> tuple[Server, jax.Array]:
        start, end = chunk.wave_starts[wave], chunk.wave_starts[wave + 1]
        rows = lax.dynamic_slice_in_dim(chunk.integers, start, structures.lanes)
        keys = lax.dynamic_slice_in_dim(job_keys, start, structures.lanes)
        slots = carry[0].slots
        stale_params = jax.tree.map(lambda x: x[rows[:, READ_SLOT]], slots)
        gradients, losses = compute(problem, stale_params, rows[:, WORKER], keys)

        def apply_lane(
            arrival: jax.Array, carry: tuple[Server, jax.Array]
        ) -> tuple[Server, jax.Array]:
            server, records = carry
            lane = arrival - start
            row = rows[lane]
            gradient = _read(gradients, lane)
            stale = _read(server.slots, row[READ_SLOT])
            weight = chunk.weights[arrival]
            gradient_fn = _gradient_fn(structures, problem, row, keys[lane])
            server, values = _apply(
                structures,
                optimizer,
                server,
                row,
                weight,
                stale,
                gradient,
                losses[lane],
                gradient_fn,
            )
            return server, records.at[arrival].set(values)

        return lax.fori_loop(start, end, apply_lane, carry)

    return run_wave


def _apply(
    structures: Structures,
    optimizer: Any,
    server: Server,
    row: jax.Array,
    weight: jax.Array,
    stale_params: optax.Params,
    gradient: optax.Updates,
    loss: jax.Array,
    gradient_fn: Callable[[optax.Params], optax.Updates],
) -> tuple[Server, jax.Array]:
    """Lets the optimizer see one arrival and stores the parameters that follow."""
    extra_args = {
        "staleness": row[STALENESS],
        "stale_params": stale_params,
        "worker": row[WORKER],
        "gradient_fn": gradient_fn,
    }
    if not structures.commits_every_arrival:
        extra_args |= {"commit": row[COMMIT].astype(bool), "weight": weight}
    update, opt_state = optimizer.update(gradient, server.opt_state, server.params, **extra_args)
    params = optax.apply_updates(server.params, update)
    served = served_params(params, opt_state)
    if served is not params and not structures.commits_every_arrival:
        # A version is served as it was at its commit, however the look-ahead moves on.
        before = _read(server.slots, row[WRITE_SLOT])
        served = jax.tree.map(lambda x, old: jnp.where(row[COMMIT], x, old), served, before)
    slots = jax.tree.map(
        lambda copies, x: lax.dynamic_update_index_in_dim(copies, x, row[WRITE_SLOT], 0),
        server.slots,
        served,
    )
    info = ArrivalInfo(loss, gradient, update, server.params, stale_params, row[STALENESS])
    values = [jnp.asarray(record(info), float) for _, record in structures.recorders]
    return Server(params, opt_state, slots), jnp.stack(values)


@dataclasses.dataclass(frozen=True)
class _GradientAt:
    """A job's gradient at any parameters, with the same batch and noise."""

    worker: WorkerProgram
    problem: Structure

    def __call__(
        self, numbers: tuple[Any, ...], worker: jax.Array, key: jax.Array, params: optax.Params
    ) -> optax.Updates:
        return self.worker(self.problem.join(numbers), params, worker, key)[0]


def _gradient_fn(
    structures: Structures, problem: Problem, row: jax.Array, key: jax.Array
) -> Callable[[optax.Params], optax.Updates]:
    """Free unless called; a pytree, so that it may be an argument of a jitted update."""
    numbers, structure = split_numbers(problem)
    return Partial(_GradientAt(structures.worker, structure), numbers, row[WORKER], key)


def _read(copies: Any, index: jax.Array) -> Any:
    # The plan has checked its slots on the host: an index is never out of range here.
    return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, index, keepdims=False), copies)
