"""Mixing of models: a worker's model in place of its gradient."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from async_optax.transforms.precision import working_dtype
from async_optax.transforms.schedules import next_step, value_at
from async_optax.transforms.sweepable import sweepable
from async_optax.validation import require_learning_rate


class DifferenceToWorkerModelState(NamedTuple):
    """State of :func:`difference_to_worker_model`.

    Attributes:
      step: int32 scalar, commits so far.
    """

    step: jax.Array


@sweepable
def difference_to_worker_model(
    learning_rate: optax.ScalarOrSchedule,
) -> optax.GradientTransformationExtraArgs:
    """Replaces an update by how far the server is from the worker's model: ``x - y``.

    The worker read s and sent g, so its model is ``y = s - eta * g``; out comes
    ``x - y = (x - s) + eta * g``, where x are the server's parameters. Subtracting a share a of
    it mixes the models: ``(1 - a) * x + a * y``. The stale part ``x - s`` takes back a share of
    what other workers have done meanwhile.

    Args:
      learning_rate: eta, the worker's: a number > 0, or a schedule of the commits.

    Returns:
      A transformation whose ``update`` requires ``params`` (x) and ``stale_params`` (s).
      Updates keep their shapes and dtypes.

    Raises:
      ValueError: if ``learning_rate`` is out of range; in ``update``, if ``params`` or
        ``stale_params`` is ``None``.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = difference_to_worker_model(0.5)
      >>> x, s, g = jnp.array([3.0]), jnp.array([2.0]), jnp.array([4.0])
      >>> print(tx.update(g, tx.init(x), x, stale_params=s)[0])
      [3.]

    References:
      Xie, Koyejo, Gupta, `Asynchronous Federated Optimization
      <https://arxiv.org/abs/1903.03934>`_, 2019.
    """
    require_learning_rate(learning_rate)

    def init_fn(params: optax.Params) -> DifferenceToWorkerModelState:
        del params
        return DifferenceToWorkerModelState(jnp.zeros([], jnp.int32))

    def update_fn(
        updates: optax.Updates,
        state: DifferenceToWorkerModelState,
        params: optax.Params | None = None,
        *,
        stale_params: optax.Params,
        **extra_args: Any,
    ) -> tuple[optax.Updates, DifferenceToWorkerModelState]:
        if params is None or stale_params is None:
            raise ValueError("difference_to_worker_model needs params and stale_params, got None")
        rate: ArrayLike = value_at(learning_rate, state.step)

        def difference(g: jax.Array, x: jax.Array, s: jax.Array) -> jax.Array:
            dtype = working_dtype(g, x)
            local = jnp.asarray(rate, dtype) * g.astype(dtype)
            return (x.astype(dtype) - s.astype(dtype) + local).astype(g.dtype)

        out = jax.tree.map(difference, updates, params, stale_params)
        return out, DifferenceToWorkerModelState(next_step(state.step, extra_args))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
