"""A run: its plan, the arguments of its compiled program, and its tables."""

import dataclasses
import functools
import hashlib
import time
from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from async_optax.engine.chunks import Chunker, Evaluations
from async_optax.engine.lanes import choose_lanes
from async_optax.engine.memory import MemoryUse, num_bytes, require_memory, temporary_bytes
from async_optax.engine.placement import on_device, placed
from async_optax.engine.plan import Plan
from async_optax.engine.problem import Problem
from async_optax.engine.processes import of_first_process
from async_optax.engine.program import run_chunk
from async_optax.engine.recent import Recent
from async_optax.engine.record import Recorder
from async_optax.engine.result import LaneChoice
from async_optax.engine.shapes import Shapes, likeness
from async_optax.engine.states import MAX_ARRIVALS, Chunk, Numbers, Server, Structures
from async_optax.engine.stream import Stream
from async_optax.engine.traced_text import program_digest
from async_optax.engine.worker import WorkerProgram
from async_optax.engine.worker_calls import initial_state
from async_optax.transforms import served_params, split_numbers

# Memory that slots may waste so that other seeds compile nothing, of all runs held at once.
_SPARE_BYTES = 1 << 26

_SERVERS: Recent[Server] = Recent()  # shapes, by what decides them
_TEMPORARIES: Recent[int] = Recent()  # bytes, by what the compiler saw


