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
from async_optax.engine.worker_calls import call_worker
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


class _Sent(NamedTuple):
    """What a job leaves.

    Attributes:
      update: what the worker sends.
      loss: float scalar.
      state: what the worker keeps for its next job.
    """

    update: optax.Updates
    loss: jax.Array
    state: Any


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
        state = engine.read_state(server, job.row[WORKER])
        sent = engine.compute(stale_params, job, state)
        server, values = engine.apply(
            server, job, chunk.weights, arrival, stale_params, state, sent
        )
        return server, records.at[arrival].set(values)

    return run_wave


def _wide_wave(engine: "_Engine", chunk: Chunk, jobs: _Job) -> Callable:
    """All gradients of a wave by one vmap, then its arrivals one by one in their order."""

    def run_wave(wave: jax.Array, carry: tuple[Server, jax.Array]) -> tuple[Server, jax.Array]:
        start, end = chunk.wave_starts[wave], chunk.wave_starts[wave + 1]
        sent = engine.compute_wave(carry[0], jobs, start)

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
                # Still that before the job: no worker is in a wave twice.
                engine.read_state(server, job.row[WORKER]),
                _Sent(_read(sent.update, lane), sent.loss[lane], _read(sent.state, lane)),
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
        """Returns the version in a slot, as a worker reads it."""
        if self._structures.always_fresh:
            return server.params
        return _widened(_read_apart(server.slots, slot), server)

    def read_state(self, server: Server, worker: jax.Array) -> Any:
        """Returns what a worker has kept from its last job."""
        return _read_apart(server.workers, worker)

    def compute(self, stale_params: Any, job: _Job, state: Any) -> _Sent:
        """Returns what the worker program makes of a job."""
        problem, worker = self._fed(job), job.row[WORKER]
        return _Sent(*call_worker(self._worker, problem, stale_params, worker, job.key, state))

    def compute_wave(self, server: Server, jobs: _Job, start: jax.Array) -> _Sent:
        """Returns what the jobs of a wave leave, ``[lanes, ...]``, from all devices of the mesh."""
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
        # Lanes beyond the wave's end compute on whatever is there: nobody looks at what they leave.
        states = jax.tree.map(lambda x: x[jobs.row[:, WORKER]], server.workers)
        sent = jax.vmap(self.compute, in_axes=(axis, 0, 0))(stale_params, jobs, states)
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
        state: Any,
        sent: _Sent,
    ) -> tuple[Server, jax.Array]:
        """Lets the optimizer see one arrival; a commit stores the parameters that follow."""
        row = job.row
        extra_args = {
            "staleness": row[STALENESS],
            "stale_params": stale_params,
            "worker": row[WORKER],
            "gradient_fn": self._gradient_fn(job, state),
        }
        server = server._replace(workers=_written(server.workers, row[WORKER], sent.state))

        def arrive(server: Server, **gathering: Any) -> tuple[Server, jax.Array]:
            params = server.params
            update, opt_state = self._optimizer.update(
                sent.update, server.opt_state, params, **extra_args, **gathering
            )
            added = update.values if isinstance(update, RowUpdates) else update
            info = ArrivalInfo(sent.loss, sent.update, added, params, stale_params, row[STALENESS])
            values = [jnp.asarray(record(info), float) for _, record in self._structures.recorders]
            server = server._replace(opt_state=opt_state)
            if gathering.get("commit", True):
                server = self._committed(server, update, row[WRITE_SLOT])
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

    def _committed(
        self, server: Server, update: optax.Updates | RowUpdates, slot: jax.Array
    ) -> Server:
        """Adds an update to the parameters and serves them, as they are now, in a slot."""
        params = apply_updates(server.params, update)
        if self._structures.always_fresh:
            return server._replace(params=params)
        served = served_params(params, server.opt_state)
        return server._replace(params=params, slots=_written(server.slots, slot, served))

    def _fed(self, job: _Job) -> Problem:
        """The problem; if its data is streamed, with the batches that came for this job."""
        if job.batches is None:
            return self._problem
        batch = delivered(job.batches, self._worker.batch_keys(job.key))
        return dataclasses.replace(self._problem, batch=batch)

    def _gradient_fn(self, job: _Job, state: Any) -> Callable[[optax.Params], optax.Updates]:
        """Free unless called; a pytree, so that it may be an argument of a jitted update."""
        numbers, structure = split_numbers((self._fed(job), self._worker))
        return Partial(_GradientAt(structure), numbers, job.row[WORKER], job.key, state)


@dataclasses.dataclass(frozen=True)
class _GradientAt:
    """What a job sends at any parameters, with the same batch, noise and worker's state."""

    structure: Structure

    def __call__(
        self,
        numbers: tuple[Any, ...],
        worker: jax.Array,
        key: jax.Array,
        state: Any,
        params: optax.Params,
    ) -> optax.Updates:
        problem, program = self.structure.join(numbers)
        return call_worker(program, problem, params, worker, key, state)[0]


def _widened(copies: Any, server: Server) -> Any:
    """What was read from slots, in the dtypes of what is served."""
    served = jax.eval_shape(served_params, server.params, server.opt_state)
    return jax.tree.map(lambda x, y: x.astype(y.dtype), copies, served)


def _read(copies: Any, index: jax.Array) -> Any:
    # The plan has checked its slots on the host: an index is never out of range here.
    return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, index, keepdims=False), copies)


def _read_apart(copies: Any, index: jax.Array) -> Any:
    """Reads by a branch that is always taken, though the compiler cannot know.

    A read that is fused into the write of another entry would need a copy of all of them.
    """
    if all(x.shape[0] == 1 for x in jax.tree.leaves(copies)):
        return _read(copies, index)

    def nothing(copies: Any) -> Any:
        return jax.tree.map(lambda x: jnp.full(x.shape[1:], _nobody(x.dtype), x.dtype), copies)

    return lax.cond(index >= 0, lambda copies: _read(copies, index), nothing, copies)


def _nobody(dtype: jnp.dtype) -> float:
    return jnp.nan if jnp.issubdtype(dtype, jnp.inexact) else 0


def _written(copies: Any, index: jax.Array, values: Any) -> Any:
    return jax.tree.map(
        lambda entries, x: lax.dynamic_update_index_in_dim(
            entries, x.astype(entries.dtype), index, 0
        ),
        copies,
        values,
    )
