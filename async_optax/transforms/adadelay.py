"""AdaDelay: AdaGrad-like steps by coordinate that shrink with step and staleness."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from async_optax.transforms.precision import working_dtype
from async_optax.transforms.schedules import adadelay_rate, next_step, value_at
from async_optax.transforms.sweepable import sweepable
from async_optax.validation import require_learning_rate, require_number, require_staleness


class ScaleByAdadelayState(NamedTuple):
    """State of :func:`scale_by_adadelay`.

    Attributes:
      step: int32 scalar, commits so far.
      squares: weighted sum of the squared gradients, like params, in at least float32.
    """

    step: jax.Array
    squares: optax.Updates


@sweepable
def scale_by_adadelay(
    learning_rate: optax.ScalarOrSchedule, scale: ArrayLike = 1.0
) -> optax.GradientTransformationExtraArgs:
    """Steps by coordinate that shrink with the gradients' size, the step and the staleness.

    With t counting from 1 and tau_r the staleness at step r, element-wise::

        c_t = scale * sqrt(sum_(r <= t) r / (r + tau_r) * g_r * g_r / t)
        out: -g / (1 / learning_rate + c_t * sqrt(t + tau_t))

    Without staleness c_t sqrt(t) is scale times AdaGrad's root of the sum of squares.

    Args:
      learning_rate: eta > 0, a number or a schedule of the commits.
      scale: >= 0; 0 leaves plain steps of eta.

    Returns:
      A transformation whose ``update`` requires ``staleness``, an int32 scalar >= 0. The sign
      and the learning rate are included. Updates keep their shapes and dtypes.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = scale_by_adadelay(learning_rate=1.0, scale=1.0)
      >>> g = jnp.array([1.0])
      >>> print(tx.update(g, tx.init(g), staleness=0)[0])
      [-0.5]

    References:
      Sra, Yu, Li, Smola, `AdaDelay: Delay Adaptive Distributed Stochastic Optimization
      <https://arxiv.org/abs/1508.05003>`_, 2016 (our reading, from memory).
    """
    require_learning_rate(learning_rate)
    require_number("scale", scale, at_least=0)

    def init_fn(params: optax.Params) -> ScaleByAdadelayState:
        zeros = jax.tree.map(lambda x: jnp.zeros_like(x, dtype=working_dtype(x)), params)
        return ScaleByAdadelayState(jnp.zeros([], jnp.int32), zeros)

    def update_fn(
        updates: optax.Updates,
        state: ScaleByAdadelayState,
        params: optax.Params | None = None,
        *,
        staleness: ArrayLike,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ScaleByAdadelayState]:
        del params
        require_staleness(staleness)
        t = state.step.astype(float) + 1
        share = t / (t + jnp.asarray(staleness).astype(float))
        rate = jnp.asarray(value_at(learning_rate, state.step), float)

        def gathered(total: jax.Array, g: jax.Array) -> jax.Array:
            return total + share.astype(total.dtype) * jnp.square(g.astype(total.dtype))

        squares = jax.tree.map(gathered, state.squares, updates)

        def scaled(g: jax.Array, total: jax.Array) -> jax.Array:
            size = jnp.asarray(scale, total.dtype) * jnp.sqrt(total / t.astype(total.dtype))
            return -g * adadelay_rate(rate, size, state.step, staleness).astype(g.dtype)

        out = jax.tree.map(scaled, updates, squares)
        return out, ScaleByAdadelayState(next_step(state.step, extra_args), squares)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
