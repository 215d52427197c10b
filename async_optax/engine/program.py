"""The compiled program: a chunk of waves, applied to the server's state in one call."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import PartitionSpec

from async_optax.engine.problem import Problem
from async_optax.engine.states import MAX_SEGMENTS, Chunk, Numbers, Server, Structures
from async_optax.engine.waves import wave_runner


def execute_chunk(
    structures: Structures, numbers: Numbers, server: Server, chunk: Chunk, key: jax.Array
) -> tuple[Server, jax.Array, jax.Array]:
    """Executes a chunk, within a trace.

    Args:
      structures: the static part.
      numbers: what was split from it.
      server: the state before.
      chunk: what to execute.
      key: the run's key; job i uses ``fold_in(key, i)``.

    Returns:
      The state after, the records ``[capacity, num_recorders]`` and the evaluations
      ``[MAX_SEGMENTS, 1 + num_metrics]``, of which the first column tells by 1 that the
      parameters are finite; rows beyond the chunk's content are zero.
    """
    problem = structures.problem.join(numbers.problem)
    run_wave = wave_runner(structures, numbers, chunk, key)
    evaluate = _packed_evaluation(problem)

    def run_segment(segment: jax.Array, carry: Any) -> Any:
        first_wave, server, records, evaluations = carry
        last_wave = chunk.segment_ends[segment]
        server, records = lax.fori_loop(first_wave, last_wave, run_wave, (server, records))
        metrics = lax.cond(
            chunk.evaluates[segment],
            evaluate,
            lambda params: jnp.zeros(evaluations.shape[1:]),
            server.params,
        )
        return last_wave, server, records, evaluations.at[segment].set(metrics)

    num_columns = jax.eval_shape(evaluate, server.params).shape[0]
    records = jnp.zeros((len(chunk.wave_starts) - 1, len(structures.recorders)))
    evaluations = jnp.zeros((MAX_SEGMENTS, num_columns))
    start = (jnp.int32(0), server, records, evaluations)
    _, server, records, evaluations = lax.fori_loop(0, chunk.num_segments, run_segment, start)
    return server, records, evaluations


@functools.partial(jax.jit, static_argnames="structures", donate_argnames="server")
def run_chunk(
    structures: Structures, numbers: Numbers, server: Server, chunk: Chunk, key: jax.Array
) -> tuple[Server, jax.Array, jax.Array]:
    """:func:`execute_chunk`, compiled; the server is donated.

    On a mesh every device holds the server and applies every arrival, in the same order: only
    the gradients of a wave are shared out.
    """
    execute = functools.partial(execute_chunk, structures)
    if structures.mesh is not None:
        everywhere = PartitionSpec()
        execute = jax.shard_map(
            execute,
            mesh=structures.mesh,
            in_specs=everywhere,
            out_specs=everywhere,
            check_vma=False,
        )
    return execute(numbers, server, chunk, key)


def _packed_evaluation(problem: Problem) -> Callable[[optax.Params], jax.Array]:
    def evaluate(params: optax.Params) -> jax.Array:
        metrics = problem.evaluate(params) if problem.evaluate is not None else {}
        values = [jnp.asarray(metrics[name], float) for name in sorted(metrics)]
        finite = jnp.stack([_is_finite(x) for x in jax.tree.leaves(params)]).all()
        return jnp.stack([jnp.asarray(finite, float), *values])

    return evaluate


def _is_finite(x: jax.Array) -> jax.Array:
    """Whether all numbers are finite; by their extremes, as a mask would be another array."""
    return jnp.isfinite(jnp.min(x, initial=0)) & jnp.isfinite(jnp.max(x, initial=0))
