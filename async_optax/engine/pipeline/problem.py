"""The problem of a pipeline: a model in stages, whose parameters are a tuple of theirs."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from async_optax.engine.pipeline.stage import Stage, apply_stages
from async_optax.engine.problem import Problem
from async_optax.transforms import StageVersions
from async_optax.validation import first_line


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StagedLoss:
    """The loss of a model in stages, as :class:`async_optax.Problem` takes it.

    Attributes:
      stages: the stages.
      loss: ``loss(outputs, batch) -> scalar``.
    """

    stages: tuple[Stage, ...]
    loss: Callable[[Any, Any], jax.Array]

    def __call__(self, params: optax.Params, batch: Any, key: jax.Array) -> jax.Array:
        """Returns the loss of a batch, all passes at the same parameters."""
        if isinstance(params, StageVersions):
            raise TypeError("without a stash the worker must be ao.pipeline.gradient()")
        return self.loss(apply_stages(self.stages, params, batch, key), batch)


def problem(
    stages: Sequence[Stage],
    loss: Callable[[Any, Any], jax.Array],
    batch: Callable[[jax.Array, jax.Array], Any],
    *,
    evaluate: Callable[[optax.Params], Mapping[str, jax.Array]] | None = None,
    noise: Callable[[jax.Array, optax.Updates], optax.Updates] | None = None,
) -> Problem:
    """Makes a problem of a model in stages.

    The parameters are a tuple of the stages' own, and the problem's loss is ``loss`` of what the
    stages make of the batch one after another: without delays nothing is special about it, and
    any optimizer and worker program can run it.

    Args:
      stages: P stages, see :class:`Stage`; the first takes the batch.
      loss: ``loss(outputs, batch) -> scalar``, of the last stage's outputs.
      batch: ``batch(key, worker) -> batch``: a micro-batch, any pytree.
      evaluate: ``evaluate(params) -> {name: scalar}`` of the tuple of stages, or ``None``.
      noise: ``noise(key, gradient) -> noise``, or ``None``; see :mod:`async_optax.noise`.

    Returns:
      A problem.

    Raises:
      TypeError: if a stage is not a :class:`Stage`, or a function is not callable.
      ValueError: if there is no stage, a stage does not take what the one before it returns
        (it is named), or the loss is not a scalar. Nothing has been compiled.

    Example:
      >>> import async_optax as ao, jax.numpy as jnp
      >>> stage = ao.pipeline.Stage(lambda key: jnp.ones(1), lambda w, x, key: w * x)
      >>> line = ao.pipeline.problem(
      ...     [stage] * 4,
      ...     loss=lambda outputs, batch: jnp.mean((outputs - 2 * batch) ** 2),
      ...     batch=lambda key, worker: jax.random.normal(key, (8,)),
      ...     evaluate=lambda params: {"product": jnp.prod(jnp.stack(params))},
      ... )
      >>> result = ao.simulate(
      ...     line,
      ...     ao.optimizers.pipelines.pipedream(0.02, weight_decay=0.0),
      ...     ao.pipeline.timeline(num_stages=4, num_updates=200),
      ...     key=jax.random.key(0),
      ...     worker=ao.pipeline.gradient(),
      ... )
      >>> print([f"{product:.1f}" for product in result.evaluations["product"]])
      ['1.0', '1.9']
    """
    if isinstance(stages, Stage) or not isinstance(stages, Sequence):
        raise TypeError(f"stages must be a list of Stage, got {type(stages).__name__}")
    stages = tuple(stages)
    if not stages:
        raise ValueError("stages must hold at least one stage, got none")
    for i, stage in enumerate(stages):
        if not isinstance(stage, Stage):
            raise TypeError(f"stages[{i}] must be a Stage, got {stage!r}")
        for field in ("init", "apply"):
            if not callable(getattr(stage, field)):
                raise TypeError(f"stages[{i}].{field} must be callable")
    for name, function in (("loss", loss), ("batch", batch)):
        if not callable(function):
            raise TypeError(f"{name} must be callable, got {function!r}")
    _check_chain(stages, loss, batch)
    return Problem(
        init=Partial(_init, stages),
        loss=StagedLoss(stages, loss),
        batch=batch,
        evaluate=evaluate,
        noise=noise,
    )


def _init(stages: tuple[Stage, ...], key: jax.Array) -> tuple[Any, ...]:
    keys = jax.random.split(key, len(stages))
    return tuple(stage.init(k) for stage, k in zip(stages, keys, strict=True))


def _check_chain(stages: tuple[Stage, ...], loss: Callable, batch: Callable) -> None:
    """Raises ``ValueError`` naming the first function that fails on what comes before it."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    x = drawn = _shape_of("batch", batch, key, jax.ShapeDtypeStruct((), jnp.int32))
    before = "the batch"
    for i, stage in enumerate(stages):
        params = _shape_of(f"stages[{i}].init", stage.init, key)
        taken = f"stages[{i}].apply fails on {before} {_described(x)}"
        x = _shape_of(taken, stage.apply, params, x, key)
        before = f"the output of stages[{i}],"
    value = _shape_of(f"loss fails on {before} {_described(x)}", loss, x, drawn)
    if getattr(value, "shape", None) != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"loss must return one floating-point scalar, got {_described(value)}")


def _shape_of(what: str, function: Callable, *args: Any) -> Any:
    try:
        return jax.eval_shape(function, *args)
    except Exception as error:  # a user's function may raise anything
        fails = what if " fails on " in what else f"{what} fails"
        raise ValueError(f"{fails}: {first_line(error)}") from error


def _described(tree: Any) -> str:
    return str(jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", tree))