class Run:
    """Everything about a run but its state, and what does not change from chunk to chunk."""

    def __init__(
        self,
        problem: Problem,
        optimizer: optax.GradientTransformationExtraArgs,
        plan: Plan,
        evaluations: Evaluations,
        key: jax.Array,
        worker: WorkerProgram,
        recorders: dict[str, Recorder],
        shapes: Shapes,
        *,
        slot_dtype: jnp.dtype | None = None,
        mesh: Mesh | None = None,
        num_cells: int = 1,
    ):
        self.plan = plan
        self.evaluations = evaluations
        self.stream = Stream.of(problem, worker, key)
        self._problem, self._optimizer, self._worker = problem, optimizer, worker
        self._slot_dtype = slot_dtype
        self._num_cells = num_cells  # runs that are held in memory at once
        self.mesh = mesh
        self._init_key, job_key = jax.random.split(key)
        problem_numbers, problem_structure = split_numbers(problem)
        optimizer_numbers, optimizer_structure = split_numbers(optimizer)
        worker_numbers, worker_structure = split_numbers(worker)
        self.given = Numbers(problem_numbers, optimizer_numbers, worker_numbers), job_key
        self._structures = Structures(
            problem_structure,
            optimizer_structure,
            worker_structure,
            tuple(recorders.items()),
            lanes=1,
            commits_every_arrival=plan.commits_every_arrival,
            one_version=plan.num_slots == 1,
            always_fresh=plan.always_fresh and shapes.serves_current and slot_dtype is None,
            mesh=mesh,
        )
        self._passed = shapes

    @functools.cached_property
    def numbers(self) -> Numbers:
        """What was split from the structures, on the devices, once for all chunks."""
        numbers = jax.tree.map(on_device, self.given[0])
        return numbers if self.mesh is None else placed(self.mesh, numbers)

    @functools.cached_property
    def job_key(self) -> jax.Array:
        """Job i has the key ``fold_in(job_key, i)``."""
        return self._placed(self.given[1])

    @property
    def num_recorders(self) -> int:
        """Number of columns that are recorded per arrival."""
        return len(self._structures.recorders)

    @property
    def num_metrics(self) -> int:
        """Number of columns per evaluation: whether the parameters are finite, and the metrics."""
        return 1 + len(self._passed.metrics)

    def structures(self, lanes: int) -> Structures:
        """What is static about the compiled program."""
        return dataclasses.replace(self._structures, lanes=lanes)

    def __call__(self, lanes: int, server: Server, chunk: Chunk) -> tuple[Server, Any, Any]:
        """Executes a chunk; the server is donated."""
        structures = self.structures(lanes)
        return run_chunk(structures, self.numbers, server, self._placed(chunk), self.job_key)

    def chunker(self, lanes: int) -> Chunker:
        """Cuts the plan for waves of this width."""
        capacity = MAX_ARRIVALS if self.stream is None else self.stream.capacity(lanes)
        return Chunker(self.plan, lanes, self.evaluations, capacity)

    @functools.cached_property
    def server_shapes(self) -> Server:
        """Shapes, dtypes and, on a mesh, places of the server's arrays."""
        passed = self._passed
        rows = self._num_rows(num_bytes(passed.served)), self.plan.num_workers
        like = likeness((self.given, passed.params, passed.served)), jnp.result_type(float)
        seen = self._structures, rows, like, self._slot_dtype
        server = _SERVERS.get(seen)
        if server is None:
            server = _SERVERS[seen] = jax.eval_shape(self._server)
        place = None if self.mesh is None else NamedSharding(self.mesh, PartitionSpec())
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), server
        )

    def traced_digest(self) -> str:
        """A digest of what the user's functions compute, whatever the lanes and the mesh.

        It is of the traces that the run is compiled from: what the functions have read of classes,
        modules and the environment is in them. Numbers and data that are arguments are not.
        """
        structures = dataclasses.replace(self._structures, lanes=1, mesh=None)
        numbers, key = jax.eval_shape(lambda given: given, self.given)
        server = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), self.server_shapes)
        chunk = self._trial(1, 1, 1, allocates=False)
        programs = [
            run_chunk.trace(structures, numbers, server, chunk, key).jaxpr,
            jax.make_jaxpr(lambda: self._server())(),  # not a trace that JAX remembers
        ]
        if self.stream is not None:
            rows = self.stream.source.rows
            programs.append(jax.make_jaxpr(lambda *args: rows(*args))(self.given[1], np.int32(0)))
        return hashlib.sha256(b"".join(map(program_digest, programs))).hexdigest()[:16]

    def initial_server(self) -> Server:
        """The state before the first arrival: version 0 in every slot, if there are any."""
        return self._placed(self._server())

    def _server(self) -> Server:
        params = jax.tree.map(_owned, self._problem.init(self._init_key))
        opt_state = jax.tree.map(_owned, self._optimizer.init(params))
        served = served_params(params, opt_state)
        slots: Any = ()
        if not self._structures.always_fresh:
            num_rows = self._num_rows(num_bytes(served))
            slots = _in_every_row(narrowed(served, self._slot_dtype), num_rows)
        workers = jax.tree.map(_owned, initial_state(self._worker, self._problem, served))
        if jax.tree.leaves(workers):
            workers = _in_every_row(workers, self.plan.num_workers)
        return Server(params, opt_state, slots, workers)

    def _num_rows(self, num_bytes: int) -> int:
        """Rows of the slot buffer: a shape, so seeds should agree on it where that is cheap."""
        plan = self.plan
        spare = plan.num_workers + 1 - plan.num_rows
        shared = plan.num_slots > 1 and self._num_cells * spare * num_bytes <= _SPARE_BYTES
        return max(plan.num_rows, plan.num_workers + 1) if shared else plan.num_rows

    def _placed(self, tree: Any) -> Any:
        return tree if self.mesh is None else placed(self.mesh, tree)

    @property
    def _device(self) -> jax.Device:
        mesh = self.mesh
        return mesh.local_devices[0] if mesh else next(iter(self.job_key.devices()))

    def choose_lanes(self, lanes: int | str, saved_lanes: int | None = None) -> LaneChoice:
        """Returns the width of the waves: that of the checkpoint, as given, or measured.

        Raises:
          ValueError: if it is out of range, or no multiple of the devices of the mesh.
        """
        if saved_lanes is not None:
            if self.mesh is not None and saved_lanes % self.mesh.size:
                raise ValueError(
                    f"the checkpoint was saved with lanes={saved_lanes}, which {self.mesh.size} "
                    "devices cannot share: use a mesh whose size divides it"
                )
            instead = "" if lanes in ("auto", saved_lanes) else f", instead of {lanes}"
            return LaneChoice(saved_lanes, f"that of the checkpoint{instead}")
        setting = self._structures, self._shapes, self._device.device_kind, jnp.result_type(float)
        return choose_lanes(
            lanes,
            self.plan.num_arrivals,
            lambda width: self.plan.num_arrivals / self.chunker(width).num_waves,
            self._seconds_per_wave,
            max_lanes=MAX_ARRIVALS,
            setting=setting,
            multiple=1 if self.mesh is None else self.mesh.size,
        )

    @property
    def _shapes(self) -> Hashable:
        leaves = jax.tree.leaves((self.numbers, self.server_shapes))
        return tuple((jnp.shape(x), jnp.result_type(x)) for x in leaves)

    def require_memory(self, lanes: int | None = None) -> MemoryUse:
        """Predicts the peak before anything is allocated.

        Args:
          lanes: width of the waves; ``None``: as far as shapes tell, without compiling.

        Raises:
          ValueError: if it cannot fit.
        """
        server = self.server_shapes
        chunk = self._trial(1 if lanes is None else lanes, 1, 1, allocates=False)
        use = MemoryUse(
            data=num_bytes((self.given, chunk)) + num_bytes(chunk.batches),  # and the next chunk's
            params=num_bytes((server.params, server.opt_state)),
            slots=num_bytes(server.slots),
            temporaries=0,
            workers=num_bytes(server.workers),
        )
        if lanes is not None:
            seen = self.structures(lanes), self._shapes, jnp.result_type(float), self._device
            temporaries = _TEMPORARIES.get(seen)
            if temporaries is None:
                arguments = self.structures(lanes), self.numbers, server, chunk, self.job_key
                compiled = run_chunk.lower(*arguments).compile()  # the run finds it compiled
                temporaries = _TEMPORARIES[seen] = temporary_bytes(compiled)
            use = dataclasses.replace(use, temporaries=temporaries)
        resident = self._resident_bytes
        require_memory(use, self._device, server.num_rows, self.mesh, resident=resident)
        return use

    @property
    def _resident_bytes(self) -> int:
        """Bytes of data that lie on each device already."""
        if "numbers" in self.__dict__:
            return num_bytes(self.numbers)
        leaves = jax.tree.leaves(self.given) if self.mesh is None else []
        return num_bytes([x for x in leaves if isinstance(x, jax.Array)])

    def _seconds_per_wave(self, lanes: int, num_arrivals: int, arrivals_per_wave: int) -> float:
        """Times a call on waves of given length; what they compute is thrown away."""
        chunk = self._trial(lanes, num_arrivals, arrivals_per_wave)
        num_waves = -(-num_arrivals // arrivals_per_wave)
        server = self.initial_server()
        jax.block_until_ready(server)
        started = time.perf_counter()
        jax.block_until_ready(self(lanes, server, chunk))
        return of_first_process((time.perf_counter() - started) / num_waves, self.mesh)

    def _trial(
        self, lanes: int, num_arrivals: int, arrivals_per_wave: int, *, allocates: bool = True
    ) -> Chunk:
        chunk = self.chunker(lanes).trial(num_arrivals, arrivals_per_wave)
        if self.stream is None:
            return chunk
        batches = self.stream.shapes(len(chunk.integers))
        if allocates:
            batches = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), batches)
        return chunk._replace(batches=batches)

    def tables(
        self, records: np.ndarray, metrics: np.ndarray
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Puts what was recorded beside versions and times."""
        plan, evaluations = self.plan, self.evaluations
        known = {name: getattr(plan, name) for name in ("job", "worker", "staleness")}
        known |= {"version": plan.version, "time": plan.time}
        arrivals = {name: column[: len(records)] for name, column in known.items()}
        recorders = enumerate(name for name, _ in self._structures.recorders)
        arrivals |= {name: records[:, i] for i, name in recorders}
        evaluated = {
            "version": evaluations.version[: len(metrics)],
            "time": evaluations.time[: len(metrics)],
        }
        evaluated |= {name: metrics[:, 1 + i] for i, name in enumerate(self._passed.metrics)}
        return arrivals, evaluated


def narrowed(served: Any, dtype: jnp.dtype | None) -> Any:
    """Returns what workers are served in a narrower dtype; ``None``: as it is.

    Integers and single numbers that go with the parameters, such as a rate, stay: they take no
    memory, and would mean something else.
    """
    if dtype is None:
        return served

    def narrow(x: jax.Array) -> jax.Array:
        is_wider = jnp.issubdtype(x.dtype, jnp.floating) and dtype.itemsize < x.dtype.itemsize
        return x.astype(dtype) if x.ndim and is_wider else x

    return jax.tree.map(narrow, served)


@functools.partial(jax.jit, static_argnames="num_rows")
def _in_every_row(tree: Any, num_rows: int) -> Any:
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (num_rows, *x.shape)), tree)


def _owned(x: Any) -> jax.Array:
    """A copy that the compiled program may take over, strongly typed as what it returns."""
    x = jnp.asarray(x)
    return jnp.array(x, dtype=x.dtype, copy=True)
