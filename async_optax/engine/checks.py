"""Checks of a run's arguments before anything is compiled, once for equal structures."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh
from jax.tree_util import Partial

from async_optax.data import Streamed
from async_optax.engine.fitting import nodes_with, require_fitting
from async_optax.engine.problem import Problem
from async_optax.engine.purity import check_purity
from async_optax.engine.recent import Recent
from async_optax.engine.record import Recorder, check_recorders
from async_optax.engine.shapes import Shapes, likeness
from async_optax.engine.worker import (
    Gradient,
    LocalSteps,
    LocalStepsKeepingState,
    WorkerProgram,
)
from async_optax.engine.worker_calls import check_worker
from async_optax.timelines import Timeline
from async_optax.transforms import (
    TrackStalenessState,
    require_gathering,
    served_params,
    serves_params,
    split_numbers,
)

_AT_PARAMS = Gradient, LocalSteps, LocalStepsKeepingState  # what they compute at must be like them

# What has been checked once: tracing it again would cost each run.
_FITTING: Recent[Any] = Recent()


def check_key(key: jax.Array, lanes: int | str) -> None:
    """Raises unless ``key`` is one typed key that waves of this width can use."""
    dtype = getattr(key, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key) or key.shape != ():
        raise TypeError(f"key must be one typed key, jax.random.key(seed); got {key!r}")
    if jax.random.key_impl(key) != "threefry2x32" and lanes != 1:
        raise ValueError(
            f"keys of {jax.random.key_impl(key)} draw other numbers under vmap: use lanes=1, or "
            "jax.random.key(seed, impl='threefry2x32')"
        )


def check_functions(
    problem: Problem,
    optimizer: optax.GradientTransformation,
    worker: WorkerProgram,
    recorders: Mapping[str, Recorder],
) -> Shapes:
    """Checks the user's functions against each other.

    Returns:
      The shapes of what they pass on.

    Raises:
      TypeError: if one is of the wrong kind.
      ValueError: if they do not fit together, or depend on more than their arguments.
    """
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            "optimizer must be a gradient transformation such as ao.optimizers.sgd(0.1), "
            f"got {optimizer!r}"
        )
    if not callable(worker):
        raise TypeError(f"worker must be a worker program such as gradient(), got {worker!r}")
    if isinstance(problem.batch, Streamed) and not hasattr(worker, "batch_keys"):
        raise TypeError(
            "worker must have a method batch_keys(key) to run on streamed data, as gradient() "
            f"and local_steps() have; got {worker!r}"
        )
    numbers, structure = split_numbers((problem, worker))
    fit: tuple = structure, likeness(numbers), jnp.result_type(float)
    if fit not in _FITTING:
        problem.check()
        check_purity(problem)
        _FITTING[fit] = None
    # Each time: nobody forbids that these shapes depend on numbers, such as the data of a problem.
    params = jax.eval_shape(lambda: problem.init(jax.random.key(0)))
    numbers, structure = split_numbers(optimizer)
    fit += (likeness(params), structure, likeness(numbers), tuple(recorders.items()))
    if fit not in _FITTING:
        state = jax.eval_shape(optimizer.init, params)
        served = jax.eval_shape(served_params, params, state)
        _check_program(worker, state)
        _check_chain(state)
        _check_of_agents(recorders, problem)
        sent = check_worker(worker, problem, params, served)
        check_recorders(recorders, params, served, sent)
        metrics = jax.eval_shape(problem.evaluate, params) if problem.evaluate else {}
        names = tuple(sorted(metrics))
        _FITTING[fit] = Shapes(params, state, served, not serves_params(state), sent, names)
    return _FITTING[fit]


def _check_program(worker: WorkerProgram, state: optax.OptState) -> None:
    """Raises if a program that computes at parameters would be served something else."""
    for node in nodes_with(state, "worker_program"):
        if isinstance(worker, _AT_PARAMS):
            raise ValueError(
                f"the worker program must be {node.worker_program} for this optimizer, which "
                f"serves workers something else than its parameters; got {type(worker).__name__}"
            )


def _check_chain(state: optax.OptState) -> None:
    """Raises if a chain has something before a transformation that takes workers' parameters."""
    parts = state if isinstance(state, tuple) else ()
    for place, part in enumerate(parts):
        found = nodes_with(part, "takes_copies")
        if found and place and not hasattr(state, "_fields"):
            raise ValueError(
                "optimizer: in an optax.chain what stands before easgd or eamsgd would change the "
                "parameters of workers, not their gradients: give it to the worker program, "
                "ao.gossip.elastic_steps(num_steps, gradient_transformation)"
            )
        if found and not hasattr(part, "takes_copies"):
            _check_chain(part)


