"""The server's arithmetic: parameters, optimizer state, and one jitted update per arrival."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from async_optax.distributed.arrival_step import ArrivalStep
from async_optax.engine.problem import Problem
from async_optax.engine.run import narrowed
from async_optax.engine.worker import WorkerProgram
from async_optax.timelines.protocols.policy import Decision
from async_optax.transforms import (
    require_gathering,
    served_params,
    split_numbers,
)

Leaves = list[np.ndarray]


class Arrived(NamedTuple):
    """An accepted arrival.

    Attributes:
      update: what the worker sent, leaves.
      stale: what the worker had read, leaves.
      staleness: its staleness.
      worker: who.
      job: its number.
      weight: its share in its commit.
    """

    update: Leaves
    stale: Leaves
    staleness: int
    worker: int
    job: int
    weight: float


class ParameterServer:
    """Applies arrivals as the simulation does, one at a time, in the order in which they come.

    An arrival that does not commit is kept until the next event: should the commit come without an
    arrival of its own (a worker that is waited for is lost), it is made with this one, as in the
    simulation.

    Args:
      problem: what is trained.
      optimizer: with extra arguments.
      program: the worker program, for optimizers that call ``gradient_fn``.
      key: of the run.
      slot_dtype: dtype in which workers read, or ``None``.
    """

    def __init__(
        self,
        problem: Problem,
        optimizer: optax.GradientTransformationExtraArgs,
        program: WorkerProgram,
        key: jax.Array,
        slot_dtype: jnp.dtype | None = None,
    ):
        init_key, job_key = jax.random.split(key)
        self._float = np.dtype(jnp.result_type(float)).type
        self._slot_dtype = slot_dtype
        self._params = jax.tree.map(jnp.asarray, problem.init(init_key))
        self._opt_state = jax.tree.map(_owned, optimizer.init(self._params))
        self._numbers, structure = split_numbers((problem, optimizer, program))
        self._step = ArrivalStep(structure, job_key)
        self._evaluate = None
        if problem.evaluate is not None:
            self._evaluate = jax.jit(lambda numbers, x: structure.join(numbers)[0].evaluate(x))
        self._served_now: Leaves | None = None
        self._serves = served_params(self._params, self._opt_state) is not self._params
        self._served_like = jax.eval_shape(served_params, self._params, self._opt_state)
        self._params_tree: Any = jax.tree.structure(self._params)
        self._served_tree: Any = jax.tree.structure(self._served_like)
        self._waiting: Arrived | None = None
        self._num_gathered = 0
        self._cannot_gather = ""
        try:
            require_gathering(self._opt_state, self._params)
        except ValueError as error:
            self._cannot_gather = str(error)

    @property
    def state(self) -> tuple[optax.Params, optax.OptState]:
        """The parameters and the optimizer's state; whole when nothing is gathered."""
        return self._params, self._opt_state

    @property
    def has_gathered(self) -> bool:
        """Whether arrivals wait for a commit."""
        return self._waiting is not None or self._num_gathered > 0

    def restore(self, state: tuple[optax.Params, optax.OptState]) -> None:
        """Takes over the state of a checkpoint."""
        self._params, self._opt_state = jax.tree.map(_owned, state)
        self._waiting, self._num_gathered, self._served_now = None, 0, None

    def params(self) -> optax.Params:
        """Returns the parameters on the host."""
        return jax.tree.map(np.asarray, self._params)

    def served(self) -> Leaves:
        """Returns what a worker that reads now computes on, as leaves on the host."""
        if self._served_now is None:
            served = self._params
            if self._serves:
                served = served_params(self._params, self._opt_state)
            leaves = jax.tree.leaves(narrowed(served, self._slot_dtype))
            self._served_now = [np.asarray(leaf) for leaf in leaves]
        return self._served_now

    def arrive(self, arrived: Arrived, decision: Decision) -> None:
        """Uses an arrival that was accepted."""
        self._flush(commits=False)
        if decision.commit and decision.weight == 1 and not self._num_gathered:
            self._apply(arrived, "whole")  # nothing to gather: the same, at less cost
        elif self._cannot_gather:
            raise ValueError(self._cannot_gather)
        elif decision.commit:
            self._apply(arrived, "commit")
        else:
            self._waiting = arrived

    def commit_alone(self) -> None:
        """Commits what was gathered, without an arrival."""
        self._flush(commits=True)

    def evaluate(self) -> dict[str, float]:
        """Returns the problem's metrics at the current parameters."""
        if self._evaluate is None:
            return {}
        return {k: float(v) for k, v in self._evaluate(self._numbers, self._params).items()}

    def _flush(self, commits: bool) -> None:
        if self._waiting is not None:
            self._apply(self._waiting, "commit" if commits else "gather")

    def _apply(self, arrived: Arrived, how: str) -> None:
        self._waiting = None
        staleness, worker, job = (np.int32(x) for x in arrived[2:5])
        weight = self._float(arrived.weight)
        params, self._opt_state = self._step(
            how,
            self._numbers,
            self._params,
            self._opt_state,
            self._params_tree.unflatten(arrived.update),
            self._served_tree.unflatten(arrived.stale),
            (staleness, worker, job, weight),
        )
        if how == "gather":
            self._num_gathered += 1
            return
        self._params, self._num_gathered, self._served_now = params, 0, None


def _owned(x: Any) -> jax.Array:
    """A copy that the jitted step may take over, strongly typed as what it returns."""
    x = jnp.asarray(x)
    return jnp.array(x, dtype=x.dtype, copy=True)
