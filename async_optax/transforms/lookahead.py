"""Look-ahead: workers are served a prediction of the parameters their gradients will meet."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from async_optax.transforms.precision import working_dtype
from async_optax.transforms.schedules import next_step, value_at
from async_optax.transforms.sweepable import sweepable
from async_optax.transforms.workers import (
    read_worker,
    require_worker,
    write_worker,
    zeros_per_worker,
)
from async_optax.validation import require_count, require_learning_rate, require_number


@runtime_checkable
class ServesParams(Protocol):
    """A state that knows what to serve to workers in place of the server's parameters."""

    def served_params(self, params: optax.Params) -> Any:
        """Returns what a worker that reads now should compute on: any pytree of floats."""


def served_params(params: optax.Params, state: optax.OptState) -> Any:
    """Returns what a worker reads: ``params``, moved by any look-ahead in a state.

    Args:
      params: the server's parameters.
      state: the state of any transformation, chained or wrapped.

    Returns:
      A pytree, like ``params`` unless the state serves something else, such as one agent's copy
      out of a stack of them; ``params`` itself if nothing in the state looks ahead.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> tx = look_ahead(optax.sgd(0.5), num_steps=3)
      >>> params = jnp.array([1.0])
      >>> updates, state = tx.update(jnp.array([0.5]), tx.init(params), params)
      >>> print(served_params(optax.apply_updates(params, updates), state))
      [0.]
    """
    for node in jax.tree.leaves(state, is_leaf=_serves):
        if _serves(node):
            params = node.served_params(params)
    return params


def serves_params(state: optax.OptState) -> bool:
    """Returns whether some part of a state decides what workers read.

    Example:
      >>> tx = look_ahead(optax.sgd(0.5), num_steps=3)
      >>> serves_params(tx.init(jnp.zeros(1))), serves_params(optax.adam(0.5).init(jnp.zeros(1)))
      (True, False)
    """
    return any(map(_serves, jax.tree.leaves(state, is_leaf=_serves)))


def _serves(node: Any) -> bool:
    return isinstance(node, ServesParams)


def moved(params: optax.Params, factor: jax.Array, direction: optax.Updates) -> optax.Params:
    """Returns ``params + factor * direction``, computed in at least float32; masked leaves stay."""

    def move(d: Any, x: Any) -> Any:
        if isinstance(d, optax.MaskedNode):
            return x
        dtype = working_dtype(x, d)
        return (x.astype(dtype) + factor.astype(dtype) * d.astype(dtype)).astype(x.dtype)

    return jax.tree.map(move, direction, params, is_leaf=lambda d: isinstance(d, optax.MaskedNode))


class LookAheadState(NamedTuple):
    """State of :func:`look_ahead`.

    Attributes:
      last_step: the last update of ``inner``, like params.
      horizon: float scalar, how many such steps lie ahead.
      inner_state: state of the wrapped transformation.
    """

    last_step: optax.Updates
    horizon: jax.Array
    inner_state: optax.OptState

    def served_params(self, params: optax.Params) -> optax.Params:
        """Returns ``params + horizon * last_step``, after any look-ahead of the inner state."""
        return moved(served_params(params, self.inner_state), self.horizon, self.last_step)


