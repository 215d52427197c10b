"""A traced program as text, with all constants that it holds, however deep."""

import hashlib
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

_ADDRESS = re.compile(r"0x[0-9a-fA-F]+")


def traced_text(closed: ClosedJaxpr) -> tuple[str, list[Any]]:
    """Returns what a program does, and the arrays that it does it with.

    The text shows operations, shapes and numbers, but of arrays only that there are some. Those
    that a function under ``jax.jit`` captures belong to that function's own program within the
    program: these are searched too.

    Args:
      closed: what ``jax.make_jaxpr`` returns.

    Returns:
      The text, without memory addresses, and the constants in the order in which they are found:
      programs of equal texts and constants compute the same.

    Example:
      >>> captured = jnp.arange(3.0)
      >>> inner = jax.jit(lambda x: x * captured)
      >>> _, constants = traced_text(jax.make_jaxpr(lambda x: inner(x))(1.0))
      >>> [constant.tolist() for constant in map(np.asarray, constants)]
      [[0.0, 1.0, 2.0]]
    """
    constants: list[Any] = []
    _collect(closed, constants, set())
    return without_addresses(str(closed.jaxpr)), constants


def without_addresses(text: str) -> str:
    """Returns a text without the memory addresses in it, which differ between processes."""
    return _ADDRESS.sub("", text)


def program_digest(closed: ClosedJaxpr) -> bytes:
    """Returns the SHA-256 of a program's text and constants: equal in all processes."""
    text, constants = traced_text(closed)
    content = hashlib.sha256(text.encode())
    for constant in constants:
        content.update(array_digest(constant))
    return content.digest()


def array_digest(array: Any) -> bytes:
    """Returns the SHA-256 of an array's dtype, shape and bytes; keys are those of their data."""
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    array = np.asarray(array)
    content = hashlib.sha256(f"{array.dtype}{array.shape}".encode())
    content.update(np.ascontiguousarray(array).tobytes())
    return content.digest()


def _collect(program: ClosedJaxpr | Jaxpr, constants: list[Any], seen: set[int]) -> None:
    """Adds the constants of a program and of those within it, each once."""
    if id(program) in seen:
        return
    seen.add(id(program))
    if isinstance(program, ClosedJaxpr):
        constants.extend(program.consts)
        program = program.jaxpr
    for equation in program.eqns:
        # Numbers are in the text; should arrays ever be literals, they are not.
        values = (x.val for x in equation.invars if isinstance(x, Literal))
        constants.extend(value for value in values if np.ndim(value))
        for inner in _programs(equation.params.values()):
            _collect(inner, constants, seen)


def _programs(values: Any) -> Iterator[ClosedJaxpr | Jaxpr]:
    for value in values:
        if isinstance(value, ClosedJaxpr | Jaxpr):
            yield value
        elif isinstance(value, tuple | list):
            yield from _programs(value)
        elif isinstance(value, dict):
            yield from _programs(value.values())
