"""Worker programs: what a worker computes in one job."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from async_optax.engine.problem import Problem
from async_optax.validation import require_count, require_number

WorkerProgram = Callable[..., Any]
"""``program(problem, stale_params, worker, key) -> (update, loss)``.

The update is like the parameters, or like ``stale_params`` where the optimizer serves something
else in their place.

A program whose workers keep a state between their jobs also has a method ``init(problem,
stale_params) -> state``: numbers and booleans, one worker's. It is then ``program(problem,
stale_params, worker, key, state) -> (update, loss, state)``. Jobs of one worker pass its state on
in the order of their arrivals; a job that the server does not accept is never computed, so its
worker goes on from the state before it.

A program that is to run on streamed data also has a method ``batch_keys(key) -> keys
[num_batches]``: the keys at which it will call ``problem.batch`` in the job of that key.
"""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Gradient:
    """The program that :func:`gradient` returns."""

    def batch_keys(self, key: jax.Array) -> jax.Array:
        """The key of the one batch."""
        return jax.random.split(key, 3)[:1]

    def __call__(
        self, problem: Problem, stale_params: optax.Params, worker: jax.Array, key: jax.Array
    ) -> tuple[optax.Updates, jax.Array]:
        """Returns the gradient and the loss."""
        batch_key, loss_key, noise_key = jax.random.split(key, 3)
        batch = problem.batch(batch_key, worker)
        loss, update = jax.value_and_grad(problem.loss)(stale_params, batch, loss_key)
        if problem.noise is not None:
            noise = problem.noise(noise_key, update)
            update = jax.tree.map(lambda g, n: g + n.astype(g.dtype), update, noise)
        return update, loss


def gradient() -> Gradient:
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
    return Gradient()


@dataclasses.dataclass(frozen=True)
class _InnerTraining:
    """Steps of an inner optimizer from the stale parameters on."""

    num_steps: int = dataclasses.field(metadata={"static": True})
    optimizer: optax.GradientTransformation
    learning_rate: Any

    def step_keys(self, key: jax.Array) -> jax.Array:
        """One key per step; the first is the job's own, so that it draws what a gradient does."""
        later = jnp.arange(1, self.num_steps)
        return jnp.concatenate(
            [key[jnp.newaxis], jax.vmap(lambda step: jax.random.fold_in(key, step))(later)]
        )

    def batch_keys(self, key: jax.Array) -> jax.Array:
        """The keys of the batches, one per step."""
        return jax.vmap(lambda k: Gradient().batch_keys(k)[0])(self.step_keys(key))

    def train(
        self,
        problem: Problem,
        stale_params: optax.Params,
        worker: jax.Array,
        key: jax.Array,
        state: optax.OptState,
    ) -> tuple[optax.Updates, jax.Array, optax.OptState]:
        """Returns the difference over the learning rate, the mean loss, and the inner state."""
        optimizer = optax.with_extra_args_support(self.optimizer)

        def step(carry: tuple[optax.Params, optax.OptState], key: jax.Array) -> Any:
            params, state = carry
            update, loss = Gradient()(problem, params, worker, key)
            update, state = optimizer.update(update, state, params)
            return (optax.apply_updates(params, update), state), loss

        start = stale_params, state
        (params, state), losses = jax.lax.scan(step, start, self.step_keys(key))
        update = jax.tree.map(
            lambda stale, local: ((stale - local) / self.learning_rate).astype(stale.dtype),
            stale_params,
            params,
        )
        return update, jnp.mean(losses), state


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LocalSteps(_InnerTraining):
    """The program that :func:`local_steps` returns."""

    def __call__(
        self, problem: Problem, stale_params: optax.Params, worker: jax.Array, key: jax.Array
    ) -> tuple[optax.Updates, jax.Array]:
        """Returns the difference over the learning rate, and the mean loss."""
        state = self.optimizer.init(stale_params)
        update, loss, _ = self.train(problem, stale_params, worker, key, state)
        return update, loss


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LocalStepsKeepingState(_InnerTraining):
    """The program that :func:`local_steps` returns with ``keep_state``."""

    def init(self, problem: Problem, params: optax.Params) -> optax.OptState:
        """Returns the inner optimizer's state before a worker's first job."""
        del problem
        return self.optimizer.init(params)

    def __call__(
        self,
        problem: Problem,
        stale_params: optax.Params,
        worker: jax.Array,
        key: jax.Array,
        state: optax.OptState,
    ) -> tuple[optax.Updates, jax.Array, optax.OptState]:
        """Returns the difference over the learning rate, the mean loss, and the inner state."""
        return self.train(problem, stale_params, worker, key, state)


