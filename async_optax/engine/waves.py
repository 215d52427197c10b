"""Waves: gradients computed together, arrivals applied one by one in their order."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.tree_util import Partial

from async_optax.engine.feed import delivered
from async_optax.engine.problem import Problem
from async_optax.engine.record import ArrivalInfo
from async_optax.engine.states import (
    COMMIT,
    JOB,
    READ_SLOT,
    STALENESS,
    WORKER,
    WRITE_SLOT,
    Chunk,
    Numbers,
    Server,
    Structures,
)
from async_optax.transforms import (
    RowUpdates,
    Structure,
    apply_updates,
    served_params,
    split_numbers,
)


class _Job(NamedTuple):
    """One job of a wave, or all of them.

    Attributes:
      row: int32 ``[6]``, its integers.
      key: its key.
      batches: what was streamed for it ``[num_batches, ...]``, or ``None``.
    """

    row: jax.Array
    key: jax.Array
    batches: Any


def wave_runner(
    structures: Structures, numbers: Numbers, chunk: Chunk, key: jax.Array
) -> Callable[[jax.Array, tuple[Server, jax.Array]], tuple[Server, jax.Array]]:
    """Returns the body of the loop over waves, ``(wave, (server, records)) -> ...``."""
    job_keys = jax.vmap(functools.partial(jax.random.fold_in, key))(chunk.integers[:, JOB])
    jobs = _Job(chunk.integers, job_keys, chunk.batches)
    runner = _single_wave if structures.lanes == 1 else _wide_wave
    return runner(_Engine(structures, numbers), chunk, jobs)


def _single_wave(engine: "_Engine", chunk: Chunk, jobs: _Job) -> Callable:
    """One arrival per wave: the stale parameters are read once, for gradient and optimizer."""

    def run_wave(arrival: jax.Array, carry: tuple[Server, jax.Array]) -> tuple[Server, jax.Array]:
        server, records = carry
        job = _read(jobs, arrival)
        stale_params = engine.read_slot(server, job.row[READ_SLOT])
        gradient, loss = engine.compute(stale_params, job)
        server, values = engine.apply(
            server, job, chunk.weights, arrival, stale_params, gradient, loss
        )
        return server, records.at[arrival].set(values)

    return run_wave


def _wide_wave(engine: "_Engine", chunk: Chunk, jobs: _Job) -> Callable:
    """All gradients of a wave by one vmap, then its arrivals one by one in their order."""

    def run_wave(wave: jax.Array, carry: tuple[Server, jax.Array]) -> tuple[Server, jax.Array]:
        start, end = chunk.wave_starts[wave], chunk.wave_starts[wave + 1]
        gradients, losses = engine.compute_wave(carry[0], jobs, start)

        def apply_lane(
            arrival: jax.Array, carry: tuple[Server, jax.Array]
        ) -> tuple[Server, jax.Array]:
            server, records = carry
            lane, job = arrival - start, _read(jobs, arrival)
            server, values = engine.apply(
                server,
                job,
                chunk.weights,
                arrival,
                engine.read_slot(server, job.row[READ_SLOT]),
                _read(gradients, lane),
                losses[lane],
            )
            return server, records.at[arrival].set(values)

        return lax.fori_loop(start, end, apply_lane, carry)

    return run_wave


class _Engine:
    """What one arrival does to the server."""

    def __init__(self, structures: Structures, numbers: Numbers):
        self._structures = structures
        self._problem = structures.problem.join(numbers.problem)
        self._optimizer = structures.optimizer.join(numbers.optimizer)
        self._worker = structures.worker.join(numbers.worker)

    def read_slot(self, server: Server, slot: jax.Array) -> Any:
        """Returns the version in a slot, as a worker reads it.

        By a branch that is always taken, though the compiler cannot know: a read that is fused
        into the write of another slot would need a copy of all slots.
        """
        (num_rows, *_), *_ = (x.shape for x in jax.tree.leaves(server.slots))
        if num_rows == 1:
            return _widened(_read(server.slots, slot), server)
        copy = lax.cond(
            slot >= 0,
            lambda slots: _read(slots, slot),
            lambda slots: jax.tree.map(lambda x: jnp.full(x.shape[1:], jnp.nan, x.dtype), slots),
            server.slots,
        )
        return _widened(copy, server)

    def compute(self, stale_params: Any, job: _Job) -> tuple[optax.Updates, jax.Array]:
        """Returns what the worker program sends."""
        problem = self._fed(job)
        return self._worker(problem, stale_params, job.row[WORKER], job.key)

    def compute_wave(
        self, server: Server, jobs: _Job, start: jax.Array
    ) -> tuple[optax.Updates, jax.Array]:
        """Returns what the jobs of a wave send, ``[lanes, ...]``, from all devices of the mesh."""
        mesh, lanes = self._structures.mesh, self._structures.lanes
        if mesh is not None:
            lanes //= mesh.size
            start += lanes * lax.axis_index(mesh.axis_names)
        jobs = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, lanes), jobs)
        if self._structures.one_version:
            stale_params, axis = self.read_slot(server, jobs.row[0, READ_SLOT]), None
        else:
            copies = jax.tree.map(lambda x: x[jobs.row[:, READ_SLOT]], server.slots)
            stale_params, axis = _widened(copies, server), 0
        sent = jax.vmap(self.compute, in_axes=(axis, 0))(stale_params, jobs)
        if mesh is not None:
            sent = lax.all_gather(sent, mesh.axis_names, tiled=True)
        return sent

    def apply(
        self,
        server: Server,
        job: _Job,
        weights: jax.Array,
        arrival: jax.Array,
        stale_params: Any,
        gradient: optax.Updates,
        loss: jax.Array,
    ) -> tuple[Server, jax.Array]:
        """Lets the optimizer see one arrival; a commit stores the parameters that follow."""
        row = job.row
        extra_args = {
            "staleness": row[STALENESS],
            "stale_params": stale_params,
            "worker": row[WORKER],
            "gradient_fn": self._gradient_fn(job),
        }

        def arrive(server: Server, **gathering: Any) -> tuple[Server, jax.Array]:
            params = server.params
            update, opt_state = self._optimizer.update(
                gradient, server.opt_state, params, **extra_args, **gathering
            )
            added = update.values if isinstance(update, RowUpdates) else update
            info = ArrivalInfo(loss, gradient, added, params, stale_params, row[STALENESS])
            values = [jnp.asarray(record(info), float) for _, record in self._structures.recorders]
            server = server._replace(opt_state=opt_state)
            if gathering.get("commit", True):
                server = _committed(server, update, row[WRITE_SLOT])
            return server, jnp.stack(values)

        if self._structures.commits_every_arrival:
            return arrive(server)

        def arrive_once(commit: bool, i: jax.Array, carry: Any) -> Any:
            return arrive(carry[0], commit=commit, weight=weights[arrival + i])

        # Two loops, of which one runs once and the other not at all: in each it is known whether
        # the server commits, so that nothing is done to the parameters in between, and loops
        # update their carry in place where a conditional copies it. The weight is read at the
        # loop's index lest scaling by it becomes a pass of its own, ahead of the loop.
        commits = row[COMMIT]
        carry = server, jnp.zeros(len(self._structures.recorders))
        carry = lax.fori_loop(0, 1 - commits, functools.partial(arrive_once, False), carry)
        return lax.fori_loop(0, commits, functools.partial(arrive_once, True), carry)

    def _fed(self, job: _Job) -> Problem:
        """The problem; if its data is streamed, with the batches that came for this job."""
        if job.batches is None:
            return self._problem
        batch = delivered(job.batches, self._worker.batch_keys(job.key))
        return dataclasses.replace(self._problem, batch=batch)

    def _gradient_fn(self, job: _Job) -> Callable[[optax.Params], optax.Updates]:
        """Free unless called; a pytree, so that it may be an argument of a jitted update."""
        numbers, structure = split_numbers((self._fed(job), self._worker))
        return Partial(_GradientAt(structure), numbers, job.row[WORKER], job.key)


@dataclasses.dataclass(frozen=True)
class _GradientAt:
    """What a job sends at any parameters, with the same batch and noise."""

    structure: Structure

    def __call__(
        self, numbers: tuple[Any, ...], worker: jax.Array, key: jax.Array, params: optax.Params
    ) -> optax.Updates:
        problem, program = self.structure.join(numbers)
        return program(problem, params, worker, key)[0]


def _committed(server: Server, update: optax.Updates | RowUpdates, slot: jax.Array) -> Server:
    """Adds an update to the parameters and serves them, as they are now, in a slot."""
    params = apply_updates(server.params, update)
    slots = jax.tree.map(
        lambda copies, x: lax.dynamic_update_index_in_dim(copies, x.astype(copies.dtype), slot, 0),
        server.slots,
        served_params(params, server.opt_state),
    )
    return server._replace(params=params, slots=slots)


def _widened(copies: Any, server: Server) -> Any:
    """What was read from slots, in the dtypes of what is served."""
    served = jax.eval_shape(served_params, server.params, server.opt_state)
    return jax.tree.map(lambda x, y: x.astype(y.dtype), copies, served)


def _read(copies: Any, index: jax.Array) -> Any:
    # The plan has checked its slots on the host: an index is never out of range here.
    return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, index, keepdims=False), copies)
