"""The simulator: a problem, an optimizer and a timeline, executed on one device."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from async_optax.engine.chunks import Chunker, Evaluations, schedule_evaluations
from async_optax.engine.lanes import choose_lanes
from async_optax.engine.plan import Plan, compile_timeline
from async_optax.engine.problem import Problem
from async_optax.engine.program import MAX_ARRIVALS, Server, Structures, run_chunk
from async_optax.engine.progress import Progress, reporting
from async_optax.engine.record import Recorder, check_recorders, resolve
from async_optax.engine.result import Result, find_divergence
from async_optax.engine.worker import WorkerProgram, check_worker, gradient
from async_optax.timelines import Timeline
from async_optax.transforms import TrackStalenessState, require_gathering, split_numbers

_FIRST_CHUNK = 64  # arrivals; doubled while calls are short, so that progress shows early
_CHUNK_SECONDS = 0.5
_SPARE_BYTES = 1 << 26  # memory that slots may waste so that other seeds compile nothing


def simulate(
    problem: Problem,
    optimizer: optax.GradientTransformation,
    timeline: Timeline,
    *,
    key: jax.Array,
    worker: WorkerProgram | None = None,
    lanes: int | str = "auto",
    record: Sequence[str] | Mapping[str, Recorder] = ("loss",),
    evaluate_every: int | None = None,
    evaluate_at: Sequence[float] | None = None,
    progress: bool | Progress = False,
) -> Result:
    """Trains on a timeline: exactly what its server and workers would have computed.

    Row i of the timeline is a job that read the parameters s of its ``read_version``. Its
    gradient is taken at s, with randomness from ``fold_in(job_key, i)``, where ``init_key,
    job_key = split(key)``; the optimizer sees it at the row's place in the order, with the
    row's ``staleness``, ``stale_params = s``, ``worker``, ``gradient_fn`` (the job's gradient at
    any parameters, free unless called), and, unless every arrival commits in full, ``commit``
    and ``weight``. If the optimizer looks ahead, s is what
    :func:`async_optax.transforms.served_params` gave at the commit; evaluations are of the
    server's own parameters. Results do not depend on lanes or chunks beyond rounding,
    and runs on one timeline with one key see the same batches and noise whatever the method.

    The program is compiled once for all problems, optimizers and timelines of equal
    structure and shapes: numbers of sweepable factories, seeds and the length of the timeline
    are arguments of the compiled program.

    Args:
      problem: what is trained.
      optimizer: a method of :mod:`async_optax.optimizers`, or any Optax transformation.
      timeline: who computes on which version.
      key: a typed key, ``jax.random.key(seed)``. It initialises the parameters and seeds
        the jobs.
      worker: the worker program; ``None`` is :func:`async_optax.engine.gradient`.
      lanes: width of a wave, or ``"auto"`` to measure which is fastest. Keys of another
        generator than threefry need 1: theirs draws other numbers under ``vmap``.
      record: what to keep of each arrival beside the loss; see
        :mod:`async_optax.engine.record`.
      evaluate_every: commits between evaluations; or
      evaluate_at: simulated times of evaluations. Start and end are always evaluated.
      progress: draw a bar, or call ``progress(done, total)``.

    Returns:
      A :class:`Result`. A run that diverges stops, and says where.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if the problem's functions do not fit together, the timeline breaks an
        invariant, or the optimizer cannot run under a protocol that gathers arrivals.

    Example:
      >>> import async_optax as ao, jax, jax.numpy as jnp
      >>> problem = ao.Problem(
      ...     init=lambda key: jnp.array([4.0]),
      ...     loss=lambda x, batch, key: jnp.sum((x - batch) ** 2) / 2,
      ...     batch=lambda key, worker: jnp.array([1.0]),
      ...     evaluate=lambda x: {"error": jnp.abs(x - 1.0)[0]},
      ... )
      >>> timeline = ao.simulate_timeline(
      ...     ao.protocols.asynchronous(), ao.runtimes.two_speed(4.0), 4, num_commits=40
      ... )
      >>> result = ao.simulate(
      ...     problem, ao.optimizers.sgd(0.1), timeline, key=jax.random.key(0)
      ... )
      >>> bool(result.evaluations["error"][-1] < 0.1)
      True
    """
    if not isinstance(problem, Problem):
        raise TypeError(f"problem must be an async_optax.Problem, got {type(problem).__name__}")
    if not isinstance(timeline, Timeline):
        raise TypeError(f"timeline must be an async_optax.Timeline, got {type(timeline).__name__}")
    _check_key(key, lanes)
    if problem.evaluate is None and not (evaluate_every is None and evaluate_at is None):
        raise ValueError("problem.evaluate is None: there is nothing to evaluate")
    worker, recorders = gradient() if worker is None else worker, resolve(record)
    _check_fit(problem, worker, recorders)
    optimizer = _checked_optimizer(optimizer, problem, timeline)
    plan = compile_timeline(timeline)
    evaluations = schedule_evaluations(plan, timeline.end_time, evaluate_every, evaluate_at)
    run = _Run(problem, optimizer, plan, evaluations, key, worker, recorders)
    choice = choose_lanes(
        lanes, plan.num_arrivals, run.mean_wave, run.seconds_per_arrival, MAX_ARRIVALS
    )

    server, chunker = run.initial_server(), Chunker(plan, choice.lanes, evaluations)
    wave = evaluation = 0
    budget = _FIRST_CHUNK
    records: list[np.ndarray] = []
    metrics: list[np.ndarray] = []
    with reporting(progress) as report:
        while wave < chunker.num_waves or evaluation < len(evaluations.position):
            chunk, span, wave = chunker.chunk(wave, evaluation, budget)
            started = time.perf_counter()
            server, chunk_records, chunk_metrics = run(choice.lanes, server, chunk)
            num_evaluated = span.last_evaluation - span.first_evaluation
            records.append(np.asarray(chunk_records)[: span.last_arrival - span.first_arrival])
            metrics.append(np.asarray(chunk_metrics)[:num_evaluated])
            evaluation = span.last_evaluation
            if time.perf_counter() - started < _CHUNK_SECONDS:
                budget = min(2 * budget, MAX_ARRIVALS)
            report(span.last_arrival, plan.num_arrivals)
            # Not the parameters: where a run is found to diverge must not depend on its chunks.
            if not (np.isfinite(records[-1][:, 0]).all() and np.isfinite(metrics[-1]).all()):
                break
    arrivals, evaluated = run.tables(np.concatenate(records), np.concatenate(metrics))
    diverged = find_divergence(arrivals, evaluated, bool(_is_finite(server)))
    if diverged:
        arrivals, evaluated = _before(arrivals, diverged.time), _before(evaluated, diverged.time)
    return Result(
        params=server.params,
        opt_state=server.opt_state,
        arrivals=arrivals,
        evaluations=evaluated,
        diverged=diverged,
        lanes=choice,
        num_slots=plan.num_slots,
    )


def _owned(x: Any) -> jax.Array:
    """A copy that the compiled program may take over, strongly typed as what it returns."""
    x = jnp.asarray(x)
    return jnp.array(x, dtype=x.dtype, copy=True)


@jax.jit
def _is_finite(server: Server) -> jax.Array:
    return jnp.all(jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(server.params)]))


def _before(table: Mapping[str, np.ndarray], time: float) -> dict[str, np.ndarray]:
    return {name: column[table["time"] < time] for name, column in table.items()}


def _check_key(key: jax.Array, lanes: int | str) -> None:
    dtype = getattr(key, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key) or key.shape != ():
        raise TypeError(f"key must be one typed key, jax.random.key(seed); got {key!r}")
    if jax.random.key_impl(key) != "threefry2x32" and lanes != 1:
        raise ValueError(
            f"keys of {jax.random.key_impl(key)} draw other numbers under vmap: use lanes=1, or "
            "jax.random.key(seed, impl='threefry2x32')"
        )


_FITTING: set[Any] = set()  # what has been checked once: tracing it again would cost each run


def _check_fit(problem: Problem, worker: WorkerProgram, recorders: dict[str, Recorder]) -> None:
    """Checks the user's functions against each other, once for equal structures and shapes."""
    if not callable(worker):
        raise TypeError(f"worker must be a worker program such as gradient(), got {worker!r}")
    numbers, structure = split_numbers(problem)
    shapes = tuple((jnp.shape(number), jnp.result_type(number)) for number in numbers)
    fit = structure, shapes, worker, tuple(recorders.items()), jnp.result_type(float)
    if fit in _FITTING:
        return
    problem.check()
    check_worker(worker, problem)
    check_recorders(recorders, jax.eval_shape(problem.init, jax.random.key(0)))
    _FITTING.add(fit)


