"""The simulator: a problem, an optimizer and a timeline, executed exactly."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import optax
from jax.sharding import Mesh
from jax.typing import DTypeLike

from async_optax.engine.checkpoints import Checkpointing
from async_optax.engine.checks import (
    check_batches,
    check_functions,
    check_key,
    check_mesh,
    checked_optimizer,
    checked_slot_dtype,
)
from async_optax.engine.chunks import schedule_evaluations
from async_optax.engine.execution import execute
from async_optax.engine.lanes import check_lanes
from async_optax.engine.plan import compile_timeline
from async_optax.engine.problem import Problem
from async_optax.engine.processes import require_same_run
from async_optax.engine.progress import Progress, reporting
from async_optax.engine.record import Recorder, resolve
from async_optax.engine.result import Result, until_divergence
from async_optax.engine.resuming import Reached, described, saving
from async_optax.engine.run import Run
from async_optax.engine.states import MAX_ARRIVALS
from async_optax.engine.worker import WorkerProgram, gradient
from async_optax.engine.worker_calls import keeps_state
from async_optax.timelines import Timeline


def simulate(
    problem: Problem,
    optimizer: optax.GradientTransformation,
    timeline: Timeline,
    *,
    key: jax.Array,
    worker: WorkerProgram | None = None,
    lanes: int | str = "auto",
    mesh: Mesh | None = None,
    slot_dtype: DTypeLike | None = None,
    record: Sequence[str] | Mapping[str, Recorder] = ("loss",),
    evaluate_every: int | None = None,
    evaluate_at: Sequence[float] | None = None,
    checkpoint: Checkpointing | None = None,
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
      worker: the worker program; ``None`` is :func:`async_optax.engine.gradient`. If its workers
        keep a state between their jobs, no wave has two jobs of one worker.
      lanes: width of a wave, or ``"auto"`` to measure which is fastest, once for a problem, its
        shapes and the device. Keys of another generator than threefry need 1: theirs draws
        other numbers under ``vmap``.
      mesh: devices that share the lanes of a wave, such as ``jax.make_mesh((8,), ("lanes",))``,
        of one process or several; every device holds the server. ``None``: one device.
      slot_dtype: floating-point dtype in which live versions are kept, and hence what workers
        read, such as ``jnp.bfloat16``; wider parameters are rounded, but for single numbers.
        ``None``: as they are.
      record: what to keep of each arrival beside the loss; see
        :mod:`async_optax.engine.record`.
      evaluate_every: commits between evaluations; or
      evaluate_at: simulated times of evaluations. Start and end are always evaluated.
      checkpoint: where and how often the run is saved. If the folder holds a checkpoint of
        this run, it goes on from there, bit for bit.
      progress: draw a bar, or call ``progress(done, total)``.

    Returns:
      A :class:`Result`. A run whose losses or parameters are no longer finite stops, and says
      where it diverged; metrics may be anything.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if the problem's functions do not fit together or have state, the timeline
        breaks an invariant, the optimizer cannot run under a protocol that gathers arrivals,
        the run cannot fit into memory, or the checkpoint is of another run.
      OSError: if a checkpoint cannot be written; earlier ones are intact.

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
    check_key(key, lanes)
    if problem.evaluate is None and not (evaluate_every is None and evaluate_at is None):
        raise ValueError("problem.evaluate is None: there is nothing to evaluate")
    worker, recorders = gradient() if worker is None else worker, resolve(record)
    shapes = check_functions(problem, optimizer, worker, recorders)
    check_mesh(mesh)
    check_lanes(lanes, MAX_ARRIVALS, 1 if mesh is None else mesh.size)
    slot_dtype = checked_slot_dtype(slot_dtype)
    optimizer = checked_optimizer(optimizer, problem, shapes, timeline)
    check_batches(problem, timeline)
    plan = compile_timeline(timeline, keeps_state(worker))
    evaluations = schedule_evaluations(plan, timeline.end_time, evaluate_every, evaluate_at)
    run = Run(
        problem,
        optimizer,
        plan,
        evaluations,
        key,
        worker,
        recorders,
        shapes,
        slot_dtype=slot_dtype,
        mesh=mesh,
    )
    config: dict[str, Any] = {
        "problem": problem,
        "optimizer": optimizer,
        "worker": worker,
        "record": recorders,
        "timeline": timeline,
        "key": jax.random.key_data(key),
        "evaluations": evaluations,
        "slot_dtype": str(slot_dtype),
    }
    shared = mesh is not None and mesh.is_multi_process
    description = described(config) if shared or checkpoint is not None else {}
    if checkpoint is not None:
        description["what the functions compute"] = f"sha256 {run.traced_digest()}"
    require_same_run(description | {"lanes": str(lanes), "checkpoint": repr(checkpoint)}, mesh)
    run.require_memory()
    with saving(checkpoint, run.server_shapes, description) as saver, reporting(progress) as report:
        choice = run.choose_lanes(lanes, saver.lanes)
        saver.lanes = choice.lanes
        ended = saver.restored is not None and len(saver.restored.records) == plan.num_arrivals
        memory = run.require_memory(None if ended else choice.lanes)
        reached = saver.restored or Reached.at_start(run)
        report(len(reached.records), plan.num_arrivals)
        reached = execute(run, choice.lanes, reached, saver, report)
        saver.save(reached)
    whole = run.tables(reached.records, reached.metrics)
    tables = until_divergence(*whole, reached.metrics[:, 0] > 0)
    server, slots = reached.server, plan.num_slots
    return Result(server.params, server.opt_state, *tables, choice, slots, memory, server.workers)
