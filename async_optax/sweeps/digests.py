"""Digests of what is computed: they tell whether two sweeps may share a dataset."""

import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from async_optax.engine import Problem, WorkerProgram, gradient
from async_optax.engine.recent import Recent
from async_optax.engine.traced_text import array_digest, traced_text, without_addresses
from async_optax.engine.worker_calls import call_worker, initial_state
from async_optax.timelines import Timeline
from async_optax.transforms import Structure, split_numbers

_TEXTS: Recent[bytes] = Recent()  # digests of traced programs, as the compiler keeps these


class Digests:
    """Digests of problems and optimizers: of what they trace to, and of their numbers.

    Equal digests mean the same computation; different ones, another program, data or number.
    They hold within one version of JAX, whose name they begin with.
    """

    def __init__(self, worker: WorkerProgram | None):
        self._worker = gradient() if worker is None else worker
        # With the arrays, lest another one take the address of one that is gone.
        self._arrays: dict[int, tuple[Any, bytes]] = {}

    def problem(self, problem: Problem) -> str:
        """Returns the digest of a problem under the sweep's worker program.

        Args:
          problem: a problem whose check has passed.

        Returns:
          The digest; empty if the worker program does not trace.
        """

        def compute(both: tuple[Problem, WorkerProgram], key: jax.Array) -> Any:
            problem, worker = both
            params = problem.init(key)
            metrics = problem.evaluate(params) if problem.evaluate is not None else {}
            state = initial_state(worker, problem, params)
            update, loss, state = call_worker(worker, problem, params, jnp.int32(0), key, state)
            return params, metrics, update, loss, *jax.tree.leaves(state)

        return self._digest(compute, (problem, self._worker), jax.random.key(0))

    def optimizer(self, optimizer: optax.GradientTransformation, problem: Problem) -> str:
        """Returns the digest of an optimizer on a problem's parameters.

        Args:
          optimizer: any gradient transformation.
          problem: gives the shapes.

        Returns:
          The digest; empty if the optimizer does not trace.
        """
        params = jax.eval_shape(problem.init, jax.random.key(0))

        def compute(optimizer: optax.GradientTransformation, params: Any) -> Any:
            state = optimizer.init(params)
            return optax.with_extra_args_support(optimizer).update(
                params,
                state,
                params,
                staleness=jnp.int32(0),
                stale_params=params,
                worker=jnp.int32(0),
                gradient_fn=Partial(_unchanged),
                commit=jnp.bool_(True),
                weight=jnp.ones([]),
            )

        return self._digest(compute, optimizer, params)

    def _digest(self, compute: Callable, tree: Any, argument: Any) -> str:
        try:
            numbers, structure = split_numbers(tree)
            text = self._text(compute, structure, numbers, argument)
        except (ValueError, TypeError):
            return ""  # its cells fail in the simulator's checks, with a message
        content = hashlib.sha256(text)
        for number in numbers:
            content.update(self._array(number))
        return f"{jax.__version__}:{content.hexdigest()[:16]}"

    def _text(
        self, compute: Callable, structure: Structure, numbers: tuple[Any, ...], argument: Any
    ) -> bytes:
        """The digest of a traced program: equal structures and shapes are traced once.

        What a function captures is read then and never again, as by the compiler.
        """
        shapes = [
            (jnp.shape(leaf), str(jnp.result_type(leaf)))
            for leaf in jax.tree.leaves((numbers, argument))
        ]
        settings = (
            jnp.result_type(float),
            str(jax.random.key_impl(jax.random.key(0))),
            str(jax.config.jax_default_matmul_precision),  # type: ignore[attr-defined]
        )
        treedef = jax.tree.structure(argument)
        seen = compute.__qualname__, structure, tuple(shapes), treedef, settings
        digest = _TEXTS.get(seen)
        if digest is None:

            def program(numbers: tuple[Any, ...], argument: Any) -> Any:
                return compute(structure.join(numbers), argument)

            closed, shape = jax.make_jaxpr(program, return_shape=True)(numbers, argument)
            text, constants = traced_text(closed)
            returned = without_addresses(str(jax.tree.structure(shape)))
            content = hashlib.sha256(f"{text}\n{returned}".encode())
            for constant in constants:
                content.update(array_digest(constant))
            digest = _TEXTS[seen] = content.digest()
        return digest

    def _array(self, array: Any) -> bytes:
        """The digest of an array: data that problems share is read once."""
        if id(array) not in self._arrays:
            self._arrays[id(array)] = array, array_digest(array)
        return self._arrays[id(array)][1]


def timeline_digest(timeline: Timeline) -> str:
    """Returns the digest of a timeline's order of events, whatever its unit of time.

    Args:
      timeline: the timeline.

    Returns:
      The digest.
    """
    content = hashlib.sha256()
    for column in ("worker", "read_version", "version", "weight", "accepted", "commit"):
        array = getattr(timeline, column)
        content.update(f"{array.dtype}{array.shape}".encode())
        content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()[:16]


def _unchanged(params: optax.Params) -> optax.Params:
    return params
