"""Functions as code: what they compute, and which globals decide it."""

import dis
import functools
import hashlib
import pathlib
import sys
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
    """The globals that code names, and what it names of the user's own modules.

    Of a module, all that code names anywhere counts, in the modules within it too, whether it is
    a global or imported where it is used.
    """
    steps = list(dis.get_instructions(code))
    used = {step.argval for step in steps if step.opname == "LOAD_GLOBAL"}
    imported = {step.argval for step in steps if step.opname == "IMPORT_NAME"}
    values = {name: sys.modules[name] for name in imported & sys.modules.keys()}
    values |= {name: namespace[name] for name in used & namespace.keys()}
    for name in sorted(values):
        if isinstance(values[name], types.ModuleType):
            yield from attributes_of(name, values[name], code)
        else:
            yield name, values[name]
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from globals_of(constant, namespace)


def attributes_of(
    name: str, module: types.ModuleType, code: types.CodeType
) -> Iterator[tuple[str, Any]]:
    """What code names of a module, and of those within it, unless they are installed ones."""
    found, modules = {}, [(name, module)]
    seen = set()
    while modules:
        name, module = modules.pop(0)
        if id(module) in seen or is_installed_module(module):
            continue
        seen.add(id(module))
        for attribute in sorted(vars(module).keys() & set(code.co_names)):
            value = vars(module)[attribute]
            if isinstance(value, types.ModuleType):
                modules.append((f"{name}.{attribute}", value))
            else:
                found[f"{name}.{attribute}"] = value
    yield from found.items()


def is_installed_module(module: types.ModuleType | None) -> bool:
    """Whether a module is not the user's own."""
    if module is None or module.__name__ == "__main__":
        return False
    folders = getattr(module, "__path__", ())  # a folder without __init__.py has no file
    file_name = getattr(module, "__file__", None) or next(iter(folders), "<frozen built-in>")
    return is_installed(file_name)
