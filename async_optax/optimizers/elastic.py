"""Elastic averaging: workers explore around a centre, which is the model that counts."""

import optax
from jax.typing import ArrayLike

from async_optax.transforms import elastic_average
from async_optax.validation import require_number


def easgd(
    learning_rate: optax.ScalarOrSchedule,
    moving_rate: ArrayLike,
    order: str = "exchange_first",
) -> optax.GradientTransformationExtraArgs:
    """EASGD: plain local steps, and a spring between each worker and the centre.

    Between arrivals worker i steps ``x_i <- x_i - learning_rate * g(x_i)``; when it arrives,
    ``e <- moving_rate * (x_i - c)``, ``c <- c + e``, ``x_i <- x_i - e``. The centre c is the model
    that is evaluated.

    Args:
      learning_rate: of the local steps: a number > 0, or a schedule of all exchanges so far.
      moving_rate: in [0, 1); the paper recommends 0.9 / num_workers.
      order: ``"exchange_first"``, or ``"step_first"`` as in the authors' code; see
        :func:`async_optax.transforms.elastic_average`.

    Returns:
      A transformation for ``worker=gossip.elastic_steps(num_steps)``, under
      ``protocols.asynchronous()`` or ``protocols.round_robin()``. Gradients are clipped by
      ``elastic_steps``, not before it in a chain.

    Raises:
      ValueError: if an argument is out of range.

    Example:
      >>> import async_optax as ao, jax, jax.numpy as jnp
      >>> problem = ao.Problem(
      ...     init=lambda key: jnp.zeros(1),
      ...     loss=lambda x, batch, key: jnp.sum((x - batch) ** 2) / 2,
      ...     batch=lambda key, worker: jnp.ones(1),
      ... )
      >>> timeline = ao.simulate_timeline(
      ...     ao.protocols.asynchronous(), ao.runtimes.gamma(), 4, num_commits=80
      ... )
      >>> result = ao.simulate(
      ...     problem,
      ...     easgd(0.2, moving_rate=0.9 / 4),
      ...     timeline,
      ...     key=jax.random.key(0),
      ...     worker=ao.gossip.elastic_steps(3),
      ...     lanes=1,
      ... )
      >>> print(result.params.round(2))
      [1.]

    References:
      Zhang, Choromanska, LeCun, `Deep learning with Elastic Averaging SGD
      <https://arxiv.org/abs/1412.6651>`_, 2015. Certainty: author code for ``"step_first"``.
      Synchronous EASGD, where all workers pull at the centre at once, is a round of ``d_psgd``:
      workers and centre are agents, the links between each worker and the centre have the weight
      ``moving_rate`` in a matrix for ``topologies.from_matrix``, and the centre has no gradient.
    """
    return elastic_average(learning_rate, moving_rate, None, order)


def eamsgd(
    learning_rate: optax.ScalarOrSchedule,
    moving_rate: ArrayLike,
    momentum: ArrayLike = 0.99,
    order: str = "exchange_first",
) -> optax.GradientTransformationExtraArgs:
    """EAMSGD: EASGD whose local steps have Nesterov's momentum, one velocity per worker.

    Local steps are ``v_i <- momentum * v_i``, ``x_i <- x_i + v_i``, g there,
    ``x_i <- x_i - learning_rate * g``, ``v_i <- v_i - learning_rate * g``. The exchange is that of
    :func:`easgd`; it leaves the velocities as they are, and the centre has none.

    Args:
      learning_rate: of the local steps: a number > 0, or a schedule of all exchanges so far.
      moving_rate: in [0, 1); the paper recommends 0.9 / num_workers.
      momentum: in [0, 1); 0.99 is the authors' for this method.
      order: as for :func:`easgd`.

    Returns:
      A transformation for ``worker=gossip.elastic_steps(num_steps)``, under
      ``protocols.asynchronous()`` or ``protocols.round_robin()``.

    Raises:
      TypeError: if ``momentum`` is not a number.
      ValueError: if an argument is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from async_optax.transforms import served_params
      >>> tx, centre = eamsgd(0.1, moving_rate=0.5), jnp.array([1.0])
      >>> copy = served_params(centre, tx.init(centre))
      >>> print(copy.params, copy.velocity, copy.momentum)
      [1.] [0.] 0.99

    References:
      Zhang, Choromanska, LeCun, `Deep learning with Elastic Averaging SGD
      <https://arxiv.org/abs/1412.6651>`_, 2015. Certainty: author code for ``"step_first"``.
    """
    require_number("momentum", momentum, at_least=0, below=1)
    return elastic_average(learning_rate, moving_rate, momentum, order)