def _checked_optimizer(
    optimizer: optax.GradientTransformation, problem: Problem, timeline: Timeline
) -> optax.GradientTransformationExtraArgs:
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            "optimizer must be a gradient transformation such as ao.optimizers.sgd(0.1), "
            f"got {optimizer!r}"
        )
    optimizer = optax.with_extra_args_support(optimizer)
    params = jax.eval_shape(lambda: problem.init(jax.random.key(0)))
    state = jax.eval_shape(optimizer.init, params)
    if isinstance(state, TrackStalenessState):
        raise ValueError("simulate tracks the staleness itself: pass the inner transformation")
    accepted_in_full = np.all(timeline.commit & (timeline.weight == 1) | ~timeline.accepted)
    if not accepted_in_full:
        require_gathering(state, params)
    _check_workers(optimizer, params, timeline, gathers=not accepted_in_full)
    return optimizer


def _check_workers(
    optimizer: optax.GradientTransformationExtraArgs,
    params: optax.Params,
    timeline: Timeline,
    gathers: bool,
) -> None:
    """Lets the optimizer see the highest worker's index concretely: in the run it is traced."""
    last_worker = np.int32(timeline.worker.max(initial=0))
    shapes = tuple((x.shape, x.dtype) for x in jax.tree.leaves(params))
    structure = split_numbers(optimizer)[1], jax.tree.structure(params), shapes
    fit = structure, int(last_worker), gathers, jnp.result_type(float)
    if fit in _FITTING:
        return

    def update(params: optax.Params) -> Any:
        extra_args = {
            "staleness": jnp.int32(0),
            "stale_params": params,
            "worker": last_worker,
            "gradient_fn": Partial(_unchanged),
        }
        if gathers:
            extra_args |= {"commit": jnp.bool_(True), "weight": jnp.ones([])}
        return optimizer.update(params, optimizer.init(params), params, **extra_args)

    try:
        jax.eval_shape(update, params)
    except ValueError as error:
        count = timeline.num_workers
        raise ValueError(f"optimizer, on a timeline of {count} workers: {error}") from error
    _FITTING.add(fit)


