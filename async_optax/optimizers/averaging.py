"""Averaging of what workers have trained on their own, and momentum on the average."""

import optax
from jax.typing import ArrayLike

from async_optax.optimizers.registry import register
from async_optax.transforms import (
    accumulate_until_commit,
    difference_to_worker_model,
    scale_by_staleness,
)
from async_optax.transforms.weights import WeightFn
from async_optax.validation import require_learning_rate, require_number


@register
def parameter_averaging(
    learning_rate: optax.ScalarOrSchedule,
) -> optax.GradientTransformationExtraArgs:
    """Makes the server the mean of its workers' models (local SGD, federated averaging).

    The worker read s and sent g, so its model is ``y = s - learning_rate * g``. With the
    protocol's shares w of a commit: ``x <- x + sum_i w_i * (y_i - x)``, the mean of the models
    where the shares sum to 1. Workers make H steps between two commits with the worker program
    ``local_steps(H, optimizer, learning_rate)``.

    If all have read x, as under a synchronous protocol, averaging models is adding the mean of
    their differences, which is ``sgd(learning_rate)``; with H = 1, plain SGD and batches of one
    size it is minibatch SGD. If they have read something older, models take back what others did
    meanwhile, and differences do not: then ``sgd`` (or ``diloco``) is what works, or ``fedasync``,
    which takes only a share of a model.

    Args:
      learning_rate: the worker's, by which its update is scaled, and which ``local_steps`` has
        divided by: a number > 0, or a schedule of the commits.

    Returns:
      A transformation for any protocol; ``update`` requires ``params`` and ``stale_params``.

    Raises:
      ValueError: if ``learning_rate`` is not a finite number > 0.

    Example:
      >>> import jax.numpy as jnp
      >>> tx, x = parameter_averaging(0.5), jnp.array([3.0])
      >>> args = {"params": x, "stale_params": x, "weight": 0.5}
      >>> _, state = tx.update(jnp.array([4.0]), tx.init(x), commit=False, **args)
      >>> print(x + tx.update(jnp.array([8.0]), state, commit=True, **args)[0])  # models 1 and -1
      [0.]

    References:
      McMahan et al., `Communication-Efficient Learning of Deep Networks from Decentralized Data
      <https://arxiv.org/abs/1602.05629>`_, 2017. Certainty: memory. Shares there are in
      proportion to the workers' data; here they are the protocol's.
    """
    require_learning_rate(learning_rate)
    return optax.chain(
        difference_to_worker_model(learning_rate), accumulate_until_commit(optax.sgd(1.0))
    )


@register
def diloco(
    learning_rate: optax.ScalarOrSchedule,
    momentum: ArrayLike = 0.9,
    weight_fn: WeightFn | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Nesterov momentum on the mean of what the workers' own training has changed.

    With g_i the difference that worker i sends, w its share in the commit and
    ``d = sum_i w_i * weight_fn(tau_i) * g_i``: ``v <- momentum * v + d``,
    ``x <- x - learning_rate * (d + momentum * v)``. The worker program is
    ``local_steps(H, optax.adamw(...), learning_rate=1.0, keep_state=True)``, H = 500 in the paper.

    Args:
      learning_rate: the outer one: a number > 0, or a schedule of the commits. Synchronous: 0.7.
        Where each of n workers commits alone: 0.07 to 0.1, times sqrt(n) / n.
      momentum: the outer one, in [0, 1).
      weight_fn: weight of the staleness, see :mod:`async_optax.weights`, such as
        ``polynomial(0.5)``; ``None``: staleness is ignored.

    Returns:
      A transformation for any protocol; with ``weight_fn``, ``update`` requires ``staleness``.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx, g = diloco(0.5, momentum=0.5), jnp.array([2.0])
      >>> updates, state = tx.update(g, tx.init(g))
      >>> print(updates, tx.update(g, state)[0])
      [-1.5] [-1.75]

    References:
      Douillard et al., `DiLoCo: Distributed Low-Communication Training of Language Models
      <https://arxiv.org/abs/2311.08105>`_, 2023. Certainty: public code (of others). Liu et al.,
      `Asynchronous Local-SGD Training for Language Modeling <https://arxiv.org/abs/2401.09135>`_,
      2024: authors' code, a notebook, which has the constant factor sqrt(n) / n, alone or over
      sqrt(1 + tau), and starts the inner optimizer afresh in each job. Their delayed Nesterov
      update is not included; ``smega2`` is close to it.
    """
    require_learning_rate(learning_rate)
    require_number("momentum", momentum, at_least=0, below=1)
    outer = accumulate_until_commit(optax.sgd(learning_rate, momentum, nesterov=True))
    return outer if weight_fn is None else optax.chain(scale_by_staleness(weight_fn), outer)