def _check_of_agents(recorders: Mapping[str, Recorder], problem: Problem) -> None:
    """Raises if a recorder of agents would see parameters without their axis."""
    for name, record in recorders.items():
        if getattr(record, "is_of_agents", False) and not hasattr(problem, "num_agents"):
            raise ValueError(
                f"record[{name!r}] is for problems of many agents, ao.gossip.problem(...), got "
                f"{type(problem).__name__}"
            )


def check_mesh(mesh: Any) -> None:
    """Raises unless ``mesh`` is ``None``, or a mesh whose axes a run can share a wave over."""
    if mesh is None:
        return
    if not isinstance(mesh, Mesh):
        raise TypeError(f"mesh must be a jax.sharding.Mesh, jax.make_mesh(...), got {mesh!r}")
    if AxisType.Manual in mesh.axis_types:
        raise ValueError(f"mesh must have axes of type Auto or Explicit, got {mesh.axis_types}")


def checked_slot_dtype(slot_dtype: Any) -> jnp.dtype | None:
    """Returns a floating-point dtype or ``None``, or raises."""
    if slot_dtype is None:
        return None
    try:
        dtype = jnp.dtype(slot_dtype)
    except TypeError as error:
        raise TypeError(f"slot_dtype must be a floating-point dtype, got {slot_dtype!r}") from error
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"slot_dtype must be a floating-point dtype, got {slot_dtype!r}")
    return dtype


def checked_optimizer(
    optimizer: optax.GradientTransformation, problem: Problem, shapes: Shapes, timeline: Timeline
) -> optax.GradientTransformationExtraArgs:
    """Returns the optimizer, which takes extra arguments, or raises if it cannot run here.

    Raises:
      ValueError: if it does not gather where the timeline does, has too few workers, serves
        workers copies of their own that others would read, is for other timelines (see
        :func:`async_optax.engine.fitting.require_fitting`), or tracks the staleness itself.
    """
    optimizer = optax.with_extra_args_support(optimizer)
    if isinstance(shapes.state, TrackStalenessState):
        raise ValueError("simulate tracks the staleness itself: pass the inner transformation")
    require_fitting(shapes.state, problem, timeline)
    accepted_in_full = np.all(timeline.commit & (timeline.weight == 1) | ~timeline.accepted)
    if not accepted_in_full:
        require_gathering(shapes.state, shapes.params)
    _check_workers(optimizer, shapes, timeline, gathers=not accepted_in_full)
    return optimizer


def check_batches(problem: Problem, timeline: Timeline) -> None:
    """Lets ``problem.batch`` see the highest worker's index concretely: in the run it is traced.

    Raises:
      ValueError: if there is no data for it.
    """
    last_worker: Any = np.int32(timeline.worker.max(initial=0))
    numbers, structure = split_numbers(problem.batch)
    fit = structure, tuple(jnp.shape(x) for x in numbers), int(last_worker)
    if fit in _FITTING:
        return
    try:
        jax.eval_shape(lambda key: problem.batch(key, last_worker), jax.random.key(0))
    except ValueError as error:
        count = timeline.num_workers
        raise ValueError(f"problem.batch, on a timeline of {count} workers: {error}") from error
    _FITTING[fit] = None


def _check_workers(
    optimizer: optax.GradientTransformationExtraArgs,
    shapes: Shapes,
    timeline: Timeline,
    gathers: bool,
) -> None:
    """Lets the optimizer see the highest worker's index concretely: in the run it is traced."""
    last_worker = np.int32(timeline.worker.max(initial=0))
    leaves, treedef = jax.tree.flatten((shapes.params, shapes.sent))
    structure = split_numbers(optimizer)[1], treedef, tuple((x.shape, x.dtype) for x in leaves)
    fit = structure, int(last_worker), gathers, jnp.result_type(float)
    if fit in _FITTING:
        return

    def update(params: optax.Params, served: Any, sent: optax.Updates) -> Any:
        extra_args = {
            "staleness": jnp.int32(0),
            "stale_params": served,
            "worker": last_worker,
            "gradient_fn": Partial(_unchanged),
        }
        if gathers:
            extra_args |= {"commit": jnp.bool_(True), "weight": jnp.ones([])}
        return optimizer.update(sent, optimizer.init(params), params, **extra_args)

    try:
        jax.eval_shape(update, shapes.params, shapes.served, shapes.sent)
    except ValueError as error:
        count = timeline.num_workers
        raise ValueError(f"optimizer, on a timeline of {count} workers: {error}") from error
    _FITTING[fit] = None


def _unchanged(params: optax.Params) -> optax.Params:
    return params
