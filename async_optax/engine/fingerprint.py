"""Descriptions of what decides a run's result: equal for equal runs in different processes."""

import collections
import dataclasses
import enum
import functools
import inspect
import logging
import os
import re
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import PyTreeDef

from async_optax.engine.bytecode import (
    attributes_of,
    globals_of,
    hash_code,
    is_installed,
    is_installed_module,
    short_hash,
)
from async_optax.transforms.sweepable import Rebuilt

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")
_LONGEST = 80  # characters of a text, or entries of a container; beyond it only a hash is kept
_SHOWN = 60  # characters of a text in a message
_MOST = 2  # differences shown of one top-level name
_HASHED = re.compile(r" (?:code|sha256) [0-9a-f]+")
_ARRAY = re.compile(r"\w+\[\d")
_PLAIN = bool | int | float | complex | str | bytes | None
_CONTAINERS = tuple | list | set | frozenset | collections.deque | Mapping
_DATA = _PLAIN | _CONTAINERS | np.ndarray | np.generic | jax.Array | enum.Enum
_WRAPPERS = ("jaxlib.", "functools._lru_cache_wrapper")  # types of what they return


def describe(name: str, value: Any) -> dict[str, str]:
    """Describes a value as text, part by part, down to its numbers, data and code.

    Numbers are their ``repr``; arrays their dtype, shape and a hash of their bytes; functions
    their name and a hash of their bytecode, and what they capture: closures, defaults and,
    unless an installed package defines them, the globals they use, the attributes of modules, and
    the code and plain data of the classes.
    Dataclasses, tuples, mappings, ``Partial`` nodes and other objects are described by their
    parts, but for the fields that a dataclass names in ``undescribed_fields``: those decide how
    fast it works, and nothing of the result. What an installed package or another Python
    computes differently is not seen: keep their versions beside the description.

    Args:
      name: the prefix of all names.
      value: anything that a run is made of: a problem, an optimizer, a timeline, a key.

    Returns:
      Descriptions by name, such as ``optimizer.learning_rate``. They hold no memory addresses
      and do not depend on the hash seed.

    Raises:
      TypeError: if ``name`` is not a string, or a part of ``value`` is traced.

    Example:
      >>> import async_optax as ao
      >>> description = describe("optimizer", ao.optimizers.clipped_sgd(0.1, max_norm=2))
      >>> description["optimizer.learning_rate"], description["optimizer.max_norm"]
      ('0.1', '2.0')
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got {name!r}")
    description = _Description({})
    description.add(name, value)
    return description.entries


def differences(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """Says in which entries two descriptions differ; empty if in none.

    Of each top-level name, the part before the first dot, two differences are shown, scalars
    first and at most one array or hash, and the others are counted.

    Args:
      there: a description, such as one saved before.
      here: the description to compare it with.

    Returns:
      One line.

    Example:
      >>> differences({"seed": "0", "lanes": "1"}, {"seed": "1", "lanes": "1"})
      'seed is 0 there and 1 here'
    """
    groups: dict[str, list[str]] = {}
    for name in {**there, **here}:
        if there.get(name) != here.get(name):
            groups.setdefault(re.split(r"[.\[]", name)[0], []).append(name)
    parts = []
    for top, names in groups.items():
        telling = [name for name in names if _is_telling(there.get(name), here.get(name))]
        others = [name for name in names if name not in telling]
        shown = [*telling, *others[:1]][:_MOST]
        for name in shown:
            first, second = _contrast(there.get(name), here.get(name))
            parts.append(f"{name} is {first} there and {second} here")
        if len(names) > len(shown):
            parts[-1] += f", and {len(names) - len(shown)} more of {top}"
    return "; ".join(parts)


def _is_telling(there: str | None, here: str | None) -> bool:
    """Whether two values differ in more than hashes or the numbers of an array."""
    there, here = there or "", here or ""
    is_array = any(_ARRAY.match(text) or "sha256" in text for text in (there, here))
    return not is_array and _HASHED.sub("", there) != _HASHED.sub("", here)


def _contrast(there: str | None, here: str | None) -> tuple[str, str]:
    """Two values in short, cut out where they begin to differ."""
    common = len(os.path.commonprefix([there or "", here or ""]))
    start = max(0, common - _SHOWN // 2) if there and here else 0
    first, second = (
        "absent"
        if value is None
        else value
        if len(value) <= _SHOWN
        else f"{'...' * (start > 0)}{value[start : start + _SHOWN]}"
        f"{'...' * (start + _SHOWN < len(value))}"
        for value in (there, here)
    )
    return first, second


class _Description:
    """Walks through a value and collects entries.

    Functions and objects met before, in a cycle or not, are described once; containers are
    described again unless they contain themselves, since equal ones may be one object here and
    two there. What was met is kept: a new object could take the address of one that is gone.
    """

    def __init__(self, met: dict[int, tuple[str, Any]]):
        self.entries: dict[str, str] = {}
        self._met = met

    def add(self, name: str, value: Any) -> None:
        """Adds the entries of a value."""
        if isinstance(value, jax.core.Tracer):
            raise TypeError(f"{name} must be concrete to be described, got a traced value")
        if isinstance(value, enum.Enum):
            self._put(name, f"{_qualified(type(value))}.{value.name}")
        elif isinstance(value, _PLAIN):
            self._put(name, _shortened(repr(value)))
        elif isinstance(value, np.ndarray | np.generic | jax.Array):
            self._add_array(name, value)
        elif isinstance(value, types.ModuleType):
            self._put(name, f"module {value.__name__}")
        elif isinstance(value, os.PathLike):
            self._put(name, repr(os.fspath(value)))
        elif isinstance(value, type):
            self._put(name, _qualified(value))
            self._add_class(name, value)
        elif id(value) in self._met:
            self._put(name, f"see {self._met[id(value)][0]}")
        else:
            self._met[id(value)] = name, value
            self._add_object(name, value)
            if isinstance(value, _CONTAINERS):
                del self._met[id(value)]

    def _add_object(self, name: str, value: Any) -> None:
        if isinstance(value, types.FunctionType):
            self._add_function(name, value)
        elif isinstance(value, types.MethodType):
            self._put(name, "bound method")
            self._add_parts(name, {"__func__": value.__func__, "__self__": value.__self__})
        elif isinstance(value, functools.partial):
            self._add_partial(name, value)
        elif isinstance(value, optax.GradientTransformation):
            self._add_transformation(name, value)
        elif isinstance(value, PyTreeDef):
            nodes = self._apart((value.node_data(), value.children()))
            self._put(name, f"pytree structure sha256 {short_hash(nodes)}")
        elif isinstance(value, _CONTAINERS):
            self._add_container(name, value)
        elif dataclasses.is_dataclass(value):
            self._put(name, _qualified(type(value)))
            hidden = getattr(type(value), "undescribed_fields", ())
            fields = [f.name for f in dataclasses.fields(value) if f.name not in hidden]
            self._add_parts(name, {f: getattr(value, f) for f in fields if hasattr(value, f)})
            self._add_class(name, type(value), of_instance=fields)
        else:
            self._add_other(name, value)

    def _put(self, name: str, text: str) -> None:
        while name in self.entries:  # such as a global with the name of an argument
            name += "'"
        self.entries[name] = text

    def _add_parts(self, name: str, parts: Mapping[str, Any]) -> None:
        for part, value in parts.items():
            self.add(f"{name}.{part}", value)

    def _apart(self, value: Any) -> str:
        """The description of a value whose place among others says nothing."""
        inner = _Description(dict(self._met))
        inner.add("", value)
        return repr(inner.entries)

    def _add_array(self, name: str, value: Any) -> None:
        kind = f"{value.dtype}{list(value.shape)}"
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            value = jax.random.key_data(value)
        array = np.asarray(value)
        if array.dtype.hasobject:
            self._put(name, kind)
            self.add(f"{name}.tolist", array.tolist())
        elif array.size <= 4 and array.dtype.kind in "biufc":
            self._put(name, f"{kind} {array.tolist()}")
        else:
            content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            self._put(name, f"{kind} sha256 {short_hash(content)}")

    def _add_container(self, name: str, value: Any) -> None:
        items: Iterable[tuple[str, Any]]
        if isinstance(value, Mapping):
            keyed = [(self._key(key), item) for key, item in value.items()]
            items = sorted(keyed, key=lambda pair: pair[0])
        elif hasattr(value, "_fields"):
            items = [(f".{field}", getattr(value, field)) for field in value._fields]
        elif isinstance(value, set | frozenset):
            items = [(f"[{i}]", part) for i, part in enumerate(sorted(map(self._apart, value)))]
        else:
            items = [(f"[{i}]", item) for i, item in enumerate(value)]
        self._put(name, f"{_qualified(type(value))} of {len(value)}")
        target, prefix = (self, name) if len(value) <= _LONGEST else (_Description(self._met), "")
        for key, item in items:
            target.add(prefix + key, item)
        if target is not self:
            self._put(f"{name}[...]", f"sha256 {short_hash(repr(target.entries))}")

    def _key(self, key: Any) -> str:
        if isinstance(key, str) and key.isidentifier():
            return f".{key}"
        return f"[{key!r}]" if isinstance(key, _PLAIN) else f"[{short_hash(self._apart(key))}]"

    def _add_partial(self, name: str, value: functools.partial) -> None:
        if isinstance(value.func, Rebuilt):
            self._add_sweepable(name, value.func, value.args[0])
            return
        self._put(name, _qualified(type(value)))
        arguments = {f"args[{i}]": argument for i, argument in enumerate(value.args)}
        self._add_parts(name, {"func": value.func} | arguments | _sorted(value.keywords))

    def _add_transformation(self, name: str, value: optax.GradientTransformation) -> None:
        halves = [half for half in value if isinstance(half, functools.partial)]
        sweepable = len(halves) == 2 and all(isinstance(half.func, Rebuilt) for half in halves)
        if sweepable and self._apart(halves[0]) == self._apart(halves[1]):
            self._add_partial(name, halves[1])
            return
        self._put(name, _qualified(type(value)))
        self._add_parts(name, {"init": value.init, "update": value.update})

    def _add_sweepable(self, name: str, rebuilt: Rebuilt, numbers: tuple[Any, ...]) -> None:
        """A factory and its arguments by their names, whether swept or static."""
        factory, arguments = rebuilt.factory, rebuilt.structure.join(numbers)
        code = getattr(factory, "__code__", None)
        self._put(name, _qualified(factory) + (f" code {hash_code(code)}" if code else ""))
        self._add_parts(name, _sorted(arguments | dict(rebuilt.static)))
        captures = getattr(factory, "__closure__", None) is not None
        if code is None or captures or not is_installed(code.co_filename):
            self.add(f"{name}.factory", factory)

    def _add_function(self, name: str, function: types.FunctionType) -> None:
        code, defaults = function.__code__, function.__defaults__ or ()
        self._put(name, f"{_qualified(function)} code {hash_code(code)}")
        for variable, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                content = cell.cell_contents
            except ValueError:  # not assigned yet
                self._put(f"{name}.{variable}", "empty")
                continue
            self.add(f"{name}.{variable}", content)
            if isinstance(content, types.ModuleType):
                for attribute, part in attributes_of(f"{name}.{variable}", content, code):
                    self.add(attribute, part)
        optional = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
        self._add_parts(name, dict(zip(optional, defaults, strict=True)))
        self._add_parts(name, _sorted(function.__kwdefaults__ or {}))
        if not is_installed(code.co_filename):
            for variable, content in globals_of(code, function.__globals__):
                self.add(f"{name}.{variable}", content)

    def _add_class(self, name: str, kind: type, of_instance: Iterable[str] = ()) -> None:
        """Adds the code and the plain data of a class, once, unless it is an installed one.

        ``of_instance``: attributes that an instance has of its own, so that its class decides
        nothing about them.
        """
        if id(kind) in self._met:
            return
        self._met[id(kind)] = name, kind
        for ancestor in kind.__mro__:
            is_users = not is_installed_module(sys.modules.get(ancestor.__module__))
            for method, value in _sorted(vars(ancestor)).items():
                if isinstance(value, _DATA):
                    if is_users and not method.startswith("__") and method not in of_instance:
                        self.add(f"{name}.{method}", value)
                    continue
                function = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
                code = getattr(inspect.unwrap(function), "__code__", None)
                # "<string>" is what dataclasses and named tuples generate.
                if isinstance(code, types.CodeType) and not (
                    is_installed(code.co_filename) or code.co_filename == "<string>"
                ):
                    self.add(f"{name}.{method}", inspect.unwrap(function))

    def _add_other(self, name: str, value: Any) -> None:
        kind, text = _qualified(type(value)), ""
        fields: dict[str, Any] = {}
        if isinstance(value, types.BuiltinFunctionType):
            kind = _qualified(value)
        elif isinstance(value, logging.Filterer):
            pass  # a logger knows all others, and decides nothing
        elif hasattr(value, "__wrapped__") and kind.startswith(_WRAPPERS):
            fields = {"__wrapped__": value.__wrapped__}  # what jax.jit returns knows its line
        else:
            slots = [vars(ancestor).get("__slots__", ()) for ancestor in type(value).__mro__]
            names = [s for slot in slots for s in ((slot,) if isinstance(slot, str) else slot)]
            fields = {slot: getattr(value, slot) for slot in names if hasattr(value, slot)}
            fields |= getattr(value, "__dict__", {})
            fields = {f: part for f, part in fields.items() if not f.startswith("__")}
            text = "" if fields else _shortened(repr(value))
        self._put(name, kind if not text or _ADDRESS.search(text) else f"{kind} {text}")
        self._add_parts(name, _sorted(fields))
        self._add_class(name, type(value), of_instance=fields)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:40]}... sha256 {short_hash(text)}"


def _qualified(value: Any) -> str:
    name = getattr(value, "__qualname__", None) or type(value).__qualname__
    return f"{getattr(value, '__module__', None) or 'builtins'}.{name}"


def _sorted(parts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: parts[name] for name in sorted(parts)}