def local_steps(
    num_steps: int,
    optimizer: optax.GradientTransformation,
    learning_rate: float,
    keep_state: bool = False,
) -> LocalSteps | LocalStepsKeepingState:
    """Several steps of an inner optimizer; what is sent has the scale of a gradient.

    From the stale parameters s a worker takes K = ``num_steps`` steps of ``optimizer`` to y_K,
    each on a fresh batch, and sends ``(s - y_K) / learning_rate``: with plain SGD the sum of its
    K gradients, so that strengths and thresholds of the server's method keep their meaning.
    The loss of a job is the mean over its steps.

    Args:
      num_steps: K >= 1.
      optimizer: any Optax optimizer that needs no staleness, such as ``optax.adam(1e-3)``,
        or one that clips, ``ao.optimizers.clipped_sgd(0.1, max_norm=1.0)``. Numbers of
        ``ao.optimizers`` can be swept without compiling.
      learning_rate: what the difference is divided by, > 0: the inner optimizer's own, or 1
        to send the difference itself.
      keep_state: whether the inner optimizer's state (momentum, second moments, number of steps)
        goes on from a worker's last job, while the parameters are the server's; otherwise it
        starts afresh in each job. It stays at its worker: the server never sees it. A copy per
        worker is held in memory.

    Returns:
      A worker program.

    Raises:
      TypeError: if ``optimizer`` is no gradient transformation, or ``keep_state`` no boolean.
      ValueError: if a number is out of range.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from async_optax.engine.problem import Problem
      >>> problem = Problem(
      ...     init=lambda key: jnp.zeros(1),
      ...     loss=lambda x, batch, key: jnp.sum((x - batch) ** 2) / 2,
      ...     batch=lambda key, worker: jnp.ones(1),
      ... )
      >>> program = local_steps(2, optax.sgd(0.5), learning_rate=0.5)
      >>> update, loss = program(problem, jnp.zeros(1), 0, jax.random.key(0))
      >>> print(update, loss)  # gradients -1 at 0 and -0.5 at 0.5
      [-1.5] 0.3125

    References:
      McMahan et al. 2017, https://arxiv.org/abs/1602.05629 (local SGD with a server);
      Reddi et al. 2021, https://arxiv.org/abs/2003.00295 (the difference as a pseudo-gradient;
      there it is not divided by the learning rate, which is ``learning_rate=1`` here);
      Douillard et al. 2023, https://arxiv.org/abs/2311.08105 (DiLoCo. Public code,
      https://github.com/PrimeIntellect-ai/diloco_simple, keeps the state; the authors' notebook on
      the asynchronous form, https://github.com/google-deepmind/asyncdiloco, starts it afresh).
    """
    require_count("num_steps", num_steps)
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            f"optimizer must be a gradient transformation such as optax.sgd(0.1), got {optimizer!r}"
        )
    require_number("learning_rate", learning_rate, above=0)
    if not isinstance(keep_state, bool):
        raise TypeError(f"keep_state must be True or False, got {keep_state!r}")
    program = LocalStepsKeepingState if keep_state else LocalSteps
    return program(num_steps, optimizer, float(learning_rate))
