"""What can be recorded of a pipeline's updates beside the loss."""

import jax

from async_optax.engine import record
from async_optax.engine.record import ArrivalInfo
from async_optax.transforms import StageVersions


def gap(info: ArrivalInfo) -> jax.Array:
    """The root-mean-square distance between current weights and those of the forward pass.

    With weight stashing it is the recorder ``"gap"``; without, two versions are served, and this
    takes the stale one.

    Args:
      info: of one arrival.

    Returns:
      A float scalar.

    Example:
      >>> import async_optax as ao, jax.numpy as jnp
      >>> stage = ao.pipeline.Stage(lambda key: jnp.ones(1), lambda w, x, key: w * x)
      >>> result = ao.simulate(
      ...     ao.pipeline.problem(
      ...         [stage] * 3, lambda y, batch: jnp.sum(y), lambda key, worker: jnp.ones(1)
      ...     ),
      ...     ao.optimizers.pipelines.pipemare(0.1, annealing_steps=10),
      ...     ao.pipeline.timeline(num_stages=3, num_updates=4),
      ...     key=jax.random.key(0),
      ...     worker=ao.pipeline.gradient(),
      ...     record={"gap": ao.pipeline.gap},
      ... )
      >>> print((result.arrivals["gap"] > 0).tolist())
      [False, True, True, True]
    """
    served = info.stale_params
    if isinstance(served, StageVersions):
        info = info._replace(stale_params=served.mixed)
    return record.gap(info)
