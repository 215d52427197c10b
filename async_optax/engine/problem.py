"""The problem: what is trained, on which batches, and how it is judged."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from async_optax.validation import first_line


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Problem:
    """A stochastic optimisation problem as pure functions.

    Data belongs into ``jax.tree_util.Partial`` nodes, ``batch=Partial(sample, images,
    labels)``: what they hold is passed to the compiled program as arguments; what a closure
    captures is compiled into it.

    Attributes:
      init: ``init(key) -> params``.
      loss: ``loss(params, batch, key) -> scalar``; the key serves dropout and the like.
      batch: ``batch(key, worker) -> batch``: a mini-batch, any pytree. ``worker`` is an int32
        scalar, for workers with data of their own.
      evaluate: ``evaluate(params) -> {name: scalar}``, or ``None``. A metric that is not finite,
        such as one that is undefined at the start, is kept: only losses and parameters that are
        not end a run as diverged.
      noise: ``noise(key, gradient) -> noise``, added to every gradient, or ``None``; see
        :mod:`async_optax.noise`.

    Example:
      >>> import jax.numpy as jnp
      >>> problem = Problem(
      ...     init=lambda key: jnp.zeros(2),
      ...     loss=lambda x, batch, key: jnp.sum((x - batch) ** 2),
      ...     batch=lambda key, worker: jax.random.normal(key, (2,)),
      ... )
      >>> problem.check()
    """

    init: Callable[[jax.Array], optax.Params]
    loss: Callable[[optax.Params, Any, jax.Array], jax.Array]
    batch: Callable[[jax.Array, jax.Array], Any]
    evaluate: Callable[[optax.Params], Mapping[str, jax.Array]] | None = None
    noise: Callable[[jax.Array, optax.Updates], optax.Updates] | None = None

    def with_noise(self, noise: Callable | None) -> "Problem":
        """Returns the problem with ``noise`` added to every gradient (``None``: without)."""
        return dataclasses.replace(self, noise=noise)

    def check(self) -> None:
        """Checks that the functions fit together, without compiling or computing anything.

        Raises:
          TypeError: if a function is not callable.
          ValueError: if one fails on what the others return, if the loss is not a real
            scalar, or if the evaluation is not a dictionary of scalars.
        """
        for field in ("init", "loss", "batch"):
            if not callable(getattr(self, field)):
                raise TypeError(f"problem.{field} must be callable, got {getattr(self, field)!r}")
        key = jax.eval_shape(lambda: jax.random.key(0))
        worker = jax.ShapeDtypeStruct((), jnp.int32)
        params = _shape_of("init", self.init, key)
        if not jax.tree.leaves(params):
            raise ValueError(f"problem.init must return at least one array, got {params}")
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise ValueError(
                    f"problem.init must return floating-point parameters, "
                    f"got {leaf.dtype} at params{jax.tree_util.keystr(path)}"
                )
        batch = _shape_of("batch", self.batch, key, worker)
        loss = _shape_of("loss", self.loss, params, batch, key)
        if getattr(loss, "shape", None) != () or not jnp.issubdtype(loss.dtype, jnp.floating):
            raise ValueError(f"problem.loss must return one floating-point scalar, got {loss}")
        if self.noise is not None:
            noise = _shape_of("noise", self.noise, key, params)
            same = jax.tree.map(_shape, noise) == jax.tree.map(_shape, params)
            if not same:
                raise ValueError("problem.noise must return a pytree like the gradient")
        if self.evaluate is not None:
            metrics = _shape_of("evaluate", self.evaluate, params)
            scalars = isinstance(metrics, Mapping) and all(
                getattr(value, "shape", None) == () for value in metrics.values()
            )
            if not scalars:
                raise ValueError(
                    f"problem.evaluate must return a dictionary of scalars, got {metrics}"
                )
            taken = {"version", "time"} & set(metrics)
            if taken:
                raise ValueError(
                    f"problem.evaluate must not use the names of the axes, got {sorted(taken)}"
                )


def _shape_of(field: str, function: Callable, *args: Any) -> Any:
    """Abstractly evaluates a user's function; its error becomes one line naming the field."""
    try:
        return jax.eval_shape(function, *args)
    except Exception as error:  # a user's function may raise anything
        shapes = [jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", arg) for arg in args]
        message = f"problem.{field} fails on arguments {shapes}: {first_line(error)}"
        raise ValueError(message) from error


def _shape(leaf: Any) -> tuple[int, ...]:
    return leaf.shape
