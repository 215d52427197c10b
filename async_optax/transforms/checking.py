"""A check of the extra arguments that works inside a trace."""

from typing import Any

import jax.numpy as jnp
import optax
from jax.experimental import checkify
from jax.typing import ArrayLike

from async_optax.transforms.sweepable import sweepable
from async_optax.validation import require_count


@sweepable(static_argnames=("num_workers",))
def check_arrival(num_workers: int) -> optax.GradientTransformationExtraArgs:
    """Checks ``worker`` and ``staleness`` at run time; updates pass unchanged.

    A transformation raises by itself where such a number is concrete. A traced one cannot
    raise: a worker out of range yields NaN. With this at the head of the chain and the step
    under ``jax.experimental.checkify.checkify``, it is reported instead. It costs a dispatch
    from Python, so take it out when the loop is right.

    Args:
      num_workers: number of workers, >= 1.

    Returns:
      A stateless transformation; ``update`` looks at ``worker`` and ``staleness`` where they
      are given. Within ``jit`` it must be under ``checkify``.

    Raises:
      ValueError: if ``num_workers < 1``.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> tx, x = check_arrival(num_workers=4), jnp.zeros(1)
      >>> update = lambda worker: tx.update(x, tx.init(x), worker=worker)
      >>> error, _ = jax.jit(checkify.checkify(update))(jnp.int32(4))
      >>> print(error.get().splitlines()[0].split(" (")[0])
      worker must be in [0, 4), got 4
    """
    require_count("num_workers", num_workers)

    def update_fn(
        updates: optax.Updates,
        state: optax.EmptyState,
        params: optax.Params | None = None,
        *,
        worker: ArrayLike = 0,
        staleness: ArrayLike = 0,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.EmptyState]:
        del params, extra_args
        worker, staleness = jnp.asarray(worker), jnp.asarray(staleness)
        checkify.check(
            (worker >= 0) & (worker < num_workers),
            f"worker must be in [0, {num_workers}), got {{worker}}",
            worker=worker,
        )
        checkify.check(
            staleness >= 0,
            "staleness must be an integer >= 0, got {staleness}",
            staleness=staleness,
        )
        return updates, state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update_fn)
