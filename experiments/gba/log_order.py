"""Reading a log in its order: the server knows the day, and a job computes on clicks of that day.

A job's batch follows from its key alone, and keys know no order. So the server counts the arrivals
that it has seen, serves the day beside the parameters, and the worker program asks for a batch of
that day. A slow worker computes on the clicks, as on the parameters, of the time when it started.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from async_optax.engine import Problem
from async_optax.transforms import served_params, sweepable
from async_optax.validation import require_number


class Served(NamedTuple):
    """What a worker reads: the parameters, and which day it is."""

    params: optax.Params
    day: jax.Array


class ReadInOrderState(NamedTuple):
    """State of :func:`read_in_order`.

    Attributes:
      num_arrivals: int32 scalar, how many the server has seen.
      arrivals_per_day: float scalar.
      inner_state: of the method.
    """

    num_arrivals: jax.Array
    arrivals_per_day: jax.Array
    inner_state: optax.OptState

    def served_params(self, params: optax.Params) -> Served:
        """Returns the parameters and the day."""
        day = self.num_arrivals.astype(self.arrivals_per_day.dtype) / self.arrivals_per_day
        return Served(served_params(params, self.inner_state), day)


@sweepable
def read_in_order(
    inner: optax.GradientTransformation, arrivals_per_day: ArrayLike
) -> optax.GradientTransformationExtraArgs:
    """Serves the day beside the parameters: arrivals so far over ``arrivals_per_day``.

    Args:
      inner: the method, for workers that run :class:`GradientOfTheDay`.
      arrivals_per_day: > 0.

    Returns:
      A transformation; ``inner`` sees stale parameters without their day.

    Raises:
      ValueError: if the number is out of range.

    Example:
      >>> tx, x = read_in_order(optax.sgd(1.0), arrivals_per_day=4), jnp.zeros(1)
      >>> _, state = tx.update(x, tx.init(x), x)
      >>> print(state.served_params(x).day)
      0.25
    """
    require_number("arrivals_per_day", arrivals_per_day, above=0)
    inner = optax.with_extra_args_support(inner)

    def init_fn(params: optax.Params) -> ReadInOrderState:
        number = jnp.zeros([], jnp.int32)
        return ReadInOrderState(number, jnp.asarray(arrivals_per_day, float), inner.init(params))

    def update_fn(
        updates: optax.Updates,
        state: ReadInOrderState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ReadInOrderState]:
        stale = extra_args.get("stale_params")
        if isinstance(stale, Served):
            extra_args["stale_params"] = stale.params
        updates, inner_state = inner.update(updates, state.inner_state, params, **extra_args)
        number = state.num_arrivals + 1
        return updates, state._replace(num_arrivals=number, inner_state=inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GradientOfTheDay:
    """One gradient on a batch of the day that was served."""

    def __call__(
        self, problem: Problem, served: Served, worker: jax.Array, key: jax.Array
    ) -> tuple[optax.Updates, jax.Array]:
        """Returns the gradient and the loss."""
        batch_key, loss_key = jax.random.split(key)
        batch = problem.batch(batch_key, worker, day=served.day)
        loss, update = jax.value_and_grad(problem.loss)(served.params, batch, loss_key)
        return update, loss
