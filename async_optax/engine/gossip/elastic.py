"""The worker program of elastic averaging: local steps on a copy that the worker keeps."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from async_optax.engine.problem import Problem
from async_optax.engine.record import ArrivalInfo
from async_optax.engine.worker import gradient, local_steps
from async_optax.transforms import ElasticCopy
from async_optax.transforms.lookahead import moved
from async_optax.transforms.precision import difference, global_norm
from async_optax.validation import require_count


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ElasticSteps:
    """The program that :func:`elastic_steps` returns."""

    num_steps: int = dataclasses.field(metadata={"static": True})
    gradient_transformation: optax.GradientTransformation | None = None

    def batch_keys(self, key: jax.Array) -> jax.Array:
        """The keys of the batches, one per step: those of :func:`async_optax.local_steps`."""
        return self._keys.batch_keys(key)

    @property
    def _keys(self) -> Any:
        return local_steps(self.num_steps, optax.identity(), learning_rate=1.0)

    def __call__(
        self, problem: Problem, stale_params: ElasticCopy, worker: jax.Array, key: jax.Array
    ) -> tuple[ElasticCopy, jax.Array]:
        """Returns where the steps lead, and the mean loss."""
        if not isinstance(stale_params, ElasticCopy):
            raise TypeError(
                "elastic_steps needs an optimizer that serves workers their own copies, "
                f"ao.optimizers.easgd or eamsgd, got {type(stale_params).__name__}"
            )

        transform = optax.with_extra_args_support(self.gradient_transformation or optax.identity())

        def step(carry: tuple[ElasticCopy, Any], key: jax.Array) -> tuple[Any, jax.Array]:
            copy, state = carry
            rate, params, velocity = -copy.learning_rate, copy.params, copy.velocity
            if velocity is not None and copy.momentum is not None:
                zeros = jax.tree.map(jnp.zeros_like, velocity)
                velocity = moved(zeros, copy.momentum, velocity)
                params = moved(params, jnp.ones_like(rate), velocity)
            update, loss = gradient()(problem, params, worker, key)
            update, state = transform.update(update, state, params)
            params = moved(params, rate, update)
            if velocity is not None:
                velocity = moved(velocity, rate, update)
            pull = copy.pull
            if pull is not None:
                params = jax.tree.map(jnp.subtract, params, pull)
                pull = jax.tree.map(jnp.zeros_like, pull)
            return (copy._replace(params=params, velocity=velocity, pull=pull), state), loss

        start = stale_params, transform.init(stale_params.params)
        (copy, _), losses = lax.scan(step, start, self._keys.step_keys(key))
        return copy, jnp.mean(losses)


def elastic_steps(
    num_steps: int, gradient_transformation: optax.GradientTransformation | None = None
) -> ElasticSteps:
    """Local steps of elastic averaging, from where the worker's own parameters are.

    With eta the learning rate and m the momentum that are served with the copy x of the worker, a
    step is ``x <- x - eta * g(x)``, or with Nesterov's momentum

    ``v <- m * v``, ``x <- x + v``, ``g`` at this x, ``x <- x - eta * g``, ``v <- v - eta * g``.

    The worker sends the x and v that it ends at. Each step draws a fresh batch, and the problem's
    noise is added to each gradient. The loss of a job is the mean over its steps.

    Args:
      num_steps: steps between two exchanges, >= 1: the paper's communication period tau.
      gradient_transformation: what is made of each g before its step, such as
        ``optax.clip_by_global_norm(1.0)``: any Optax transformation that neither needs staleness
        nor scales by a learning rate of its own. Its state starts afresh in each job. ``None``:
        nothing.

    Returns:
      A worker program for :func:`async_optax.optimizers.easgd` and ``eamsgd``.

    Raises:
      TypeError: if ``num_steps`` is not an integer, or ``gradient_transformation`` no
        transformation.
      ValueError: if it is below 1.

    Example:
      >>> import async_optax as ao
      >>> problem = ao.Problem(
      ...     init=lambda key: jnp.zeros(1),
      ...     loss=lambda x, batch, key: jnp.sum((x - batch) ** 2) / 2,
      ...     batch=lambda key, worker: jnp.full(1, 8.0),
      ... )
      >>> copy = ElasticCopy(jnp.zeros(1), jnp.ones(1), None, jnp.array(0.5), jnp.array(0.5))
      >>> copy, loss = elastic_steps(1)(problem, copy, 0, jax.random.key(0))
      >>> print(copy.params, copy.velocity)  # the gradient at 0.5 is -7.5
      [4.25] [4.25]

    References:
      Zhang, Choromanska, LeCun, `Deep learning with Elastic Averaging SGD
      <https://arxiv.org/abs/1412.6651>`_, 2015. Certainty: author code.
    """
    require_count("num_steps", num_steps)
    if not isinstance(gradient_transformation, optax.GradientTransformation | None):
        raise TypeError(
            "gradient_transformation must be one such as optax.clip_by_global_norm(1.0), or None, "
            f"got {gradient_transformation!r}"
        )
    return ElasticSteps(num_steps, gradient_transformation)


def distance_to_centre(info: ArrivalInfo) -> jax.Array:
    """The recorder of how far an arriving worker is from the centre, before they exchange.

    Args:
      info: of an arrival under an elastic optimizer.

    Returns:
      A scalar >= 0: the norm of ``x_i - c`` over all parameters, in at least float32.

    Raises:
      TypeError: if what arrived is no :class:`async_optax.transforms.ElasticCopy`.
    """
    if not isinstance(info.gradient, ElasticCopy):
        raise TypeError(
            "distance_to_centre is for elastic optimizers, got an arrival of "
            f"{type(info.gradient).__name__}"
        )
    return global_norm(jax.tree.map(difference, info.gradient.params, info.params))
