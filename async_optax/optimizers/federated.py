"""Asynchronous federated optimisation: mixing of models, buffers of updates."""

import optax
from jax.typing import ArrayLike

from async_optax.optimizers.registry import register
from async_optax.transforms import (
    accumulate_until_commit,
    difference_to_worker_model,
    scale_by_staleness,
    scale_by_staleness_schedule,
    schedules,
    weights,
)
from async_optax.transforms.precision import in_working_dtype
from async_optax.transforms.weights import WeightFn
from async_optax.validation import require_learning_rate, require_number


@register
def fedasync(
    learning_rate: optax.ScalarOrSchedule,
    mixing: ArrayLike = 0.6,
    weight_fn: WeightFn | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Mixes each arriving worker's model into the server's, the staler the less.

    The worker read s and sent g, so its model is ``y = s - learning_rate * g``. With
    ``a = mixing * weight_fn(tau)``: ``x <- (1 - a) * x + a * y``.

    Args:
      learning_rate: the worker's, by which its update is scaled: a number > 0, or a schedule
        of the commits.
      mixing: in (0, 1]; the paper's experiments use 0.6 and 0.9.
      weight_fn: weight of the staleness, see :mod:`async_optax.weights`; ``None`` is
        ``polynomial(0.5)``. The paper also has ``hinge(10, 4)``.

    Returns:
      A transformation for any protocol; ``update`` requires ``params``, ``stale_params`` and
      ``staleness``.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx, x, s = fedasync(0.5, mixing=1.0), jnp.array([3.0]), jnp.array([2.0])
      >>> g = jnp.array([4.0])
      >>> print(x + tx.update(g, tx.init(x), x, stale_params=s, staleness=3)[0])
      [1.5]

    References:
      Xie, Koyejo, Gupta, `Asynchronous Federated Optimization
      <https://arxiv.org/abs/1903.03934>`_, 2019. Certainty: public code. Workers there make
      several proximal steps; here the update is whatever the worker program sends.
    """
    require_learning_rate(learning_rate)
    require_number("mixing", mixing, above=0, at_most=1)
    return optax.chain(
        difference_to_worker_model(learning_rate),
        scale_by_staleness(weights.polynomial(0.5) if weight_fn is None else weight_fn),
        accumulate_until_commit(optax.sgd(mixing)),
    )


@register
def fedbuff(
    learning_rate: optax.ScalarOrSchedule,
    momentum: ArrayLike | None = None,
    weight_fn: WeightFn | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Steps along the mean of a buffer of updates, each weighted by its own staleness.

    ``x <- x - learning_rate * sum_i w_i * weight_fn(tau_i) * g_i`` with the protocol's shares
    ``w_i = 1 / K``. Meant for ``buffered(K, wait=False)``.

    Args:
      learning_rate: the server's: a number > 0, or a schedule of the commits.
      momentum: the server's, in [0, 1), or ``None``; an example in FLSim has 0.9.
      weight_fn: weight of the staleness, see :mod:`async_optax.weights`; ``None`` is
        ``polynomial(0.5)``, the paper's ``1 / sqrt(1 + tau)``.

    Returns:
      A transformation for any protocol; ``update`` requires ``staleness``.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx, g = fedbuff(1.0), jnp.array([2.0])
      >>> _, state = tx.update(g, tx.init(g), staleness=0, commit=False, weight=0.5)
      >>> print(tx.update(g, state, staleness=3, commit=True, weight=0.5)[0])
      [-1.5]

    References:
      Nguyen et al., `Federated Learning with Buffered Asynchronous Aggregation
      <https://arxiv.org/abs/2106.06639>`_, 2022. Certainty: authors' code. FLSim sums the
      buffer instead of averaging it, and divides the weights by that of an average staleness
      of 1 by default, so that a fresh update counts sqrt(2).
    """
    require_learning_rate(learning_rate)
    if momentum is not None:
        require_number("momentum", momentum, at_least=0, below=1)
    return optax.chain(
        scale_by_staleness(weights.polynomial(0.5) if weight_fn is None else weight_fn),
        accumulate_until_commit(optax.sgd(learning_rate, momentum)),
    )


@register
def fadas(
    learning_rate: optax.ScalarOrSchedule,
    max_staleness: ArrayLike = 1,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """AMSGrad on the mean of a buffer, its rate capped by the buffer's largest staleness.

    With d AMSGrad's direction for the mean update of the commit and tau the largest staleness
    among its arrivals: ``x <- x - eta * d``, where eta is ``learning_rate`` up to
    ``max_staleness`` and ``min(learning_rate, 1 / tau)`` beyond it.

    Args:
      learning_rate: a number > 0, or a schedule of the commits.
      max_staleness: tau_c >= 0, in versions.
      b1: in [0, 1).
      b2: in [0, 1).
      eps: > 0.

    Returns:
      A transformation for any protocol; ``update`` requires ``staleness``.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx, g = fadas(0.5, max_staleness=4), jnp.array([2.0])
      >>> print(tx.update(g, tx.init(g), staleness=8)[0].round(3))
      [-0.125]

    References:
      Wang et al., `FADAS: Towards Federated Adaptive Asynchronous Optimization
      <https://arxiv.org/abs/2407.18365>`_, 2024. Certainty: secondary sources. The moments are
      those of ``optax.amsgrad`` in at least float32, bias correction included, and so are the
      defaults.
    """
    require_learning_rate(learning_rate)
    require_number("b1", b1, at_least=0, below=1)
    require_number("b2", b2, at_least=0, below=1)
    require_number("eps", eps, above=0)
    return accumulate_until_commit(
        optax.chain(
            in_working_dtype(optax.scale_by_amsgrad(b1, b2, eps)),
            scale_by_staleness_schedule(schedules.capped(learning_rate, max_staleness)),
        )
    )