def _unchanged(params: optax.Params) -> optax.Params:
    return params


class _Run:
    """The arguments of the compiled program that stay the same throughout a run."""

    def __init__(
        self,
        problem: Problem,
        optimizer: optax.GradientTransformationExtraArgs,
        plan: Plan,
        evaluations: Evaluations,
        key: jax.Array,
        worker: WorkerProgram,
        recorders: dict[str, Recorder],
    ):
        self._plan = plan
        self._evaluations = evaluations
        self._init_key, self._job_key = jax.random.split(key)
        self._problem_numbers, self._problem = split_numbers(problem)
        self._optimizer_numbers, self._optimizer = split_numbers(optimizer)
        self._worker = worker
        self._recorders = recorders
        self._metric_names = []
        if problem.evaluate is not None:
            params = jax.eval_shape(problem.init, key)
            self._metric_names = sorted(jax.eval_shape(problem.evaluate, params))

    def __call__(self, lanes: int, server: Server, chunk: Any) -> tuple[Server, Any, Any]:
        structures = Structures(
            self._problem,
            self._optimizer,
            self._worker,
            tuple(self._recorders.items()),
            lanes,
            self._plan.commits_every_arrival,
        )
        numbers = self._problem_numbers, self._optimizer_numbers
        return run_chunk(structures, *numbers, server, chunk, self._job_key)

    def initial_server(self) -> Server:
        """The state before the first arrival: version 0 in every slot."""
        problem = self._problem.join(self._problem_numbers)
        optimizer = self._optimizer.join(self._optimizer_numbers)
        params = jax.tree.map(_owned, problem.init(self._init_key))
        rows = self._num_rows(sum(x.nbytes for x in jax.tree.leaves(params)))
        slots = jax.tree.map(lambda x: jnp.repeat(x[None], rows, axis=0), params)
        return Server(params, jax.tree.map(_owned, optimizer.init(params)), slots)

    def _num_rows(self, num_bytes: int) -> int:
        """Rows of the slot buffer: a shape, so seeds should agree on it where that is cheap."""
        plan = self._plan
        spare = plan.num_workers + 1 - plan.num_rows
        shared = plan.num_slots > 1 and spare * num_bytes <= _SPARE_BYTES
        return max(plan.num_rows, plan.num_workers + 1) if shared else plan.num_rows

    def mean_wave(self, lanes: int) -> float:
        """Mean number of arrivals per wave."""
        return self._plan.num_arrivals / Chunker(self._plan, lanes, self._evaluations).num_waves

    def seconds_per_arrival(self, lanes: int, num_arrivals: int) -> float:
        """Times a call on arrivals from the middle of the plan, where waves are typical."""
        chunker = Chunker(self._plan, lanes, self._evaluations)
        wave = chunker.num_waves // 2
        chunk, span, _ = chunker.chunk(wave, len(self._evaluations.position), num_arrivals)
        server = self.initial_server()
        jax.block_until_ready(server)
        started = time.perf_counter()
        jax.block_until_ready(self(lanes, server, chunk))
        return (time.perf_counter() - started) / (span.last_arrival - span.first_arrival)

    def tables(
        self, records: np.ndarray, metrics: np.ndarray
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Puts what was recorded beside versions and times."""
        plan, evaluations = self._plan, self._evaluations
        known = {name: getattr(plan, name) for name in ("job", "worker", "staleness")}
        known |= {"version": plan.version, "time": plan.time}
        arrivals = {name: column[: len(records)] for name, column in known.items()}
        arrivals |= {name: records[:, i] for i, name in enumerate(self._recorders)}
        evaluated = {
            "version": evaluations.version[: len(metrics)],
            "time": evaluations.time[: len(metrics)],
        }
        evaluated |= {name: metrics[:, i] for i, name in enumerate(self._metric_names)}
        return arrivals, evaluated
