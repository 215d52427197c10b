"""What the theory needs of a problem: parameters, a loss and batches."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from async_optax.validation import require_count


class StochasticProblem(Protocol):
    """A loss over random batches, such as :class:`async_optax.Problem`.

    A ``noise(key, gradient)`` that the problem has, too, belongs to its gradients but not to its
    curvature.
    """

    @property
    def init(self) -> Callable[[jax.Array], optax.Params]:
        """``init(key) -> params``."""

    @property
    def loss(self) -> Callable[[optax.Params, Any, jax.Array], jax.Array]:
        """``loss(params, batch, key) -> scalar``."""

    @property
    def batch(self) -> Callable[[jax.Array, jax.Array], Any]:
        """``batch(key, worker) -> batch``."""


def require_problem(problem: Any) -> None:
    """Raises ``TypeError`` unless ``problem`` has the three functions.

    Example:
      >>> require_problem("digits")
      Traceback (most recent call last):
      ...
      TypeError: problem must have functions init, loss and batch; got 'digits', without init
    """
    for name in ("init", "loss", "batch"):
        if not callable(getattr(problem, name, None)):
            raise TypeError(
                f"problem must have functions init, loss and batch; got {problem!r}, without {name}"
            )


def require_key(key: Any) -> None:
    """Raises ``TypeError`` unless ``key`` is one typed key."""
    dtype = getattr(key, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key) or key.shape != ():
        raise TypeError(f"key must be one typed key, jax.random.key(seed); got {key!r}")


def require_params(params: optax.Params) -> None:
    """Raises ``ValueError`` unless all leaves are finite floating-point arrays, at least one."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        raise ValueError(f"params must have at least one array, got {params}")
    for path, leaf in leaves:
        where = f"params{jax.tree_util.keystr(path)}"
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(f"params must be floating-point arrays, got {dtype} at {where}")
        if not bool(jnp.isfinite(leaf).all()):
            raise ValueError(f"params must be finite, got NaN or infinity at {where}")


def draw_batches(
    problem: StochasticProblem, key: jax.Array, num_batches: int, num_workers: int = 1
) -> Any:
    """Returns batches ``[num_batches, ...]``; batch i is one of worker ``i % num_workers``."""
    require_count("num_batches", num_batches)
    require_count("num_workers", num_workers)
    workers = jnp.arange(num_batches, dtype=jnp.int32) % num_workers
    # One after another: under vmap keys of some generators draw other numbers.
    return jax.lax.map(
        lambda pair: problem.batch(*pair), (jax.random.split(key, num_batches), workers)
    )


def functions_of(problem: StochasticProblem) -> tuple[Callable, Callable, Callable | None]:
    """Returns ``(loss, batch, noise)``, a pytree if they are; ``noise`` may be ``None``."""
    return problem.loss, problem.batch, getattr(problem, "noise", None)


def job_gradient(
    functions: Any, params: optax.Params, key: jax.Array, worker: jax.Array
) -> tuple[jax.Array, optax.Updates, optax.Updates]:
    """Returns a job's loss, gradient, and gradient with noise.

    Args:
      functions: from :func:`functions_of`.
      params: what the job read.
      key: the job's, split in three for batch, loss and noise as in a run.
      worker: int32 scalar.
    """
    loss_fn, batch_fn, noise_fn = functions
    batch_key, loss_key, noise_key = jax.random.split(key, 3)
    batch = batch_fn(batch_key, worker)
    loss, clean = jax.value_and_grad(loss_fn)(params, batch, loss_key)
    if noise_fn is None:
        return loss, clean, clean
    noise = noise_fn(noise_key, clean)
    return loss, clean, jax.tree.map(lambda g, n: g + n.astype(g.dtype), clean, noise)
