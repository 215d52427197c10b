"""Worker programs: what a worker computes in one job."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from async_optax.engine.problem import Problem

WorkerProgram = Callable[
    [Problem, optax.Params, jax.Array, jax.Array], tuple[optax.Updates, jax.Array]
]
"""``program(problem, stale_params, worker, key) -> (update, loss)``."""


def gradient() -> WorkerProgram:
    """One stochastic gradient of the loss on a fresh batch, plus the problem's noise.

    A job's key is split in three, for the batch, the loss and the noise. The keys of a run
    do not depend on the method, so all methods on one timeline see the same randomness.

    Returns:
      A worker program.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from async_optax.engine.problem import Problem
      >>> problem = Problem(
      ...     init=lambda key: jnp.zeros(1),
      ...     loss=lambda x, batch, key: jnp.sum((x - batch) ** 2),
      ...     batch=lambda key, worker: jnp.ones(1),
      ... )
      >>> update, loss = gradient()(problem, jnp.zeros(1), 0, jax.random.key(0))
      >>> print(update, loss)
      [-2.] 1.0
    """
    return _gradient


def _gradient(
    problem: Problem, stale_params: optax.Params, worker: jax.Array, key: jax.Array
) -> tuple[optax.Updates, jax.Array]:
    batch_key, loss_key, noise_key = jax.random.split(key, 3)
    batch = problem.batch(batch_key, worker)
    loss, update = jax.value_and_grad(problem.loss)(stale_params, batch, loss_key)
    if problem.noise is not None:
        update = jax.tree.map(
            lambda g, n: g + n.astype(g.dtype), update, problem.noise(noise_key, update)
        )
    return update, loss


def check_worker(worker: WorkerProgram, problem: Problem) -> None:
    """Checks without computing that a worker program returns an update and a loss.

    Args:
      worker: the program.
      problem: a problem whose own check has passed.

    Raises:
      ValueError: if it fails, or returns something else.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    params = jax.eval_shape(problem.init, key)
    index = jax.ShapeDtypeStruct((), jnp.int32)

    def program(params: optax.Params, index: jax.Array, key: jax.Array) -> tuple:
        update, loss = worker(problem, params, index, key)
        return update, loss

    try:
        update, loss = jax.eval_shape(program, params, index, key)
    except Exception as error:  # a user's function may raise anything
        reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise ValueError(f"the worker program fails: {reason}") from error
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (update, params)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"the worker program must return an update like the parameters, got {update}"
        )
    if loss.shape != () or not jnp.issubdtype(loss.dtype, jnp.floating):
        raise ValueError(f"the worker program must return one scalar loss, got {loss}")
