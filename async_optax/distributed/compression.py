"""Compression of what workers send, with error feedback kept at the worker."""

import dataclasses
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from async_optax.engine.problem import Problem
from async_optax.engine.worker import WorkerProgram, gradient
from async_optax.engine.worker_calls import call_worker, initial_state
from async_optax.validation import require_choice, require_number

_KINDS = ("bfloat16", "top", "threshold")


class CompressedState(NamedTuple):
    """What one worker keeps between its jobs.

    Attributes:
      residual: what was not sent so far, like the update; ``()`` without error feedback.
      inner_state: what the program itself keeps.
    """

    residual: Any
    inner_state: Any


@dataclasses.dataclass(frozen=True)
class _Compressed:
    program: WorkerProgram
    kind: str = dataclasses.field(metadata={"static": True})
    amount: Any
    error_feedback: bool = dataclasses.field(metadata={"static": True})

    @property
    def packed_as(self) -> str:
        """How what is sent is packed without loss."""
        return "bfloat16" if self.kind == "bfloat16" else "sparse"

    def init(self, problem: Problem, params: optax.Params) -> CompressedState:
        """Returns the state before a worker's first job: nothing is owed."""
        residual = jax.tree.map(jnp.zeros_like, params) if self.error_feedback else ()
        return CompressedState(residual, initial_state(self.program, problem, params))

    def __call__(
        self,
        problem: Problem,
        stale_params: optax.Params,
        worker: jax.Array,
        key: jax.Array,
        state: CompressedState,
    ) -> tuple[optax.Updates, jax.Array, CompressedState]:
        """Returns what is left of the update, the loss, and the state."""
        update, loss, inner_state = call_worker(
            self.program, problem, stale_params, worker, key, state.inner_state
        )
        if self.error_feedback:
            update = jax.tree.map(lambda g, r: g + r.astype(g.dtype), update, state.residual)
        sent = self._sent(update)
        residual = jax.tree.map(jnp.subtract, update, sent) if self.error_feedback else ()
        return sent, loss, CompressedState(residual, inner_state)

    def _sent(self, update: optax.Updates) -> optax.Updates:
        if self.kind == "bfloat16":
            return jax.tree.map(_rounded, update)
        if self.kind == "threshold":
            return jax.tree.map(lambda g: jnp.where(jnp.abs(g) >= self.amount, g, 0), update)
        return _largest(update, self.amount)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Compressed(_Compressed):
    """The program that :func:`compressed` returns, but for ``"top"``."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CompressedToTop(_Compressed):
    """The program that :func:`compressed` returns for ``"top"``: the share decides shapes."""

    amount: float = dataclasses.field(metadata={"static": True})


def compressed(
    program: WorkerProgram | None = None,
    *,
    kind: Literal["bfloat16", "top", "threshold"],
    amount: float | None = None,
    error_feedback: bool = True,
) -> Compressed | CompressedToTop:
    """A worker program that sends less, and sends later what it has left out.

    With g what ``program`` computes and e what the worker still owes (0 at first)::

        sent = C(g + e)
        e   <- g + e - sent

    C rounds to bfloat16 (``"bfloat16"``), keeps the ``ceil(amount * size)`` entries of largest
    magnitude of all parameters together (``"top"``), or those of magnitude >= ``amount``
    (``"threshold"``). It is a worker program like any other: :func:`async_optax.simulate` computes
    what compression does to training, and a real run with it is replayed exactly. Only a real run
    sends fewer bytes: 2 per number for bfloat16, otherwise a place (4) and the number for each
    that is not zero.

    Args:
      program: what computes the update; ``None`` is :func:`async_optax.gradient`.
      kind: ``"bfloat16"``, ``"top"`` or ``"threshold"``.
      amount: for ``"top"`` the share of entries, in (0, 1]; for ``"threshold"`` the least
        magnitude, > 0; not for ``"bfloat16"``.
      error_feedback: whether e is kept; otherwise it is always 0. It takes the memory of an
        update, at the worker.

    Returns:
      A worker program whose workers keep a state.

    Raises:
      TypeError: if ``error_feedback`` is not a boolean, or ``amount`` no number.
      ValueError: if ``kind`` is unknown, or ``amount`` missing, out of range or one too many.

    Example:
      >>> import async_optax as ao, jax, jax.numpy as jnp
      >>> problem = ao.Problem(
      ...     init=lambda key: jnp.zeros(4),
      ...     loss=lambda x, batch, key: jnp.sum((x - batch) ** 2) / 2,
      ...     batch=lambda key, worker: jnp.array([-1.0, -2.0, -4.0, -3.0]),
      ... )
      >>> program = compressed(kind="top", amount=0.5)
      >>> x, key = jnp.zeros(4), jax.random.key(0)
      >>> sent, _, state = program(problem, x, 0, key, program.init(problem, x))
      >>> print(sent)
      [0. 0. 4. 3.]
      >>> print(program(problem, x, 0, key, state)[0])  # what was owed is sent with the next
      [0. 4. 4. 0.]

    References:
      Seide et al., `1-bit stochastic gradient descent <https://www.microsoft.com/en-us/research/
      publication/1-bit-stochastic-gradient-descent-and-application-to-data-parallel-distributed-
      training-of-speech-dnns/>`_, 2014 (error feedback). Aji, Heafield, `Sparse communication for
      distributed gradient descent <https://arxiv.org/abs/1704.05021>`_, 2017 (the largest
      entries). Karimireddy et al., `Error feedback fixes SignSGD
      <https://arxiv.org/abs/1901.09847>`_, 2019 (the form above). Certainty: our reading.
    """
    require_choice("kind", kind, _KINDS)
    if not isinstance(error_feedback, bool):
        raise TypeError(f"error_feedback must be True or False, got {error_feedback!r}")
    if kind == "bfloat16":
        if amount is not None:
            raise ValueError(f"amount must be None for kind='bfloat16', got {amount}")
        amount = 0.0
    elif amount is None:
        raise ValueError(f"amount must be given for kind={kind!r}, got None")
    else:
        require_number("amount", amount, above=0, at_most=1 if kind == "top" else None)
    inner = gradient() if program is None else program
    made = CompressedToTop if kind == "top" else Compressed
    return made(inner, kind, float(amount), error_feedback)


def _rounded(x: jax.Array) -> jax.Array:
    """To bfloat16 and back: by bits, as the compiler may skip a conversion there and back."""
    if x.dtype == jnp.bfloat16:
        return x
    info = jnp.finfo(jnp.bfloat16)
    return lax.reduce_precision(x, exponent_bits=info.nexp, mantissa_bits=info.nmant)


def _largest(update: optax.Updates, share: float) -> optax.Updates:
    """Zero but for that share of all entries, the first of equals."""
    leaves, treedef = jax.tree.flatten(update)
    flat = jnp.concatenate([jnp.abs(leaf).astype(float).reshape(-1) for leaf in leaves])
    places = lax.top_k(flat, math.ceil(share * flat.size))[1]
    keep = jnp.zeros(flat.size, bool).at[places].set(True)
    kept, start = [], 0
    for leaf in leaves:
        mask = lax.dynamic_slice_in_dim(keep, start, leaf.size).reshape(leaf.shape)
        kept.append(jnp.where(mask, leaf, jnp.zeros_like(leaf)))
        start += leaf.size
    return jax.tree.unflatten(treedef, kept)
