"""The worker program of a replay: every job has the number that it really had."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from async_optax.engine.problem import Problem
from async_optax.engine.worker import WorkerProgram
from async_optax.engine.worker_calls import call_worker, initial_state


class RecordedJobsState(NamedTuple):
    """What one worker keeps between its jobs.

    Attributes:
      num_done: int32 scalar, its jobs so far that were accepted.
      inner_state: what the program itself keeps.
    """

    num_done: jax.Array
    inner_state: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class RecordedJobs:
    """A worker program whose jobs have the numbers of a recording.

    In a simulation job i is row i of the timeline. A real worker must know its job's number when it
    starts, before anybody knows when it arrives: there jobs are numbered as they are handed out.
    The k-th accepted job of worker j is number ``jobs[j, k]``, and its key ``fold_in(key,
    jobs[j, k])``. Where the recording says that a worker's state began anew (its process was
    started again), it does here.

    Attributes:
      program: what the workers ran.
      key: the run's ``job_key``, the second of ``jax.random.split(key)``.
      jobs: int32 ``[num_workers, most]``, -1 beyond a worker's last job.
      fresh: bool ``[num_workers, most]``.

    On another timeline a worker may run out of recorded jobs; its losses are then NaN, so that the
    run stops as diverged.
    """

    program: WorkerProgram
    key: jax.Array
    jobs: jax.Array
    fresh: jax.Array

    def init(self, problem: Problem, params: optax.Params) -> RecordedJobsState:
        """Returns the state before a worker's first job."""
        inner_state = initial_state(self.program, problem, params)
        return RecordedJobsState(jnp.zeros([], jnp.int32), inner_state)

    def __call__(
        self,
        problem: Problem,
        stale_params: optax.Params,
        worker: jax.Array,
        key: jax.Array,
        state: RecordedJobsState,
    ) -> tuple[optax.Updates, jax.Array, RecordedJobsState]:
        """Returns the update and the loss of the worker's next recorded job."""
        del key
        place = worker, state.num_done
        job = self.jobs.at[place].get(mode="fill", fill_value=-1)
        fresh = self.fresh.at[place].get(mode="fill", fill_value=False)
        inner_state = jax.tree.map(
            lambda new, old: jnp.where(fresh, new, old),
            initial_state(self.program, problem, stale_params),
            state.inner_state,
        )
        update, loss, inner_state = call_worker(
            self.program,
            problem,
            stale_params,
            worker,
            jax.random.fold_in(self.key, job),
            inner_state,
        )
        loss = jnp.where(job >= 0, loss, jnp.nan)
        return update, loss, RecordedJobsState(state.num_done + 1, inner_state)