@sweepable
def look_ahead(
    inner: optax.GradientTransformation, num_steps: ArrayLike, decay: ArrayLike = 1.0
) -> optax.GradientTransformationExtraArgs:
    """Serves workers the parameters predicted ``num_steps`` updates ahead; updates are unchanged.

    With u the last update of ``inner`` (learning rate and sign included) and n the number of
    steps, workers read ``x + (decay + decay**2 + ... + decay**n) * u``, which is ``x + n * u``
    for ``decay=1``: gradients are then taken where the server will be when they arrive.
    Around heavy-ball momentum gamma this is linear weight prediction; with ``decay=gamma`` it
    predicts the steps that the momentum alone will make.

    Args:
      inner: any optimizer, learning rate included. Within :func:`accumulate_until_commit`, so
        that u is the last commit's.
      num_steps: n >= 0, usually the mean staleness: the number of workers - 1.
      decay: in [0, 1].

    Returns:
      A transformation whose state :func:`served_params` reads; one copy of the parameters.

    Raises:
      TypeError: if ``inner`` is not a transformation.
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> tx = look_ahead(optax.sgd(1.0), num_steps=2, decay=0.5)
      >>> x = jnp.array([1.0])
      >>> updates, state = tx.update(jnp.array([1.0]), tx.init(x), x)
      >>> print(served_params(x + updates, state))
      [-0.75]

    References:
      Hakimi, Barkai, Gabel, Schuster, `Taming Momentum in a Distributed Asynchronous
      Environment <https://arxiv.org/abs/1907.11612>`_, 2019, for the baseline LWP (from
      memory); the sum over decaying steps is the predictor for plain momentum in FTPipe's
      code. Any other optimizer's last step in the place of the momentum is our extension.
    """
    require_number("num_steps", num_steps, at_least=0)
    require_number("decay", decay, at_least=0, at_most=1)
    if not isinstance(inner, optax.GradientTransformation):
        raise TypeError(f"inner must be a gradient transformation, got {inner!r}")
    inner = optax.with_extra_args_support(inner)
    # A geometric sum; at decay = 1, where its closed form is 0 / 0, the number of steps.
    ratio = jnp.asarray(decay, float)
    steps = jnp.asarray(num_steps, float)
    room = jnp.where(ratio < 1, 1 - ratio, jnp.ones_like(ratio))
    horizon = jnp.where(ratio < 1, ratio * (1 - ratio**steps) / room, steps)

    def init_fn(params: optax.Params) -> LookAheadState:
        return LookAheadState(jax.tree.map(jnp.zeros_like, params), horizon, inner.init(params))

    def update_fn(
        updates: optax.Updates,
        state: LookAheadState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, LookAheadState]:
        updates, inner_state = inner.update(updates, state.inner_state, params, **extra_args)
        last_step = jax.tree.map(lambda old, u: u.astype(old.dtype), state.last_step, updates)
        return updates, LookAheadState(last_step, horizon, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


class TraceWithLookAheadState(NamedTuple):
    """State of :func:`trace_with_look_ahead`.

    Attributes:
      step: int32 scalar, commits so far.
      trace: momentum of each worker, like params with a leading axis ``[num_workers]``.
      total: their sum, like params, in at least float32.
      factor: float scalar, what the sum is multiplied by in the look-ahead.
    """

    step: jax.Array
    trace: optax.Updates
    total: optax.Updates
    factor: jax.Array

    def served_params(self, params: optax.Params) -> optax.Params:
        """Returns ``params + factor * total``."""
        return moved(params, self.factor, self.total)


@sweepable(static_argnames=("num_workers",))
def trace_with_look_ahead(
    num_workers: int, learning_rate: optax.ScalarOrSchedule, decay: ArrayLike = 0.9
) -> optax.GradientTransformationExtraArgs:
    """Momentum per worker, and a look-ahead along the sum of them all (DANA-Zero).

    For the worker j that delivers g: ``v_j <- decay * v_j + g``, out ``v_j``; workers read
    ``x - eta * decay * sum_i v_i``, where the momentum in flight will have led. The sum is
    kept up to date (``S += new v_j - old v_j``), so that serving costs one pass.

    Args:
      num_workers: number of workers, >= 1; the state holds that many copies, and the sum.
      learning_rate: eta, that of the step which follows: a number > 0, or a schedule of the
        commits.
      decay: momentum in [0, 1).

    Returns:
      A transformation whose ``update`` requires ``worker``, an int32 scalar in
      ``[0, num_workers)``, and whose state :func:`served_params` reads.

    Raises:
      ValueError: if a number is out of range; in ``update``, if a concrete ``worker`` is.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = trace_with_look_ahead(num_workers=2, learning_rate=1.0, decay=0.5)
      >>> g = jnp.array([1.0])
      >>> _, state = tx.update(g, tx.init(g), worker=0)
      >>> updates, state = tx.update(g, state, worker=1)
      >>> print(updates, served_params(jnp.array([0.0]), state))
      [1.] [-1.]

    References:
      Hakimi, Barkai, Gabel, Schuster, `Taming Momentum in a Distributed Asynchronous
      Environment <https://arxiv.org/abs/1907.11612>`_, 2019. ``trace_per_worker`` with
      ``nesterov`` (DANA-Slim) stores the look-ahead point itself as the parameters: the same
      iterates for a constant learning rate, without the sum.
    """
    require_count("num_workers", num_workers)
    require_learning_rate(learning_rate)
    require_number("decay", decay, at_least=0, below=1)

    def factor_at(step: jax.Array) -> jax.Array:
        return -jnp.asarray(value_at(learning_rate, step), float) * jnp.asarray(decay, float)

    def init_fn(params: optax.Params) -> TraceWithLookAheadState:
        step = jnp.zeros([], jnp.int32)
        copies = jax.tree.map(lambda x: zeros_per_worker(x, num_workers), params)
        total = jax.tree.map(lambda x: jnp.zeros_like(x, dtype=working_dtype(x)), params)
        return TraceWithLookAheadState(step, copies, total, factor_at(step))

    def update_fn(
        updates: optax.Updates,
        state: TraceWithLookAheadState,
        params: optax.Params | None = None,
        *,
        worker: ArrayLike,
        **extra_args: Any,
    ) -> tuple[optax.Updates, TraceWithLookAheadState]:
        del params
        require_worker(worker, num_workers)
        old = jax.tree.map(lambda copies: read_worker(copies, worker), state.trace)

        def advance(v: jax.Array, g: jax.Array) -> jax.Array:
            new = jnp.asarray(decay, v.dtype) * v + g.astype(v.dtype)
            # What the sum sees must be rounded like what is stored, or it drifts.
            info = jnp.finfo(v.dtype)
            return jax.lax.reduce_precision(new, info.nexp, info.nmant)

        new = jax.tree.map(advance, old, updates)
        step = next_step(state.step, extra_args)
        out = jax.tree.map(lambda v, g: v.astype(g.dtype), new, updates)
        trace = jax.tree.map(lambda c, v: write_worker(c, worker, v), state.trace, new)
        return out, TraceWithLookAheadState(
            step=step,
            trace=trace,
            total=jax.tree.map(
                lambda s, v, u: s + (u.astype(s.dtype) - v.astype(s.dtype)), state.total, old, new
            ),
            factor=factor_at(step),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
