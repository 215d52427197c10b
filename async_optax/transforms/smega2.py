"""SMEGA2: one momentum for all workers, refreshed once per round, with a look-ahead."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from async_optax.transforms.lookahead import moved
from async_optax.transforms.schedules import next_step, value_at
from async_optax.transforms.sweepable import sweepable
from async_optax.validation import require_count, require_learning_rate, require_number


class TraceSmega2State(NamedTuple):
    """State of :func:`trace_smega2`.

    Attributes:
      step: int32 scalar, commits so far.
      turn: int32 scalar, arrivals since the momentum was refreshed.
      trace: the momentum, like params.
      gathered: sum of those arrivals, like params.
      factors: float ``[2]``, what momentum and sum are multiplied by in the look-ahead.
    """

    step: jax.Array
    turn: jax.Array
    trace: optax.Updates
    gathered: optax.Updates
    factors: jax.Array

    def served_params(self, params: optax.Params) -> optax.Params:
        """Returns ``params`` plus the look-ahead along momentum and sum."""
        return moved(moved(params, self.factors[0], self.trace), self.factors[1], self.gathered)


@sweepable(static_argnames=("num_workers", "advanced"))
def trace_smega2(
    num_workers: int,
    learning_rate: optax.ScalarOrSchedule,
    decay: ArrayLike = 0.9,
    advanced: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """Momentum from the mean of N arrivals, looked ahead by what N workers will do with it.

    With N workers, momentum gamma, learning rate eta and c counting arrivals modulo N::

        c <- (c + 1) mod N,  a <- a + g,  out: g + gamma * v
        when c = 0:  v <- gamma * v + a / N,  a <- 0

    Workers read ``x - eta * gamma * (N + c * (gamma - 1)) * v - eta * gamma * c / N * a``, or
    without ``advanced`` ``x - eta * gamma * N * v``. Two buffers, whatever N is.

    Args:
      num_workers: N >= 1.
      learning_rate: eta, that of the step which follows: a number > 0, or a schedule of the
        commits.
      decay: gamma in [0, 1).
      advanced: whether the look-ahead counts the arrivals of the unfinished round.

    Returns:
      A transformation whose state :func:`async_optax.transforms.served_params` reads.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from async_optax.transforms import served_params
      >>> tx = trace_smega2(num_workers=2, learning_rate=1.0, decay=0.5)
      >>> g = jnp.array([1.0])
      >>> _, state = tx.update(g, tx.init(g))
      >>> print(served_params(jnp.array([0.0]), state))
      [-0.25]
      >>> _, state = tx.update(g, state)
      >>> print(tx.update(g, state)[0], served_params(jnp.array([0.0]), state))
      [1.5] [-1.]

    References:
      Cohen, Hakimi, Schuster, `SMEGA2: Distributed Asynchronous Deep Neural Network Training
      With a Single Momentum Buffer <https://dl.acm.org/doi/10.1145/3545008.3545010>`_, 2022, as
      in the authors' code.
    """
    require_count("num_workers", num_workers)
    require_learning_rate(learning_rate)
    require_number("decay", decay, at_least=0, below=1)

    def factors_at(step: jax.Array, turn: jax.Array) -> jax.Array:
        ahead = -jnp.asarray(value_at(learning_rate, step), float) * decay
        arrived = turn.astype(float) if advanced else jnp.zeros([])
        return jnp.stack(
            [ahead * (num_workers + arrived * (decay - 1)), ahead * arrived / num_workers]
        )

    def init_fn(params: optax.Params) -> TraceSmega2State:
        step, turn = jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32)
        trace, gathered = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
        return TraceSmega2State(step, turn, trace, gathered, factors_at(step, turn))

    def update_fn(
        updates: optax.Updates,
        state: TraceSmega2State,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, TraceSmega2State]:
        del params
        turn = (state.turn + 1) % num_workers
        round_ends = turn == 0
        gathered = jax.tree.map(lambda a, g: a + g.astype(a.dtype), state.gathered, updates)
        out = jax.tree.map(
            lambda v, g: g + jnp.asarray(decay, g.dtype) * v.astype(g.dtype), state.trace, updates
        )
        trace = jax.tree.map(
            lambda v, a: jnp.where(
                round_ends, jnp.asarray(decay, v.dtype) * v + a / num_workers, v
            ),
            state.trace,
            gathered,
        )
        gathered = jax.tree.map(lambda a: jnp.where(round_ends, jnp.zeros_like(a), a), gathered)
        step = next_step(state.step, extra_args)
        return out, TraceSmega2State(step, turn, trace, gathered, factors_at(step, turn))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
