"""Learning rates that see the staleness: functions of the step and of tau."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jax.typing import ArrayLike

from async_optax.transforms.precision import scale_or_drop
from async_optax.transforms.sweepable import sweepable
from async_optax.transforms.weights import WeightFn
from async_optax.validation import (
    require_learning_rate,
    require_number,
    require_staleness,
)

StalenessSchedule = Callable[[ArrayLike, ArrayLike], jax.Array]
"""``schedule(step, staleness) -> learning rate``, of the commits so far and of tau."""


def value_at(value: ArrayLike | optax.Schedule, step: ArrayLike) -> ArrayLike:
    """Returns a number as it is, and a schedule's value at ``step``.

    Example:
      >>> value_at(0.5, step=3), value_at(lambda step: 0.5**step, step=3)
      (0.5, 0.125)
    """
    return value(step) if callable(value) else value


def next_step(step: jax.Array, extra_args: dict[str, Any]) -> jax.Array:
    """Returns the number of commits after an arrival: without ``commit`` every arrival is one."""
    committed = jnp.asarray(extra_args.get("commit", True))
    return jnp.where(committed, optax.safe_increment(step), step)


def weighted(learning_rate: optax.ScalarOrSchedule, weight_fn: WeightFn) -> StalenessSchedule:
    """Learning rate ``eta_t * weight_fn(tau)``.

    Args:
      learning_rate: eta > 0, a number or a schedule of the step t.
      weight_fn: see :mod:`async_optax.transforms.weights`.

    Returns:
      A staleness schedule.

    Raises:
      ValueError: if ``learning_rate`` is not a finite number > 0.

    Example:
      >>> from async_optax.transforms import weights
      >>> print(weighted(0.5, weights.inverse())(0, 4))
      0.125
    """
    require_learning_rate(learning_rate)
    return Partial(_weighted, learning_rate, weight_fn)


def _weighted(
    learning_rate: optax.ScalarOrSchedule,
    weight_fn: WeightFn,
    step: ArrayLike,
    staleness: ArrayLike,
) -> jax.Array:
    return jnp.multiply(value_at(learning_rate, step), weight_fn(staleness))


def capped(learning_rate: optax.ScalarOrSchedule, max_staleness: ArrayLike) -> StalenessSchedule:
    """Learning rate ``eta_t`` up to the staleness tau_c, ``min(eta_t, 1 / tau)`` beyond it.

    Args:
      learning_rate: eta > 0, a number or a schedule of the step t.
      max_staleness: tau_c >= 0, in versions.

    Returns:
      A staleness schedule.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> print(capped(0.5, max_staleness=4)(0, 4), capped(0.5, max_staleness=4)(0, 8))
      0.5 0.125

    References:
      Wang et al., `FADAS: Towards Federated Adaptive Asynchronous Optimization
      <https://arxiv.org/abs/2407.18365>`_, 2024 (from secondary sources).
    """
    require_learning_rate(learning_rate)
    require_number("max_staleness", max_staleness, at_least=0)
    return Partial(_capped, learning_rate, max_staleness)


def _capped(
    learning_rate: optax.ScalarOrSchedule,
    max_staleness: ArrayLike,
    step: ArrayLike,
    staleness: ArrayLike,
) -> jax.Array:
    tau, rate = _as_float(staleness), jnp.asarray(value_at(learning_rate, step), float)
    capped_rate = jnp.minimum(rate, 1 / jnp.maximum(tau, 1))
    return jnp.where(tau <= max_staleness, rate, capped_rate)


def adadelay(learning_rate: optax.ScalarOrSchedule, scale: ArrayLike) -> StalenessSchedule:
    """Learning rate ``1 / (1 / eta_t + c * sqrt(t + 1 + tau))``.

    Args:
      learning_rate: eta > 0, the inverse of the loss's smoothness; a number or a schedule of
        the step t.
      scale: c >= 0, in gradient units over the diameter of the domain; 0 leaves eta.

    Returns:
      A staleness schedule.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> print(adadelay(0.5, scale=1.0)(3, 5))
      0.2

    References:
      Sra, Yu, Li, Smola, `AdaDelay: Delay Adaptive Distributed Stochastic Optimization
      <https://arxiv.org/abs/1508.05003>`_, 2016 (our reading, from memory); t counts from 1
      there.
    """
    require_learning_rate(learning_rate)
    require_number("scale", scale, at_least=0)
    return Partial(_adadelay, learning_rate, scale)


def _adadelay(
    learning_rate: optax.ScalarOrSchedule, scale: ArrayLike, step: ArrayLike, staleness: ArrayLike
) -> jax.Array:
    return adadelay_rate(value_at(learning_rate, step), scale, step, staleness)


def adadelay_rate(
    rate: ArrayLike, scale: ArrayLike, step: ArrayLike, staleness: ArrayLike
) -> jax.Array:
    """Returns ``rate / (1 + rate * scale * sqrt(step + 1 + staleness))``, for rates of 0 too."""
    age = jnp.asarray(step).astype(float) + 1 + _as_float(staleness)
    return jnp.divide(rate, 1 + jnp.multiply(rate, scale) * jnp.sqrt(age))


def _as_float(staleness: ArrayLike) -> jax.Array:
    require_staleness(staleness)
    return jnp.asarray(staleness).astype(float)


class ScaleByStalenessScheduleState(NamedTuple):
    """State of :func:`scale_by_staleness_schedule`.

    Attributes:
      step: int32 scalar, commits so far.
    """

    step: jax.Array


@sweepable
def scale_by_staleness_schedule(
    schedule: StalenessSchedule,
) -> optax.GradientTransformationExtraArgs:
    """Scales updates by a learning rate that sees the staleness: ``-schedule(t, tau) * g``.

    Inside :func:`accumulate_until_commit` tau is the largest staleness among the arrivals of
    the commit, and t counts commits.

    Args:
      schedule: such as :func:`capped` or :func:`weighted`, or any function of t and tau.

    Returns:
      A transformation whose ``update`` requires ``staleness``, an int32 scalar >= 0. Updates
      keep their shapes and dtypes.

    Raises:
      TypeError: if ``schedule`` does not map two integers to one number.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = scale_by_staleness_schedule(capped(0.5, max_staleness=4))
      >>> g = jnp.array([2.0])
      >>> print(tx.update(g, tx.init(g), staleness=8)[0])
      [-0.25]
    """
    _require_schedule(schedule)

    def init_fn(params: optax.Params) -> ScaleByStalenessScheduleState:
        del params
        return ScaleByStalenessScheduleState(jnp.zeros([], jnp.int32))

    def update_fn(
        updates: optax.Updates,
        state: ScaleByStalenessScheduleState,
        params: optax.Params | None = None,
        *,
        staleness: ArrayLike,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ScaleByStalenessScheduleState]:
        del params
        rate = -jnp.asarray(schedule(state.step, staleness))
        scaled = jax.tree.map(lambda g: scale_or_drop(g, rate), updates)
        return scaled, ScaleByStalenessScheduleState(next_step(state.step, extra_args))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


class InjectedStalenessSchedule:
    """A staleness schedule as Optax's ``StatefulSchedule``, for ``optax.inject_hyperparams``.

    Any hyperparameter of any Optax optimizer can then follow the staleness, and is found in
    the state. Its own state is the number of commits so far.

    Args:
      schedule: a function of the step and the staleness.

    Raises:
      TypeError: if ``schedule`` does not map two integers to one number; in ``update``, if
        ``staleness`` is missing.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from async_optax.transforms import weights
      >>> rate = InjectedStalenessSchedule(weighted(1.0, weights.inverse()))
      >>> tx = optax.inject_hyperparams(optax.sgd)(learning_rate=rate)
      >>> g = jnp.array([2.0])
      >>> print(tx.update(g, tx.init(g), g, staleness=4)[0])
      [-0.5]
    """

    def __init__(self, schedule: StalenessSchedule):
        _require_schedule(schedule)
        self._schedule = schedule

    def init(self) -> jax.Array:
        """Returns step 0."""
        return jnp.zeros([], jnp.int32)

    def update(self, state: jax.Array, *, staleness: ArrayLike, **extra_args: Any) -> jax.Array:
        """Returns the next step."""
        del staleness  # required here, since Optax calls the schedule without it in ``init``
        return next_step(state, extra_args)

    def __call__(self, state: jax.Array, *, staleness: ArrayLike = 0, **extra_args: Any) -> Any:
        """Returns the value at a step and a staleness."""
        del extra_args
        return self._schedule(state, staleness)


def _require_schedule(schedule: Any) -> None:
    integer = jax.ShapeDtypeStruct((), jnp.int32)
    try:
        rate = jax.eval_shape(schedule, integer, integer)
    except TypeError:  # not callable, or of another signature
        rate = None
    if getattr(rate, "shape", None) != ():
        raise TypeError(
            "schedule must map a step and a staleness to one number, such as "
            f"transforms.schedules.capped(0.1, max_staleness=8), got {schedule!r}"
        )
