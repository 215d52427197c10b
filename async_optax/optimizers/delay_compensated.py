"""Asynchronous gradient descent with delay compensation."""

import optax
from jax.typing import ArrayLike

from async_optax.optimizers.registry import register
from async_optax.transforms import (
    accumulate_until_commit,
    compensate_delay,
    compensate_delay_adaptive,
    trace_with_look_ahead,
)
from async_optax.validation import require_learning_rate


@register
def dc_asgd(
    learning_rate: optax.ScalarOrSchedule, strength: ArrayLike = 0.04
) -> optax.GradientTransformationExtraArgs:
    """DC-ASGD with constant strength: every arrival gets a Taylor correction for its delay.

    ``x <- x - learning_rate * (g + strength * g*g*(x - s))``.

    s are the parameters that the gradient g was computed on, x the server's; products are
    element-wise.

    Args:
      learning_rate: a number > 0, or a schedule of the commits.
      strength: >= 0. The default is what MXNet ships and, as far as we recall, the
        paper's choice for CIFAR-10.

    Returns:
      A transformation for any protocol; ``update`` requires ``params`` and ``stale_params``.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx, x = dc_asgd(0.5, strength=1.0), jnp.array([1.0])
      >>> print(tx.update(2 * x, tx.init(x), x, stale_params=x / 2)[0])
      [-2.]

    References:
      Zheng et al., `Asynchronous Stochastic Gradient Descent with Delay Compensation
      <https://arxiv.org/abs/1609.08326>`_, 2017 (DC-ASGD-c). Certainty:
      authors' code. MXNet keeps one previous copy of the parameters for all workers; here s is
      what this worker read, as in the paper.
    """
    require_learning_rate(learning_rate)
    return optax.chain(
        compensate_delay(strength), accumulate_until_commit(optax.sgd(learning_rate))
    )


@register(static_argnames=("num_workers",))
def dc_asgd_adaptive(
    learning_rate: optax.ScalarOrSchedule,
    num_workers: int,
    strength: ArrayLike = 2.0,
    decay: ArrayLike = 0.95,
    eps: ArrayLike = 1e-7,
) -> optax.GradientTransformationExtraArgs:
    """DC-ASGD whose strength follows the size of each worker's gradients.

    With ``ms_j <- decay * ms_j + (1 - decay) * g*g`` for the worker j that delivers,
    ``x <- x - learning_rate * (g + strength / sqrt(ms_j + eps) * g*g*(x - s))``; products are
    element-wise, s is what g was computed on.

    Args:
      learning_rate: a number > 0, or a schedule of the commits.
      num_workers: number of workers, >= 1; one copy of the parameters each.
      strength: >= 0. 2.0 is what two re-implementations quote for CIFAR-10.
      decay: in [0, 1); 0.95 likewise.
      eps: > 0; 1e-7 is that of the authors' code.

    Returns:
      A transformation for any protocol; ``update`` requires ``params``, ``stale_params`` and
      ``worker``.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx, x = dc_asgd_adaptive(0.5, num_workers=2, decay=0.0), jnp.array([1.0])
      >>> updates, _ = tx.update(2 * x, tx.init(x), x, stale_params=x / 2, worker=0)
      >>> print(updates.round(4))
      [-2.]

    References:
      Zheng et al., `Asynchronous Stochastic Gradient Descent with Delay Compensation
      <https://arxiv.org/abs/1609.08326>`_, 2017 (DC-ASGD-a). Certainty: authors' code, which
      keeps the mean square per worker.
    """
    require_learning_rate(learning_rate)
    return optax.chain(
        compensate_delay_adaptive(num_workers, strength, decay, eps),
        accumulate_until_commit(optax.sgd(learning_rate)),
    )


@register(static_argnames=("num_workers",))
def dana_dc(
    learning_rate: optax.ScalarOrSchedule,
    num_workers: int,
    momentum: ArrayLike = 0.9,
    strength: ArrayLike = 2.0,
) -> optax.GradientTransformationExtraArgs:
    """DANA with delay compensation: gradients corrected, then momentum per worker.

    For the worker j that delivers g, with s the look-ahead point it computed on:
    ``h = g + strength * g*g*(x - s)``, ``v_j <- momentum * v_j + h``,
    ``x <- x - learning_rate * v_j``; workers read ``x - learning_rate * momentum * sum_i v_i``.

    Args:
      learning_rate: a number > 0, or a schedule of the commits.
      num_workers: number of workers, >= 1; one copy of the parameters each.
      momentum: in [0, 1).
      strength: >= 0; 2.0 is that of the authors' script.

    Returns:
      A transformation for any protocol; ``update`` requires ``params``, ``stale_params`` and
      ``worker``, and :func:`async_optax.transforms.served_params` reads its state.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx, x = dana_dc(0.5, num_workers=2, strength=1.0), jnp.array([1.0])
      >>> print(tx.update(2 * x, tx.init(x), x, stale_params=x / 2, worker=0)[0])
      [-2.]

    References:
      Hakimi, Barkai, Gabel, Schuster, `Taming Momentum in a Distributed Asynchronous
      Environment <https://arxiv.org/abs/1907.11612>`_, 2019. Certainty: authors' code. x are the
      parameters without look-ahead, so that even a fresh gradient is corrected for it.
    """
    require_learning_rate(learning_rate)
    return optax.chain(
        compensate_delay(strength),
        trace_with_look_ahead(num_workers, learning_rate, momentum),
        accumulate_until_commit(optax.sgd(learning_rate)),
    )
