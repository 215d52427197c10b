"""The worker's arithmetic: one jitted job, and what the worker keeps between its jobs."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from async_optax.engine.problem import Problem
from async_optax.engine.worker import WorkerProgram
from async_optax.engine.worker_calls import call_worker, initial_state, keeps_state
from async_optax.transforms import Structure, split_numbers

NO_JOB = -1


class Computed(NamedTuple):
    """What a job leaves.

    Attributes:
      update: what is sent, leaves.
      loss: of the job.
      fresh: whether the worker's state began anew in this job.
    """

    update: list[np.ndarray]
    loss: float
    fresh: bool


class Computer:
    """Computes jobs, as one worker.

    A worker's state goes on from its last job that the server accepted: which that is comes with
    the next job. If this process does not have that state (it is new, or the server is), the state
    begins anew, and the result says so.

    Args:
      problem: what is trained.
      program: the worker program.
      worker: which worker this is.
      key: of the run.
      served_like: shapes and dtypes of what the worker reads, once widened.
    """

    def __init__(
        self,
        problem: Problem,
        program: WorkerProgram,
        worker: int,
        key: jax.Array,
        served_like: Any,
    ):
        self._worker = np.int32(worker)
        self._keeps_state = keeps_state(program)
        self._key_data = jax.random.key_data(jax.random.split(key)[1])
        self._numbers, structure = split_numbers((problem, program))
        self._served_like = served_like
        forms, treedef = jax.tree.flatten(served_like)
        dtypes = tuple(form.dtype for form in forms)
        self._widened = functools.partial(_widened, treedef, dtypes)
        impl = str(jax.random.key_impl(key))
        self._compute, self._init = _compiled(structure, impl)
        self._states: dict[int, Any] = {}  # after these jobs

    def warm_up(self) -> None:
        """Compiles; nothing is kept."""
        zeros = [np.zeros(x.shape, x.dtype) for x in jax.tree.leaves(self._served_like)]
        self.compute(zeros, job=0, after=NO_JOB)
        self._states.clear()

    def compute(self, served: list[np.ndarray], job: int, after: int) -> Computed:
        """Computes a job.

        Args:
          served: leaves of what the worker has read, perhaps of narrower dtypes.
          job: its number.
          after: number of this worker's last job that was accepted, or -1.

        Returns:
          The update, the loss, and whether the state began anew.
        """
        params = self._widened(served)
        fresh = self._keeps_state and after not in self._states
        before: Any = ()
        if self._keeps_state:
            before = self._init(self._numbers, params) if fresh else self._states[after]
        update, loss, state = self._compute(
            self._numbers, params, self._worker, np.int32(job), self._key_data, before
        )
        if self._keeps_state:
            # Whether this job is accepted is not known yet. Before the first that is, there is no
            # state to go on from: the next job begins anew as well.
            self._states = {job: state} if fresh else {after: before, job: state}
        leaves = [np.asarray(x) for x in jax.tree.leaves(update)]
        return Computed(leaves, float(loss), fresh)


def _widened(treedef: Any, dtypes: tuple[Any, ...], leaves: list[np.ndarray]) -> Any:
    wide = [
        x if x.dtype == dtype else x.astype(dtype) for x, dtype in zip(leaves, dtypes, strict=True)
    ]
    return jax.tree.unflatten(treedef, wide)


@functools.lru_cache(maxsize=16)
def _compiled(structure: Structure, impl: str) -> tuple[Any, Any]:
    """The jitted functions of a job and of a state: what is static is bound here."""

    def compute(
        numbers: tuple[Any, ...],
        params: Any,
        worker: jax.Array,
        job: jax.Array,
        key_data: jax.Array,
        state: Any,
    ) -> tuple[Any, jax.Array, Any]:
        problem, program = structure.join(numbers)
        key = jax.random.fold_in(jax.random.wrap_key_data(key_data, impl=impl), job)
        return call_worker(program, problem, params, worker, key, state)

    def init(numbers: tuple[Any, ...], params: Any) -> Any:
        problem, program = structure.join(numbers)
        return jax.tree.map(jnp.asarray, initial_state(program, problem, params))

    return jax.jit(compute), jax.jit(init)
