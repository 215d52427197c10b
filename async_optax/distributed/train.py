"""Real asynchronous training: a server, worker processes, and a record of what happened."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike

from async_optax.data import Streamed
from async_optax.distributed.limits import Limits
from async_optax.distributed.live_view import live_view
from async_optax.distributed.messages import Setup, Status
from async_optax.distributed.metrics import metric_files
from async_optax.distributed.recording import TRACE_NAME, Recording
from async_optax.distributed.run_folder import checked_folder, header_of, next_epoch
from async_optax.distributed.session import ray_session
from async_optax.distributed.supervision import Resources, reported, supervise
from async_optax.distributed.trace_file import TraceWriter
from async_optax.engine import Problem, WorkerProgram, gradient
from async_optax.engine.checkpoint_files import import_orbax
from async_optax.engine.checks import check_functions, check_key, checked_slot_dtype
from async_optax.engine.fitting import nodes_with
from async_optax.engine.memory import num_bytes
from async_optax.engine.resuming import described
from async_optax.engine.shapes import Shapes
from async_optax.timelines import runtimes, simulate_timeline
from async_optax.timelines.protocols import Protocol
from async_optax.transforms import TrackStalenessState, require_gathering
from async_optax.validation import require_count, require_number, require_seed

_SHORT, _FEW = 1e-9, 8  # seconds per job and commits, of a look ahead


@dataclasses.dataclass(frozen=True, eq=False)
class TrainResult:
    """What :func:`train` returns.

    Attributes:
      params: the parameters at the end, NumPy arrays.
      recording: the whole run; see :func:`replay`.
      num_servers: how often a server was started in this call.
    """

    params: optax.Params
    recording: Recording
    num_servers: int


def train(
    problem: Problem,
    optimizer: optax.GradientTransformation,
    protocol: Protocol,
    num_workers: int,
    *,
    key: jax.Array,
    directory: str | os.PathLike[str],
    num_commits: int | None = None,
    max_time: float | None = None,
    worker: WorkerProgram | None = None,
    slot_dtype: DTypeLike | None = None,
    seed: int = 0,
    evaluate_every: int | None = None,
    extra_time: Callable[[int, int], float] | None = None,
    checkpoint_every: float | None = 60.0,
    limits: Limits | None = None,
    resources: Resources | None = None,
    address: str | None = None,
    progress: bool | Callable[[Status], None] = False,
    metrics: bool = False,
    note: Mapping[str, Any] | None = None,
) -> TrainResult:
    """Trains with worker processes that really compute, on Ray.

    A server process holds the parameters and the optimizer's state. Workers read a version, compute
    a job on it and send the result; what follows is decided by the protocol's policy, the very one
    that decides in :func:`async_optax.simulate_timeline`, and applied by the optimizer, with the
    same extra arguments as in :func:`async_optax.simulate`. Job n, in the order of handing out, has
    the key ``fold_in(job_key, n)``, where ``init_key, job_key = split(key)``.

    All that happens is appended to ``directory/trace.jsonl`` as it happens, so that
    :func:`replay` can compute the run again on one device.

    A worker whose process ends loses its job, and nothing else; it is started again. A server whose
    process ends goes on from its last checkpoint: commits after that are lost, and void in the
    trace. So does a call with the directory of a run that was cut off.

    Args:
      problem: what is trained; picklable by cloudpickle, as closures are.
      optimizer: a method of :mod:`async_optax.optimizers`, or any Optax transformation.
      protocol: one of :mod:`async_optax.protocols`.
      num_workers: number of worker processes, >= 1.
      key: a typed key, ``jax.random.key(seed)``.
      directory: of the run, made if need be: trace, checkpoints and metrics.
      num_commits: stop right after that many commits, >= 1; or
      max_time: stop after that many seconds, > 0, of the run's clock, which stands still while no
        server runs; under a protocol that gathers, with the next commit after that.
      worker: the worker program; ``None`` is :func:`async_optax.gradient`. See also
        :func:`compressed`.
      slot_dtype: floating-point dtype in which parameters travel to the workers, such as
        ``jnp.bfloat16``; ``None``: as they are.
      seed: of the protocol's random decisions.
      evaluate_every: commits between evaluations, in the server's process. Start and end are
        always evaluated.
      extra_time: ``extra_time(worker, job)`` returns seconds that a worker waits after computing,
        to make workers slower than they are; ``None``: no time.
      checkpoint_every: seconds between checkpoints, >= 0; ``None``: none, and a killed server ends
        the run.
      limits: what the run puts up with; see :class:`Limits`.
      resources: of each process; see :class:`Resources`.
      address: of a running Ray cluster; ``None``: the session that this process is connected to,
        or one of its own that listens on the loopback interface only.
      progress: show a live view, or call ``progress(status)`` a few times per second.
      metrics: write files for TensorBoard to ``directory/metrics``.
      note: a dictionary, JSON, that is kept in the trace's header.

    Returns:
      A :class:`TrainResult`.

    Raises:
      ImportError: if Ray, or what an option needs, is not installed.
      TypeError: if an argument is of the wrong kind.
      ValueError: if the problem's functions do not fit together, the optimizer or the protocol
        cannot be run by a server and workers, or the directory holds another run.
      RuntimeError: if the run stalls, or the server dies too often.
      TimeoutError: if something takes longer than its limit.
      OSError: if a disk or the object store is full.

    Example:
      A run takes seconds, as processes start::

        result = ao.distributed.train(
            problem, ao.optimizers.sgd(0.1), ao.protocols.asynchronous(), num_workers=4,
            key=jax.random.key(0), directory="runs/a", num_commits=1000,
        )
        again = ao.distributed.replay(problem, ao.optimizers.sgd(0.1), result.recording)

    References:
      Li et al., `Scaling distributed machine learning with the parameter server
      <https://www.usenix.org/conference/osdi14/technical-sessions/presentation/li_mu>`_, 2014.
      Moritz et al., `Ray <https://arxiv.org/abs/1712.05889>`_, 2018. Certainty: our reading; both
      describe systems, and nothing here depends on their details.
    """
    program = gradient() if worker is None else worker
    optimizer, shapes = _checked(problem, optimizer, protocol, num_workers, key, program, seed)
    _check_horizon(num_commits, max_time)
    if evaluate_every is not None:
        require_count("evaluate_every", evaluate_every)
        if problem.evaluate is None:
            raise ValueError("problem.evaluate is None: there is nothing to evaluate")
    if checkpoint_every is not None:
        require_number("checkpoint_every", checkpoint_every, at_least=0)
        import_orbax()
    if extra_time is not None and not callable(extra_time):
        raise TypeError(f"extra_time must be a function of worker and job, got {extra_time!r}")
    limits = _of_kind("limits", limits, Limits)
    resources = _of_kind("resources", resources, Resources)
    if not isinstance(metrics, bool):
        raise TypeError(f"metrics must be a boolean, got {metrics!r}")
    dtype = checked_slot_dtype(slot_dtype)
    folder = checked_folder(directory)
    setup = Setup(
        problem=problem,
        optimizer=optimizer,
        program=program,
        protocol=protocol,
        num_workers=num_workers,
        seed=seed,
        key_data=np.asarray(jax.random.key_data(key)),
        key_impl=str(jax.random.key_impl(key)),
        x64=jnp.result_type(float) == jnp.float64,
        served_like=shapes.served,
        sent_like=shapes.sent,
        slot_dtype=None if dtype is None else str(dtype),
        extra_time=extra_time,
        directory=str(folder),
        num_commits=num_commits,
        max_time=max_time,
        evaluate_every=evaluate_every,
        checkpoint_every=checkpoint_every,
        description=described(
            {
                "problem": problem,
                "optimizer": optimizer,
                "worker": program,
                "protocol": protocol,
                "num_workers": num_workers,
                "key": jax.random.key_data(key),
                "slot_dtype": str(dtype),
                "seed": seed,
            }
        ),
        limits=limits,
        platform=None if resources.gpus_per_worker else "cpu",
        threads=resources.threads_per_worker,
    )
    # In flight are a version for each worker and the newest, and each worker's update.
    store_bytes = (2 * num_workers + 2) * max(num_bytes(shapes.served), num_bytes(shapes.sent))
    num_cpus = resources.cpus_per_worker * num_workers + resources.server_cpus
    # Nothing is started, and no file written, before all is known to fit.
    first_epoch, header = next_epoch(folder, setup), header_of(setup, note)
    with (
        live_view(progress, num_commits, max_time) as show,
        metric_files(folder / "metrics" if metrics else None) as write,
        ray_session(address, int(np.ceil(num_cpus)) or 1, store_bytes) as ray,
    ):
        if not (folder / TRACE_NAME).exists():
            TraceWriter(folder / TRACE_NAME, header).close()
        final, num_servers = supervise(ray, setup, resources, first_epoch, reported([show, write]))
    return TrainResult(final["params"], Recording.load(folder), num_servers)


def _checked(
    problem: Problem,
    optimizer: optax.GradientTransformation,
    protocol: Protocol,
    num_workers: int,
    key: jax.Array,
    program: WorkerProgram,
    seed: int,
) -> tuple[optax.GradientTransformationExtraArgs, Shapes]:
    if hasattr(problem, "num_agents"):
        raise ValueError(
            "problem is one of many agents that talk to each other: there is no server in gossip; "
            "simulate it by ao.simulate"
        )
    if not isinstance(problem, Problem):
        raise TypeError(f"problem must be an async_optax.Problem, got {type(problem).__name__}")
    if isinstance(problem.batch, Streamed):
        raise ValueError(
            "problem.batch is streamed, from a source in this process: in a real run every worker "
            "draws its own batches, by a function batch(key, worker)"
        )
    if not callable(getattr(protocol, "policy", None)) or isinstance(protocol, type):
        raise TypeError(
            f"protocol must be a protocol such as protocols.asynchronous(), got {protocol!r}"
        )
    require_count("num_workers", num_workers)
    require_seed(seed)
    check_key(key, lanes=1)
    protocol.policy(num_workers, seed)  # raises if it cannot run with so many
    shapes = check_functions(problem, optimizer, program, {})
    state = shapes.state
    if isinstance(state, TrackStalenessState):
        raise ValueError("train tracks the staleness itself: pass the inner transformation")
    for attribute, reason in (
        (
            "serves_own_worker",
            "keeps a copy of the parameters per worker, which a worker that is "
            "started again could not have back",
        ),
        ("has_own_delays", "delays its updates itself, and real workers would add theirs"),
        ("stage_delays", "delays the stages of a pipeline, and real workers would add theirs"),
    ):
        if nodes_with(state, attribute):
            raise ValueError(f"the optimizer cannot run for real: it {reason}; use ao.simulate")
    sent: Any = jax.tree.structure(shapes.sent)
    if sent != jax.tree.structure(shapes.params):
        raise ValueError("the worker program must send updates like the parameters in a real run")
    if _gathers(protocol, num_workers, seed):
        require_gathering(state, shapes.params)
    return optax.with_extra_args_support(optimizer), shapes


def _gathers(protocol: Protocol, num_workers: int, seed: int) -> bool:
    """Whether several arrivals make up a commit, by a look at some commits of equal workers.

    A protocol that does so only later, or only on slower workers, is found out by the server.
    """
    timeline = simulate_timeline(
        protocol, runtimes.deterministic(_SHORT), num_workers, num_commits=_FEW, seed=seed
    )
    return not np.all(timeline.commit & (timeline.weight == 1) | ~timeline.accepted)


def _check_horizon(num_commits: int | None, max_time: float | None) -> None:
    if (num_commits is None) == (max_time is None):
        raise ValueError(
            f"give either num_commits or max_time, got num_commits={num_commits} and "
            f"max_time={max_time}"
        )
    if num_commits is not None:
        require_count("num_commits", num_commits)
    else:
        require_number("max_time", max_time, above=0)


def _of_kind(name: str, value: Any, kind: type) -> Any:
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind.__name__}, got {value!r}")
    return kind() if value is None else value
