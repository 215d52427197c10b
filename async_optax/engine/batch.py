"""Batches: runs of one structure on one timeline, executed by one compiled program."""

import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from async_optax.engine.batch_program import CELLS, Layout, run_batch
from async_optax.engine.checks import (
    check_batches,
    check_functions,
    check_key,
    checked_optimizer,
)
from async_optax.engine.chunks import schedule_evaluations
from async_optax.engine.execution import cut_chunks
from async_optax.engine.memory import (
    MemoryUse,
    num_bytes,
    require_memory,
    temporary_bytes,
)
from async_optax.engine.placement import gathered, on_device, placed
from async_optax.engine.plan import compile_timeline
from async_optax.engine.problem import Problem
from async_optax.engine.processes import of_first_process
from async_optax.engine.progress import Progress, silent
from async_optax.engine.record import Recorder, resolve
from async_optax.engine.result import LaneChoice, Result, until_divergence
from async_optax.engine.run import Run
from async_optax.engine.shapes import likeness
from async_optax.engine.states import MAX_ARRIVALS, Chunk, Server
from async_optax.engine.worker import WorkerProgram, gradient
from async_optax.engine.worker_calls import keeps_state
from async_optax.timelines import Timeline
from async_optax.validation import require_choice, require_count, require_number


def cells_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns the mesh that shares cells out over devices, by default all there are."""
    devices = jax.devices() if devices is None else devices
    return Mesh(np.array(devices), (CELLS,))


class Batch:
    """Runs of one structure on one timeline, as one compiled program.

    Cell i is what :func:`async_optax.simulate` gives for problem, optimizer and key i, to
    rounding. The cells share the plan; numbers and data that are equal in all cells are passed
    once. A cell that diverges does not stop the others.

    Attributes:
      runs: one for each cell, and copies of the last so that each device has as many.

    Example:
      >>> import async_optax as ao, jax, jax.numpy as jnp
      >>> problem = ao.Problem(
      ...     init=lambda key: jnp.zeros(1),
      ...     loss=lambda x, batch, key: jnp.sum((x - batch) ** 2) / 2,
      ...     batch=lambda key, worker: jnp.ones(1),
      ... )
      >>> timeline = ao.Timeline.from_staleness([0, 1, 1])
      >>> optimizers = [ao.optimizers.sgd(rate) for rate in (0.1, 0.5)]
      >>> batch = Batch.prepare([problem] * 2, optimizers, timeline, [jax.random.key(0)] * 2)
      >>> [f"{result.params[0]:.2f}" for result in batch.execute()]
      ['0.29', '1.25']
    """

    def __init__(self, runs: Sequence[Run], lanes: int, strategy: str, mesh: Mesh | None):
        _check_alike(runs)
        self._num_cells = len(runs)
        if mesh is not None:  # each device takes as many: copies of the last cell fill up
            runs = [*runs, *[runs[-1]] * (-len(runs) % mesh.size)]
        self.runs, self._lanes, self._mesh = runs, lanes, mesh
        self._tried: Server | None = None  # left by the last trial, for the next one
        leaves, treedefs = zip(*(jax.tree.flatten(run.given) for run in runs), strict=True)
        columns = list(zip(*leaves, strict=True))
        is_shared = tuple(all(_same(column[0], x) for x in column[1:]) for column in columns)
        self._layout = Layout(runs[0].structures(lanes), treedefs[0], is_shared, strategy, mesh)
        same = list(zip(columns, is_shared, strict=True))
        self._shared = self._placed(
            [on_device(column[0]) for column, one in same if one], PartitionSpec()
        )
        self._own = self._placed([_stacked(column) for column, one in same if not one])

    @classmethod
    def prepare(
        cls,
        problems: Sequence[Problem],
        optimizers: Sequence[optax.GradientTransformation],
        timeline: Timeline,
        keys: Sequence[jax.Array],
        *,
        worker: WorkerProgram | None = None,
        lanes: int = 1,
        record: Sequence[str] | Mapping[str, Recorder] = ("loss",),
        evaluate_every: int | None = None,
        evaluate_at: Sequence[float] | None = None,
        strategy: str = "loop",
        mesh: Mesh | None = None,
    ) -> "Batch":
        """Checks the arguments and makes a batch.

        Args:
          problems: C problems of equal structure and shapes.
          optimizers: C optimizers, likewise.
          timeline: who computes on which version.
          keys: C typed keys.
          worker: the worker program; ``None`` is :func:`async_optax.engine.gradient`.
          lanes: width of a wave, >= 1.
          record: what to keep of each arrival beside the loss.
          evaluate_every: commits between evaluations; or
          evaluate_at: simulated times of evaluations.
          strategy: ``"loop"``: one cell after another; ``"vmap"``: side by side.
          mesh: devices that share the cells out, with one axis ``"cells"``: see
            :func:`cells_mesh`.

        Raises:
          TypeError: if an argument is of the wrong kind.
          ValueError: if the cells are not alike, data is streamed, or for a reason that
            :func:`async_optax.simulate` would name.
        """
        require_choice("strategy", strategy, ("loop", "vmap"))
        require_count("lanes", lanes)
        require_number("lanes", lanes, at_most=MAX_ARRIVALS)
        if not len(problems):
            raise ValueError("problems must not be empty")
        if not len(problems) == len(optimizers) == len(keys):
            raise ValueError(
                f"problems, optimizers and keys must be as many, got {len(problems)}, "
                f"{len(optimizers)} and {len(keys)}"
            )
        if mesh is not None and (not isinstance(mesh, Mesh) or mesh.axis_names != (CELLS,)):
            raise ValueError(f"mesh must be a mesh with one axis {CELLS!r}, got {mesh!r}")
        if not isinstance(timeline, Timeline):
            raise TypeError(f"timeline must be an async_optax.Timeline, got {timeline!r}")
        worker, recorders = gradient() if worker is None else worker, resolve(record)
        plan = compile_timeline(timeline, keeps_state(worker))
        evaluations = schedule_evaluations(plan, timeline.end_time, evaluate_every, evaluate_at)
        runs = []
        for problem, optimizer, key in zip(problems, optimizers, keys, strict=True):
            if not isinstance(problem, Problem):
                raise TypeError(f"problems must be of async_optax.Problem, got {problem!r}")
            check_key(key, lanes)
            if strategy == "vmap" and jax.random.key_impl(key) != "threefry2x32":
                raise ValueError(
                    f"keys of {jax.random.key_impl(key)} draw other numbers under vmap: use "
                    "strategy='loop', or jax.random.key(seed, impl='threefry2x32')"
                )
            shapes = check_functions(problem, optimizer, worker, recorders)
            optimizer = checked_optimizer(optimizer, problem, shapes, timeline)
            check_batches(problem, timeline)
            run = Run(
                problem,
                optimizer,
                plan,
                evaluations,
                key,
                worker,
                recorders,
                shapes,
                num_cells=len(problems),
            )
            runs.append(run)
        if runs[0].stream is not None:
            raise ValueError("streamed data cannot be batched: use simulate for each cell")
        return cls(runs, int(lanes), strategy, mesh)

    def execute(self, report: Progress = silent) -> list[Result]:
        """Runs to the end, or until all cells have diverged.

        Args:
          report: called with the arrivals done, and those of all cells.

        Returns:
          C results, in order; their ``memory`` is that of the whole batch.

        Raises:
          ValueError: if the batch cannot fit into memory.
        """
        memory = self.memory
        run, servers = self.runs[0], self._initial_servers()
        chunker = run.chunker(self._lanes)
        records = [np.zeros((self._num_cells, 0, run.num_recorders))]
        metrics = [np.zeros((self._num_cells, 0, run.num_metrics))]
        alive = np.ones(self._num_cells, bool)
        total = run.plan.num_arrivals * self._num_cells
        report(0, total)
        for chunk, span in cut_chunks(run, chunker, self._mesh):
            servers, chunk_records, chunk_metrics = self._call(servers, chunk)
            num_arrivals = span.last_arrival - span.first_arrival
            num_evaluated = span.last_evaluation - span.first_evaluation
            chunk_records, chunk_metrics = gathered((chunk_records, chunk_metrics))
            records.append(np.asarray(chunk_records)[: self._num_cells, :num_arrivals])
            metrics.append(np.asarray(chunk_metrics)[: self._num_cells, :num_evaluated])
            alive &= np.isfinite(records[-1][..., 0]).all(1)
            alive &= metrics[-1][..., 0].all(1)
            report(span.last_arrival * self._num_cells, total)
            if not alive.any():
                break
        return self._results(
            servers, np.concatenate(records, 1), np.concatenate(metrics, 1), memory
        )

    def seconds(self, num_arrivals: int) -> float:
        """Times a call on so many arrivals of each cell, in waves of full width.

        What it computes means nothing, and is thrown away. The first call compiles.

        Args:
          num_arrivals: at most ``MAX_ARRIVALS``.

        Raises:
          ValueError: if the batch cannot fit into memory.
        """
        _ = self.memory
        chunk = self.runs[0].chunker(self._lanes).trial(num_arrivals, self._lanes)
        if self._tried is None:  # making servers takes longer than a short call
            self._tried = self._initial_servers()
        servers = jax.block_until_ready(self._tried)
        started = time.perf_counter()
        self._tried, *_ = jax.block_until_ready(self._call(servers, chunk))
        return of_first_process(time.perf_counter() - started, self._mesh)

    def _call(self, servers: Server, chunk: Chunk) -> tuple[Server, jax.Array, jax.Array]:
        return run_batch(self._layout, self._shared, self._own, servers, chunk)

    def _initial_servers(self) -> Server:
        servers = [run.initial_server() for run in self.runs]
        return self._placed(jax.tree.map(lambda *leaves: jnp.stack(leaves), *servers))

    def _placed(self, tree: Any, spec: PartitionSpec | None = None) -> Any:
        if self._mesh is None:
            return tree
        return placed(self._mesh, tree, PartitionSpec(CELLS) if spec is None else spec)

    @functools.cached_property
    def memory(self) -> MemoryUse:
        """The predicted peak, of what each device holds.

        Raises:
          ValueError: if it cannot fit.
        """
        run, num_devices = self.runs[0], 1 if self._mesh is None else self._mesh.size
        cells = len(self.runs) // num_devices
        server = run.server_shapes
        use = MemoryUse(
            data=num_bytes(self._shared) + num_bytes(self._own) // num_devices,
            params=cells * num_bytes((server.params, server.opt_state)),
            slots=cells * num_bytes(server.slots),
            temporaries=0,
            workers=cells * num_bytes(server.workers),
        )
        device = next(iter(run.job_key.devices()))
        num_rows = cells * server.num_rows
        require = functools.partial(
            require_memory, device=device, num_rows=num_rows, mesh=self._mesh, resident=use.data
        )
        require(use)  # before compiling, as far as shapes tell
        place = None if self._mesh is None else NamedSharding(self._mesh, PartitionSpec(CELLS))
        servers = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((len(self.runs), *x.shape), x.dtype, sharding=place),
            server,
        )
        chunk = run.chunker(self._lanes).trial(1, 1)
        lowered = run_batch.lower(self._layout, self._shared, self._own, servers, chunk)
        use = dataclasses.replace(use, temporaries=temporary_bytes(lowered.compile()))
        require(use)
        return use

    def _results(
        self, servers: Server, records: np.ndarray, metrics: np.ndarray, memory: MemoryUse
    ) -> list[Result]:
        whole = gathered((servers.params, servers.opt_state, servers.workers))
        lanes = LaneChoice(self._lanes, "given")
        results = []
        for i, run in enumerate(self.runs[: self._num_cells]):
            columns = run.tables(records[i], metrics[i])
            tables = until_divergence(*columns, metrics[i, :, 0] > 0)
            params, state, workers = jax.tree.map(
                lambda x: x[i],  # noqa: B023
                whole,
            )
            slots = run.plan.num_slots
            results.append(Result(params, state, *tables, lanes, slots, memory, workers))
        return results


def _check_alike(runs: Sequence[Run]) -> None:
    first = _likeness(runs[0])
    for i, run in enumerate(runs):
        if _likeness(run) != first:
            raise ValueError(
                f"cell {i} has another structure or other shapes than cell 0: a batch has one"
            )


def _likeness(run: Run) -> Any:
    like = likeness((run.given, run.server_shapes))
    return run.structures(1), like, jax.random.key_impl(run.given[1])


def _same(first: Any, other: Any) -> bool:
    """Whether two leaves are equal to the bit."""
    if first is other:
        return True
    if isinstance(first, jax.Array) and jnp.issubdtype(first.dtype, jax.dtypes.prng_key):
        first, other = jax.random.key_data(first), jax.random.key_data(other)
    return np.asarray(first).tobytes() == np.asarray(other).tobytes()


def _stacked(leaves: Sequence[Any]) -> jax.Array:
    # Floats are weakly typed when traced, and stay so when stacked as JAX arrays.
    return jnp.stack([jnp.asarray(leaf) for leaf in leaves])
