"""Each next character of a text, as a problem."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from async_optax.data import uniform_rows
from async_optax.data.sampling import Rows, require_rows
from async_optax.engine import Problem
from async_optax.validation import require_count
from experiments.datasets import Text
from experiments.models.evaluation import in_batches, sum_over
from experiments.models.initialisation import initialiser
from experiments.models.linen import nn


def num_windows(text: Text, context: int, stride: int = 1) -> int:
    """Returns the number of training windows: what partitions of a text are partitions of.

    Args:
      text: the text.
      context: characters that are predicted in a window, >= 1.
      stride: characters between the starts of windows, >= 1.

    Raises:
      ValueError: if the text is too short for one.
    """
    require_count("context", context)
    require_count("stride", stride)
    shortest = min(len(text.train), len(text.validation))
    if shortest <= context:
        raise ValueError(f"context must be below the text's {shortest} characters, got {context}")
    return (len(text.train) - context - 1) // stride + 1


def language_problem(
    module: nn.Module,
    text: Text,
    *,
    context: int,
    batch_size: int | None = None,
    rows: Rows | None = None,
    stride: int = 1,
    num_validated: int | None = None,
    evaluation_batch: int = 64,
) -> Problem:
    """Predicts each next character of windows of a text with a model.

    Window i begins at character ``i * stride``; the first ``context`` of its characters are given,
    and those that follow each of them are predicted. The loss is the mean cross-entropy.

    Args:
      module: an LSTM, a transformer, or any module ``(tokens, deterministic) -> logits``.
      text: the data, held on the device.
      context: characters that are predicted in a window.
      batch_size: windows per gradient, drawn uniformly; or
      rows: which windows a job draws, of the ``num_windows(text, context, stride)`` there are:
        ``partition_rows`` of :mod:`async_optax.data` for workers with texts of their own.
      stride: characters between the starts of windows; ``context`` for windows without overlap.
      num_validated: windows that ``evaluate`` sees, evenly spread over the validation text;
        ``None``: those that follow each other without a gap.
      evaluation_batch: windows that are computed at a time.

    Returns:
      A problem; ``evaluate`` returns ``perplexity`` per character and ``test_loss``, its logarithm.

    Raises:
      ValueError: if an argument is out of range, or both or neither of batch size and rows are
        given.
    """
    number = num_windows(text, context, stride)
    if (rows is None) == (batch_size is None):
        raise ValueError(f"give batch_size or rows, and not both: got {batch_size} and {rows}")
    rows = uniform_rows(number, batch_size) if rows is None else rows
    require_rows(rows, number)
    if len(text.alphabet) > module.vocabulary_size:
        raise ValueError(
            f"vocabulary_size={module.vocabulary_size} of the module is below the alphabet's "
            f"{len(text.alphabet)}"
        )
    last = len(text.validation) - context - 1
    if num_validated is None:
        starts = np.arange(0, last + 1, context)
    else:
        require_count("num_validated", num_validated)
        starts = np.linspace(0, last, num_validated).astype(np.int32)
    windows = text.validation[starts[:, np.newaxis] + np.arange(context + 1)[np.newaxis]]
    example = jax.ShapeDtypeStruct((1, context), jnp.int32)
    return Problem(
        init=initialiser(module, (example,)),
        loss=Partial(_Loss(module)),
        batch=Partial(_Windows(context, stride), jnp.asarray(text.train), rows),
        evaluate=Partial(_Evaluate(module), *in_batches(windows, evaluation_batch)),
    )


@dataclasses.dataclass(frozen=True)
class _Windows:
    context: int
    stride: int

    def __call__(
        self, characters: jax.Array, rows: Rows, key: jax.Array, worker: jax.Array
    ) -> jax.Array:
        starts = rows(key, worker) * self.stride
        places = starts[:, jnp.newaxis] + jnp.arange(self.context + 1)[jnp.newaxis]
        return characters[places]


def _losses(module: nn.Module, params: Any, windows: jax.Array, key: jax.Array | None) -> jax.Array:
    windows = windows.astype(jnp.int32)
    rngs = None if key is None else {"dropout": key}
    given = windows[:, :-1]
    logits = module.apply({"params": params}, given, deterministic=key is None, rngs=rngs)
    return optax.softmax_cross_entropy_with_integer_labels(logits, windows[:, 1:])


@dataclasses.dataclass(frozen=True)
class _Loss:
    module: nn.Module

    def __call__(self, params: Any, batch: jax.Array, key: jax.Array) -> jax.Array:
        return _losses(self.module, params, batch, key).mean()


@dataclasses.dataclass(frozen=True)
class _Evaluate:
    module: nn.Module

    def __call__(self, windows: jax.Array, counts: jax.Array, params: Any) -> dict[str, jax.Array]:
        def sums(batch: jax.Array, count: jax.Array) -> jax.Array:
            return jnp.sum(_losses(self.module, params, batch, None).mean(1) * count)

        loss = sum_over(sums, windows, counts) / jnp.sum(counts)
        return {"perplexity": jnp.exp(loss), "test_loss": loss}
