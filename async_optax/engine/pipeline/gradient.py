"""The worker program of a pipeline: forward and backward pass, each at its own version."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from async_optax.engine.pipeline.problem import StagedLoss
from async_optax.engine.problem import Problem
from async_optax.engine.worker import Gradient
from async_optax.transforms import StageVersions


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PipelineGradient:
    """The program that :func:`gradient` returns."""

    def batch_keys(self, key: jax.Array) -> jax.Array:
        """The key of the one micro-batch."""
        return Gradient().batch_keys(key)

    def __call__(
        self, problem: Problem, served: Any, worker: jax.Array, key: jax.Array
    ) -> tuple[optax.Updates, jax.Array]:
        """Returns the gradient and the loss."""
        if not isinstance(served, StageVersions):
            return Gradient()(problem, served, worker, key)
        if not isinstance(problem.loss, StagedLoss):
            raise TypeError("without a stash the problem must be one of ao.pipeline.problem")
        batch_key, loss_key, noise_key = jax.random.split(key, 3)
        batch = problem.batch(batch_key, worker)
        loss, update = two_version_gradient(problem.loss, served, batch, loss_key)
        if problem.noise is not None:
            noise = problem.noise(noise_key, update)
            update = jax.tree.map(lambda g, n: g + n.astype(g.dtype), update, noise)
        return update, loss


def gradient() -> PipelineGradient:
    """One stochastic gradient of a micro-batch, as the stages of a pipeline compute it.

    With weight stashing it is the ordinary gradient of the loss at the mix of versions that the
    optimizer serves, and :func:`async_optax.gradient` is the same. Without, the forward pass
    runs at ``forward`` and keeps the input of each stage; the backward pass goes from the last
    stage to the first, by the derivative of each stage at its current weights and its kept input.
    What happens within a stage is recomputed there at the current weights, as with activation
    checkpointing at the borders of the stages; a system that keeps all activations of the stale
    pass would mix those into the derivative, which is the same for stages of one linear map.

    A job's key is split as :func:`async_optax.gradient` splits it: for batch, loss and noise.

    Returns:
      A worker program for problems of :func:`async_optax.engine.pipeline.problem`.

    Example:
      >>> import async_optax as ao, jax.numpy as jnp
      >>> stage = ao.pipeline.Stage(lambda key: jnp.ones(()), lambda w, x, key: w * x)
      >>> problem = ao.pipeline.problem(
      ...     [stage] * 2,
      ...     loss=lambda outputs, batch: outputs,
      ...     batch=lambda key, worker: jnp.ones(()),
      ... )
      >>> versions = ao.transforms.StageVersions(
      ...     forward=(jnp.float32(2.0), None), backward=(jnp.float32(3.0), jnp.float32(5.0))
      ... )
      >>> update, loss = gradient()(problem, versions, 0, jax.random.key(0))
      >>> print([float(g) for g in update], loss)  # 5 * 1 and 2, of the loss 5 * 2
      [5.0, 2.0] 10.0

    References:
      Without a stash: Yang et al., `PipeMare: Asynchronous Pipeline Parallel DNN Training
      <https://arxiv.org/abs/1910.05124>`_, 2019. Certainty: secondary sources. That stages
      recompute at the current weights is our choice.
    """
    return PipelineGradient()


def two_version_gradient(
    staged: StagedLoss, versions: StageVersions, batch: Any, key: jax.Array
) -> tuple[jax.Array, optax.Updates]:
    """Returns the loss and the gradient of a forward and a backward pass at two versions.

    Args:
      staged: the stages and their loss.
      versions: what the passes run at.
      batch: a micro-batch.
      key: stage i gets ``fold_in(key, i)`` in both passes.

    Returns:
      The loss at ``versions.forward``, and a tuple like ``versions.backward``.
    """
    x, pulls = batch, []
    pairs = zip(versions.forward, versions.backward, strict=True)
    for i, (stage, (stale, current)) in enumerate(zip(staged.stages, pairs, strict=True)):
        apply = functools.partial(_apply, stage.apply, jax.random.fold_in(key, i))
        pull: Callable
        if stale is None:  # one version for both passes: nothing to compute twice
            x, pull = jax.vjp(apply, current, x)
        else:
            x, pull = apply(stale, x), functools.partial(_pull_back, apply, current, x)
        pulls.append(pull)
    loss, pull_loss = jax.vjp(lambda outputs: staged.loss(outputs, batch), x)
    (cotangent,) = pull_loss(jnp.ones_like(loss))
    gradients = []
    for pull in reversed(pulls):
        update, cotangent = pull(cotangent)
        gradients.append(update)
    return loss, tuple(reversed(gradients))


def _apply(apply: Callable, key: jax.Array, params: Any, x: Any) -> Any:
    return apply(params, x, key)


def _pull_back(apply: Callable, params: Any, x: Any, cotangent: Any) -> tuple[Any, Any]:
    _, pull = jax.vjp(apply, params, x)
    return pull(cotangent)
