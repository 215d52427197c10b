"""Whether a problem's functions depend on their arguments alone."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from async_optax.data import Streamed
from async_optax.engine.problem import Problem
from async_optax.engine.traced_text import traced_text

_HARMLESS = re.compile("Debug|InternalMutableArray")
_Jitted: Any = type(jax.jit(lambda: None))


def check_purity(problem: Problem) -> None:
    """Raises if a function of the problem has state or side effects, as far as a trace shows.

    Each function is traced twice. A program that differs, or a captured array that does, came
    from Python state, such as an iterator or a NumPy generator: compiled, it would be drawn
    once and stay the same in every job. State is not seen in a function under ``jax.jit`` that
    is called inside and made outside: JAX traces it once. Side effects (``io_callback``) cannot
    be kept when jobs are computed together. Printing with ``jax.debug`` is allowed, and so are
    references (``jax.new_ref``) that are made inside.

    Args:
      problem: its functions fit together.

    Raises:
      ValueError: naming the function.
    """
    key = jax.random.key(0)
    worker = jnp.int32(0)
    params = jax.eval_shape(problem.init, key)
    batch = jax.eval_shape(problem.batch, key, worker)
    calls: dict[str, tuple[Callable | None, tuple[Any, ...]]] = {
        "init": (problem.init, (key,)),
        "batch": (problem.batch, (key, worker)),
        "loss": (problem.loss, (params, batch, key)),
        "noise": (problem.noise, (key, params)),
        "evaluate": (problem.evaluate, (params,)),
    }
    if isinstance(problem.batch, Streamed):
        del calls["batch"]  # a callback by design, which a run replaces
    for name, (function, args) in calls.items():
        if function is None:
            continue
        require_pure(f"problem.{name}", *(traced(function, *args)[0] for _ in range(2)))


def traced(function: Callable, *args: Any) -> tuple[Any, Any]:
    """Returns what a function traces to, anew in each call, and the shapes that it returns."""
    # A new function each time: a trace must not come from JAX's cache.
    function = _unjitted(function)
    return jax.make_jaxpr(lambda *args: function(*args), return_shape=True)(*args)


def require_pure(name: str, *traces: Any) -> None:
    """Raises ``ValueError`` if traces of one function differ, or if it has side effects."""
    first = traces[0]
    if not all(_equal(first, other) for other in traces[1:]):
        raise ValueError(
            f"{name} depends on Python state: two traces of it differ. Compiled, it would repeat "
            "one of them for ever; draw from the key, and index data by it"
        )
    kinds = sorted({type(effect).__name__ for effect in first.effects})
    effects = [kind for kind in kinds if not _HARMLESS.search(kind)]
    if effects:
        raise ValueError(
            f"{name} has side effects ({', '.join(effects)}): jobs are computed together and in "
            "another order; return what you need, or record it"
        )


def _unjitted(function: Callable) -> Callable:
    if isinstance(function, Partial):
        return Partial(_unjitted(function.func), *function.args, **function.keywords)
    return _unjitted(function.__wrapped__) if isinstance(function, _Jitted) else function


def _equal(first: Any, second: Any) -> bool:
    (text, constants), (other, others) = traced_text(first), traced_text(second)
    return (text, len(constants)) == (other, len(others)) and all(
        a is b or _same_values(a, b) for a, b in zip(constants, others, strict=True)
    )


def _same_values(a: Any, b: Any) -> bool:
    dtype = jnp.result_type(a)
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
    may_be_nan = bool(jnp.issubdtype(dtype, jnp.inexact))
    return np.array_equal(np.asarray(a), np.asarray(b), equal_nan=may_be_nan)
