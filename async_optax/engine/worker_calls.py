"""Calling a worker program, whether or not its workers keep a state between their jobs."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from async_optax.data import Streamed
from async_optax.engine.problem import Problem
from async_optax.engine.purity import require_pure, traced
from async_optax.engine.worker import Gradient, WorkerProgram
from async_optax.validation import first_line


def keeps_state(program: WorkerProgram) -> bool:
    """Whether a program has a method ``init``: then each of its workers keeps a state.

    Example:
      >>> import optax
      >>> from async_optax.engine.worker import gradient, local_steps
      >>> keeps_state(gradient()), keeps_state(local_steps(4, optax.adam(0.1), 1.0, True))
      (False, True)
    """
    return callable(getattr(program, "init", None))


def initial_state(program: WorkerProgram, problem: Problem, served: Any) -> Any:
    """Returns one worker's state before its first job; ``()`` if the program keeps none.

    Args:
      program: the worker program.
      problem: the problem.
      served: what a worker that reads the first version computes on.
    """
    return cast(Any, program).init(problem, served) if keeps_state(program) else ()


def call_worker(
    program: WorkerProgram,
    problem: Problem,
    served: Any,
    worker: jax.Array,
    key: jax.Array,
    state: Any,
) -> tuple[Any, jax.Array, Any]:
    """Computes one job.

    Args:
      program: the worker program.
      problem: the problem.
      served: what the worker has read.
      worker: int32 scalar, who computes.
      key: the job's key.
      state: what this worker has kept, from :func:`initial_state` or the job before.

    Returns:
      The update, the loss and the worker's state after the job.
    """
    if not keeps_state(program):
        update, loss = program(problem, served, worker, key)
        return update, loss, state
    update, loss, state = program(problem, served, worker, key, state)
    return update, loss, state


def check_worker(
    program: WorkerProgram, problem: Problem, params: optax.Params, served: Any
) -> optax.Updates:
    """Checks without computing that a worker program returns what it should.

    Args:
      program: the worker program.
      problem: a problem whose own check has passed.
      params: shapes and dtypes of the parameters.
      served: of what a worker reads: the parameters, or what the optimizer serves instead.

    Returns:
      Shapes and dtypes of the update.

    Raises:
      ValueError: if it fails, returns something else, or depends on more than its arguments.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    index = jax.ShapeDtypeStruct((), jnp.int32)
    # What calls nothing but the problem is as pure as the problem, which has been checked.
    num_traces = 1 if isinstance(program, Gradient) else 2

    def init(served: Any) -> Any:
        return initial_state(program, problem, served)

    try:
        inits = [traced(init, served) for _ in range(num_traces)]
    except Exception as error:  # a user's function may raise anything
        raise ValueError(f"the worker program's init fails: {first_line(error)}") from error
    # Strongly typed, as the arrays are that a run keeps.
    state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), inits[0][1])

    def compute(served: Any, index: jax.Array, key: jax.Array, state: Any) -> tuple:
        return call_worker(program, problem, served, index, key, state)

    try:
        calls = [traced(compute, served, index, key, state) for _ in range(num_traces)]
        update, loss, after = calls[0][1]
    except Exception as error:  # likewise
        raise ValueError(f"the worker program fails: {first_line(error)}") from error
    if not isinstance(problem.batch, Streamed):  # a callback by design, which a run replaces
        require_pure("the worker program's init", *(closed for closed, _ in inits))
        require_pure("the worker program", *(closed for closed, _ in calls))
    sent, *allowed = (
        jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (update, params, served)
    )
    if sent not in allowed:
        raise ValueError(
            f"the worker program must return an update like the parameters, got {update}"
        )
    if loss.shape != () or not jnp.issubdtype(loss.dtype, jnp.floating):
        raise ValueError(f"the worker program must return one scalar loss, got {loss}")
    _check_state(state, after)
    return update


def _check_state(state: Any, after: Any) -> None:
    expected: Any = jax.tree.structure(state)
    found: Any = jax.tree.structure(after)
    if found != expected:
        raise ValueError(
            "the worker program must return a state of the structure that its init returns, "
            f"{expected}, got {found}"
        )
    kept = jax.tree_util.tree_leaves_with_path(state)
    for (path, x), y in zip(kept, jax.tree.leaves(after), strict=True):
        name = f"state{jax.tree_util.keystr(path)}"
        if not (jnp.issubdtype(x.dtype, jnp.number) or x.dtype == jnp.bool_):
            raise ValueError(
                "the worker program's init must return numbers or booleans, "
                f"got {x.dtype} at {name}"
            )
        if (x.shape, x.dtype) != (y.shape, y.dtype):
            raise ValueError(
                f"the worker program must return {name} as its init does, "
                f"{x.dtype}{list(x.shape)}, got {y.dtype}{list(y.shape)}"
            )
