"""Functions as code: what they compute, and which globals decide it."""

import dis
import functools
import hashlib
import pathlib
import types
from collections.abc import Iterator, Mapping
from typing import Any

_STANDARD_LIBRARY = pathlib.Path(dis.__file__).parent
_THIS_PACKAGE = pathlib.Path(__file__).parents[1]


def short_hash(content: str | memoryview | bytes) -> str:
    """The first 16 digits of SHA-256."""
    if isinstance(content, str):
        content = content.encode(errors="surrogatepass")
    return hashlib.sha256(content).hexdigest()[:16]


def hash_code(code: types.CodeType) -> str:
    """A hash of bytecode, constants and names; not of file names, lines and comments."""
    return short_hash(repr((code.co_code, code.co_names, _constant(code.co_consts))))


def _constant(value: Any) -> str:
    if isinstance(value, types.CodeType):
        return hash_code(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(_constant, value))})"
    if isinstance(value, frozenset):  # its order depends on the hash seed
        return f"{{{', '.join(sorted(map(_constant, value)))}}}"
    return f"{type(value).__name__} {value!r}"


@functools.cache
def is_installed(file_name: str) -> bool:
    """Whether code belongs to Python, to this package or to another installed one."""
    path = pathlib.Path(file_name)
    return (
        file_name.startswith("<frozen ")
        or not {"site-packages", "dist-packages"}.isdisjoint(path.parts)
        or path.is_relative_to(_THIS_PACKAGE)
        or path.is_relative_to(_STANDARD_LIBRARY)
    )


def globals_of(code: types.CodeType, namespace: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The globals that code names, and what it names of the user's own modules."""
    used = {step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL"}
    for name in sorted(used & namespace.keys()):
        value = namespace[name]
        if not isinstance(value, types.ModuleType):
            yield name, value
        elif not is_installed(getattr(value, "__file__", None) or "<frozen built-in>"):
            for attribute in sorted(vars(value).keys() & set(code.co_names)):
                yield f"{name}.{attribute}", vars(value)[attribute]
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from globals_of(constant, namespace)
