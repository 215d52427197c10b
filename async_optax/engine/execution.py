"""The loop over chunks: arrivals in, records out, and saving in between."""

import contextlib
import time
from collections.abc import Generator

import numpy as np
from jax.sharding import Mesh

from async_optax.engine.chunks import Chunker, ChunkSpan
from async_optax.engine.feed import Feed
from async_optax.engine.processes import of_first_process
from async_optax.engine.progress import Progress
from async_optax.engine.resuming import Reached, Saver
from async_optax.engine.run import Run
from async_optax.engine.states import Chunk

_FIRST_CHUNK = 64  # arrivals; doubled while calls are short, so that progress shows early
_CHUNK_SECONDS = 0.5


def execute(run: Run, lanes: int, reached: Reached, saver: Saver, report: Progress) -> Reached:
    """Executes what is left of a run, chunk by chunk, until the end or until it diverges.

    Args:
      run: the run.
      lanes: width of its waves.
      reached: where to go on from; its server is donated.
      saver: saves what has been reached when that is due.
      report: called after each chunk with arrivals done and in all.

    Returns:
      What has been reached.
    """
    server, records, metrics = reached.server, [reached.records], [reached.metrics]
    with contextlib.closing(_chunks(run, run.chunker(lanes), reached)) as chunks:
        # Not the parameters between evaluations: where a run is found to diverge must not depend
        # on its chunks.
        while np.isfinite(records[-1][:, 0]).all() and metrics[-1][:, 0].all():
            if (ahead := next(chunks, None)) is None:
                break
            chunk, span = ahead
            server, chunk_records, chunk_metrics = run(lanes, server, chunk)
            num_evaluated = span.last_evaluation - span.first_evaluation
            records.append(np.asarray(chunk_records)[: span.last_arrival - span.first_arrival])
            metrics.append(np.asarray(chunk_metrics)[:num_evaluated])
            if saver.is_due():
                saver.save(Reached(server, np.concatenate(records), np.concatenate(metrics)))
            report(span.last_arrival, run.plan.num_arrivals)
    return Reached(server, np.concatenate(records), np.concatenate(metrics))


def _chunks(
    run: Run, chunker: Chunker, reached: Reached
) -> Generator[tuple[Chunk, ChunkSpan], None, None]:
    if run.stream is None:
        yield from cut_chunks(run, chunker, run.mesh, reached)
        return
    plan = run.plan
    with Feed(run.stream.source, run.stream.batch_keys, run.job_key, chunker.num_rows) as feed:

        def next_chunk() -> tuple[Chunk, ChunkSpan] | None:
            ahead = next(cut, None)
            if ahead is not None:
                arrivals = slice(ahead[1].first_arrival, ahead[1].last_arrival)
                feed.request(plan.job[arrivals], plan.worker[arrivals])
            return ahead

        cut = cut_chunks(run, chunker, run.mesh, reached)
        ahead = next_chunk()
        while ahead is not None:
            (chunk, span), ahead = ahead, next_chunk()  # loads while this one is executed
            yield chunk._replace(batches=feed.collect()), span


def cut_chunks(
    run: Run, chunker: Chunker, mesh: Mesh | None, reached: Reached | None = None
) -> Generator[tuple[Chunk, ChunkSpan], None, None]:
    """Cuts what is left of a run into chunks.

    The time from one to the next is taken for the time of the chunk: while it is short, chunks
    become longer.

    Args:
      run: the run.
      chunker: cuts its plan.
      mesh: where it is executed; processes that share it cut alike.
      reached: where to go on from, or ``None`` for the start.

    Yields:
      Each chunk and what it covers.
    """
    wave = evaluation = 0
    if reached is not None:
        wave, evaluation = chunker.wave_at(len(reached.records)), len(reached.metrics)
    budget = _FIRST_CHUNK
    while wave < chunker.num_waves or evaluation < len(run.evaluations.position):
        chunk, span, wave = chunker.chunk(wave, evaluation, budget)
        started = time.perf_counter()
        yield chunk, span
        if of_first_process(time.perf_counter() - started, mesh) < _CHUNK_SECONDS:
            budget = min(2 * budget, chunker.capacity)
        evaluation = span.last_evaluation
